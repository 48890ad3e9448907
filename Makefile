# Needs Python 3.11 or newer and make; everything else is installed into .venv, once.
# Extra arguments: make test ARGS="-k journal", make demo ARGS="--kill-at random".

PYTHON ?= python3
ARGS ?=
SEEDS ?= 1000
FIRST ?= 0
KILLS ?= 200
MINUTES ?= 10

BIN := .venv/bin
INSTALLED := .venv/.installed

AZURITE := .servers/node_modules/.bin/azurite-blob
AZURITE_VERSION := 3.35.0

.DEFAULT_GOAL := help
.PHONY: help demo docs wheel fuzz test test-servers servers check format dictionary bench-journal bench-resume bench-quick \
	campaign soak mutants parity lock clean

help:  ## list these commands
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

demo: $(INSTALLED)  ## kill a whole Ray cluster halfway through a job, and see the job go on
	@$(BIN)/python docs/examples/stdlib_survey.py $(ARGS)

test: $(INSTALLED) servers  ## run all tests, on all storage servers there are
	@$(BIN)/python -m pytest $(ARGS)

test-servers: $(INSTALLED) servers  ## run the tests of storage alone
	@$(BIN)/python -m pytest tests/journal tests/cluster/test_remote_storage.py $(ARGS)

servers:  ## install what pip cannot of the storage servers that the tests use (needs npm)
	@test -e $(AZURITE) || { command -v npm >/dev/null && \
		timeout 180 npm install --prefix .servers --fetch-retries=1 --no-save --no-audit --no-fund --loglevel=error \
			azurite@$(AZURITE_VERSION) >/dev/null; } || \
		echo "Azurite cannot be installed (no npm, or no registry): the tests on Azure are skipped."

fuzz: $(INSTALLED)  ## attack stored workflows: ARGS="--seconds 600", or ARGS="--seed 17"
	@$(BIN)/python tests/fuzz/fuzz_journal.py $(ARGS)

simulate: $(INSTALLED)  ## play many seeds of the simulation: SEEDS=100000 FIRST=0, or ARGS="--trace 17"
	@cd tests/simulation && ../../$(BIN)/python simulate.py --seeds $(SEEDS) --first $(FIRST) $(ARGS)

campaign: $(INSTALLED)  ## kill random parts of real clusters: KILLS=200 SEED=1 KINDS=worker,dispatcher
	@PYTHONPATH=benchmarks:docs/examples:tests/support $(BIN)/python -m campaign --kills $(KILLS) \
		$(if $(SEED),--seed $(SEED)) $(if $(KINDS),--kinds "$(KINDS)") $(ARGS)

docs: $(INSTALLED)  ## build the documentation as a site, build/docs/index.html; warnings are errors
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs build/docs $(ARGS)
	@echo "build/docs/index.html"

wheel: $(INSTALLED)  ## build the distributions, and try them where nothing else is installed
	@.ci/wheel

check: $(INSTALLED)  ## lint, check formatting, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED)  ## mend what the linter can mend, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dictionary: $(INSTALLED)  ## train the zstd dictionary of journals (ARGS=--measure compares sizes)
	@$(BIN)/python benchmarks/train_dictionary.py $(ARGS)

bench-journal: $(INSTALLED)  ## measure the journal: latency, bytes per task, listing 10,000 workflows
	@$(BIN)/python benchmarks/journal.py $(ARGS)

parity: $(INSTALLED)  ## write the page on parity with ray.workflow from the tests' markers
	@$(BIN)/python tests/support/parity_page.py

soak: $(INSTALLED)  ## run thousands of workflows and watch memory, files and threads: MINUTES=10
	@PYTHONPATH=docs/examples $(BIN)/python benchmarks/soak.py --minutes $(MINUTES) $(ARGS)

bench-resume: $(INSTALLED)  ## measure how soon a fresh cluster goes on, by committed tasks
	@PYTHONPATH=docs/examples $(BIN)/python benchmarks/resume.py $(ARGS)

mutants: $(INSTALLED)  ## remove each guard of the code in turn; shows which test notices
	@$(BIN)/python tests/mutants/run.py $(ARGS)

bench-quick: $(INSTALLED)  ## measure the engine beside plain Ray (ARGS=--skip-naps: one minute)
	@$(BIN)/python benchmarks/engine.py $(ARGS)

# Not the whole environment: it cannot be installed while the old lock contradicts pyproject.toml.
lock:  ## write requirements-dev.lock anew (ARGS=--upgrade for the newest versions)
	@test -x $(BIN)/uv || $(MAKE) $(INSTALLED)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --strip-extras \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--extra dev --output-file requirements-dev.lock $(ARGS) pyproject.toml

clean:  ## remove the virtual environment, caches and what a build leaves
	rm -rf .venv .servers build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
	find milepost tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# A .venv whose Python is gone or too old (it was copied, or the system was upgraded) is made anew.
$(INSTALLED): pyproject.toml requirements-dev.lock
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
			echo "Milepost needs Python 3.11 or newer, and $(PYTHON) is not." \
				"Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }; \
		$(PYTHON) -m venv --clear .venv || { \
			echo "$(PYTHON) cannot make a virtual environment." \
				"On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; }
	@echo "Installing into .venv, once; this takes a minute or two ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
		--constraint requirements-dev.lock --editable '.[dev]'
	@touch $@
