# make demo    segment the built-in sample and say where the pictures are
# make test    the tests, JOBS=2 at a time; make check adds style, types and the slow tests; make test-label those of MONAI Label's server
# make label   serve the bundle with MONAI Label: STUDIES=folder or DICOMweb address, PORT=8000, TRAINERS=no
# make bundle  the bundle as a zip in out/, for servers; make wheel: as a wheel, for pip
# make orthanc the PACS that some tests talk to, from Debian's packages; they are skipped without it
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core-installed
DEV := $(VENV)/.dev-installed

VERSIONS := .cache/label-versions

.PHONY: demo wheel label label-setup label-versions setup test test-label check bundle lock clean orthanc chromium dicom3tools

demo: $(CORE)
	$(BIN)/python scripts/demo.py --output out/demo

setup: $(CORE)

PORT ?= 8000
# In an environment of its own, .venv-label, of which this makes nothing else.
label-setup:
	@PYTHON=$(PYTHON) scripts/serve_monai_label.sh --setup

# NumPy and pydicom of that environment alone, with which a test repeats inference.
label-versions: $(VERSIONS)/.installed

$(VERSIONS)/.installed: requirements/label.txt $(VENV)/bin/python
	@# where there is Python 3.11, for which they are pinned
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
	  rm -rf $(VERSIONS) && $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	    --target $(VERSIONS) $$(grep -E '^(numpy|pydicom)==' requirements/label.txt); fi
	@mkdir -p $(VERSIONS) && touch $@

label:
	@PYTHON=$(PYTHON) TRAINERS=$(TRAINERS) scripts/serve_monai_label.sh "$(STUDIES)" $(PORT)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "error: $$($(PYTHON) --version) is not supported; name Python 3.10 to 3.12 with make PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(CORE): requirements/core.txt pyproject.toml $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements/core.txt
	@# the command tpseg, which runs this checkout
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(DEV): requirements/dev.txt $(CORE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements/dev.txt
	@# In a container of one's own; elsewhere they are for who asks, since they are for the whole machine.
	@[ "$$(id -u)" != 0 ] || [ -d /run/systemd/system ] || $(MAKE) --silent orthanc chromium dicom3tools
	@touch $@

# What the tests of the PACS node, of the pages and of DICOM objects use, and are skipped without.
orthanc:
	@scripts/apt_install.sh Orthanc orthanc orthanc-dicomweb

chromium:
	@scripts/apt_install.sh chromium chromium

dicom3tools:
	@scripts/apt_install.sh dciodvfy dicom3tools

# Processes with one thread each, to which whole files of tests go.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder

test: $(DEV) label-versions
	$(PYTEST) -m "not slow"

# In MONAI Label's own environment; skipped where that cannot be set up.
test-label: $(DEV)
	-@$(MAKE) --silent label-setup
	$(PYTEST) -n 0 tests/serving/label

check: $(DEV) label-versions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	-@$(MAKE) --silent label-setup
	$(PYTEST)

# What `pip install` takes, with configurations and weights inside; from tracked files, so that the checkout stays as it is.
wheel: $(CORE)
	@rm -rf .cache/wheel && mkdir -p .cache/wheel out
	@git archive HEAD | tar -x -C .cache/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir out .cache/wheel

bundle: $(CORE)
	$(BIN)/python scripts/make_bundle.py

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

# What was trained stays: runs, models, what MONAI Label keeps (.label), and out where it holds weights.
clean:
	rm -rf $(VENV) .venv-label .cache .pytest_cache .mypy_cache .ruff_cache out/demo
	find bundle tests scripts -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	@if [ -n "$$(find out -name '*.pt' -print -quit 2>/dev/null)" ]; then echo "out is kept: it holds weights"; else rm -rf out; fi
