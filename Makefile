# make demo    segment the built-in sample and say where the pictures are
# make test    the tests; make check adds style, types and the slow tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core-installed
DEV := $(VENV)/.dev-installed

.PHONY: demo setup test check lock clean chromium

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
	@touch $@

# The tests of the pages look at them in a browser, and are skipped where there is none.
chromium:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && timeout 120 apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -qq --no-install-recommends chromium; } >/dev/null 2>&1 || \
	  echo "Chromium is not installed: tests that need a browser are skipped"

test: $(DEV) chromium
	$(BIN)/python -m pytest -q -m "not slow"

check: $(DEV) chromium
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q

# Pins for Python 3.10 to 3.12. What a CUDA build of torch needs, torch itself asks for.
lock: $(DEV)
	$(BIN)/python -m pip install --quiet uv
	for name in core dev; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header \
	    requirements/$$name.in --output-file requirements/$$name.lock && \
	  { echo "# Made by 'make lock' from requirements/$$name.in."; \
	    grep -vE '^(nvidia|cuda|triton|httpx2-jsfetch)' requirements/$$name.lock; } > requirements/$$name.txt && \
	  rm requirements/$$name.lock; \
	done

clean:
	rm -rf $(VENV) out runs
