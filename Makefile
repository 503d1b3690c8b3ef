# Two commands matter: make demo, make test. Everything else serves them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help demo test check bench requirements lock clean

help: ## what can be made
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Installing is keyed by the lock: an unchanged clone installs once.
$(VENV)/.run: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked dependencies (once, about a minute)…"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.run ## one dossier end to end over the real wires (ARGS=--once ends after the story)
	@$(BIN)/rcp-gateway demo $(ARGS)

# The tests of a file go to one worker, which starts once what they share; tests/unit, whose files are short, comes last.
test: $(VENV)/.dev ## every test, with the real servers (Debian packages are installed when root)
	@tests/install-servers
	@$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),-n 2 --dist loadfile --no-loadscope-reorder)

check: $(VENV)/.dev ## lint, format, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.dev ## the benchmarks, each against a peer or a limit in the same run
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

requirements: $(VENV)/.dev ## docs/requirements.md from the marks on the tests
	@$(BIN)/python -m pytest tests --collect-only -q --requirements=docs/requirements.md >/dev/null
	@echo "docs/requirements.md"

lock: ## resolve the dependencies anew (needs uv)
	uv pip compile --python-version 3.11 --generate-hashes --no-annotate --no-header -q pyproject.toml --group build -o requirements.lock
	uv pip compile --python-version 3.11 --generate-hashes --no-annotate --no-header -q pyproject.toml --group build --group dev -c requirements.lock -o requirements-dev.lock

clean: ## remove what was installed or built here
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache
