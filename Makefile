# Everything a person types. Each target makes .venv first if it must.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DOCS_READY := .venv/.docs-ready

.DEFAULT_GOAL := help
.PHONY: help install demo features train sweep check lint types test browser bench bench-quick torture docs clean

help:  ## Show this list
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 14
	@echo 'More options for attnact itself: make train ARGS="--fold 2"'

install: $(READY)  ## Make .venv with attnact and all it needs

# The stamp is written last: an install that was interrupted is done again.
$(READY): pyproject.toml constraints.txt
	@echo "making .venv: some GB, most of them torch; a few minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)  ## Draw videos and go the whole way on them, in a few minutes
	$(BIN)/attnact demo $(ARGS)

features: $(READY)  ## Make feature cubes: DATASET=hmdb51 [VIDEOS=folder]
	@test -n "$(DATASET)" || { echo "make features DATASET=ucf11|hmdb51|hollywood2|folder"; exit 2; }
	$(BIN)/attnact features "$(DATASET)" $(if $(VIDEOS),--videos "$(VIDEOS)") $(ARGS)

train: $(READY)  ## Train the soft-attention LSTM on the features
	$(BIN)/attnact train $(ARGS)

sweep: $(READY)  ## Sweep the attention penalty λ
	$(BIN)/attnact sweep-lambda $(ARGS)

check: lint types test  ## What CI runs: lint, types, tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# Two processes, whose threads sleep rather than spin while they wait for each other.
test: $(READY) browser  ## Run the tests
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --ignore tests/machine/test_cluster.py
	$(BIN)/python -m pytest tests/machine/test_cluster.py  # alone, for Ray's threads stay in its process

browser:  ## Install Debian's chromium, which the report's tests need, as root
	@tests/browser.sh

bench: $(READY)  ## Measure the speed beside peers and limits; writes docs/performance.md
	$(BIN)/python -m tests.bench

bench-quick: $(READY)  ## The same in two minutes, smaller; prints it
	$(BIN)/python -m tests.bench --quick

torture: $(READY)  ## Kill, fill, rot and mistreat it, and see that nothing is lost; many minutes
	$(BIN)/python -m tests.torture $(ARGS)

docs: $(DOCS_READY)  ## Build the pages of docs/ into site/, warnings being errors
	$(BIN)/mkdocs build --strict

$(DOCS_READY): $(READY) constraints-docs.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  -c constraints-docs.txt -e '.[docs]'
	touch $@

clean:  ## Remove .venv and what tools leave behind; features and runs stay
	rm -rf .venv build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find attnact extract train tests -name __pycache__ -prune -exec rm -rf {} +
