# make demo    segment the built-in sample and say where the pictures are
# make test    the tests; make check adds style, types and the slow tests
# make orthanc the PACS that some tests talk to, from Debian's packages; they are skipped without it
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core-installed
DEV := $(VENV)/.dev-installed

.PHONY: demo setup test check lock clean orthanc

demo: $(CORE)
	$(BIN)/python scripts/demo.py --output out/demo

setup: $(CORE)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "error: $$($(PYTHON) --version) is not supported; name Python 3.10 to 3.12 with make PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(CORE): requirements/core.txt $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements/core.txt
	@touch $@

$(DEV): requirements/dev.txt $(CORE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements/dev.txt
	@# In a container of one's own: a machine with services keeps its own mind about another one.
	@[ "$$(id -u)" != 0 ] || [ -d /run/systemd/system ] || $(MAKE) --silent orthanc >/dev/null 2>&1 || true
	@touch $@

# Not as a service, which would listen on all addresses: RUNLEVEL=1 keeps it from starting where there is no systemd.
orthanc:
	@if PATH="$$PATH:/usr/sbin" command -v Orthanc >/dev/null && ls /usr/share/orthanc/plugins/libOrthancDicomWeb* >/dev/null 2>&1; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then root=; elif sudo -n true 2>/dev/null; then root=sudo; else root=none; fi; \
	if ! command -v apt-get >/dev/null || [ "$$root" = none ]; then \
	  echo "Orthanc is not installed, and cannot be without apt-get and root; its tests will be skipped."; exit 0; fi; \
	timeout 60 $$root apt-get -qq update && \
	timeout 120 $$root apt-get -qq install --download-only --no-install-recommends --yes orthanc orthanc-dicomweb && \
	$$root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
	  apt-get -qq install --no-install-recommends --yes orthanc orthanc-dicomweb && \
	if [ -d /run/systemd/system ]; then $$root systemctl --quiet disable --now orthanc; fi

test: $(DEV)
	$(BIN)/python -m pytest -q -m "not slow"

check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q

# Pins for Python 3.10 to 3.12. What a CUDA build of torch needs, torch itself asks for.
lock: $(DEV)
	$(BIN)/python -m pip install --quiet uv
	for name in core dev; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header \
	    $$([ $$name = core ] || echo --constraint requirements/core.txt) requirements/$$name.in --output-file requirements/$$name.lock && \
	  { echo "# Made by 'make lock' from requirements/$$name.in."; \
	    grep -vE '^(nvidia|cuda|triton|httpx2-jsfetch)' requirements/$$name.lock; } > requirements/$$name.txt && \
	  rm requirements/$$name.lock; \
	done

clean:
	rm -rf $(VENV) out runs
