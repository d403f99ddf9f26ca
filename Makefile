# make run    sets everything up and runs the quickstart job to its report
# make test   sets everything up and passes every check
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Byte code is made of what is imported, when it is: making it of everything here takes a minute.
PIP := $(BIN)/pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt
export LITELLM_LOCAL_MODEL_COST_MAP := True

.PHONY: run test format clean

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "batchrouter needs Python 3.11 or newer: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing into $(VENV): a few minutes and a few GB the first time, most of it PyTorch ..."
	@$(PIP) --editable .
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing into $(VENV), with what the tests need: a few minutes and a few GB the first time ..."
	@$(PIP) --editable '.[test]'
	@touch $(VENV)/.run $@

run: $(VENV)/.run
	@$(BIN)/python examples/quickstart/run.py

test: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info
