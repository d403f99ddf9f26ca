# make run            sets everything up and runs the quickstart job to its report
# make check          the contributor's loop: format, lint, types, and every test that is not `real` (servers, Ray, terminals, kills)
# make test           sets everything up and passes every check
# make release-check  makes again what is shipped or frozen, and compares
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Byte code is made of what is imported, when it is: making it of everything here takes a minute.
PIP := $(BIN)/pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt
# Tests run in so many processes: one more than two cores, since tests also wait, for servers and for Ray.
WORKERS ?= 3
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist worksteal --durations=10
export LITELLM_LOCAL_MODEL_COST_MAP := True
# Some machines and images forbid byte code. Then each of some hundred processes would compile all that it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run check test release-check format clean

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

# mypy works beside pytest. Its output is held back until pytest's summary is out, and shown only if it found something.
define checks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(BIN)/mypy > $(VENV)/mypy.out 2>&1 & types=$$!; \
	trap 'kill $$types 2>/dev/null' INT TERM; \
	echo "$(PYTEST) $(1), and $(BIN)/mypy beside it"; \
	$(PYTEST) $(1); tests=$$?; \
	wait $$types || { cat $(VENV)/mypy.out; exit 1; }; \
	exit $$tests
endef

check: $(VENV)/.test
	$(call checks,-m 'not real')

test: $(VENV)/.test
	$(call checks)

release-check: $(VENV)/.test
	$(BIN)/pytest -m release

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info
