PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# On Linux the plain torch wheel carries 5 GB of CUDA. Machines without a GPU may
# point pip at PyTorch's CPU builds, or preset TORCH, before the first `make`.
TORCH  ?= torch==2.13.0

.PHONY: demo test test-slow check setup clean

demo: $(VENV)/.installed
	$(BIN)/alphabar demo

test: $(VENV)/.installed-dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow --timeout=5400

setup: $(VENV)/.installed-dev

# Debian ships venv without ensurepip unless python3-venv is installed; the second
# form needs only pip itself.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "alphabar needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet -e .
	touch $@

# torch-fidelity is the oracle of the metric tests; only its arithmetic is used, so
# torchvision, which it names as a dependency and which would replace torch, stays out.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps "torch-fidelity==0.4.0"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
