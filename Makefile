# make run PROMPT="..."   set up, fetch and build what is missing, and answer
# make run MODELS=small   the same with other models, a preset of models.toml
# make test               set up and run every check
# make lint, coverage     parts of it; coverage takes longer
# make docs               write what is generated
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := run

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What answers, and with what tests and development need too.
RUNS := $(VENV)/.runs
READY := $(VENV)/.ready
PROMPT ?= How do I stay safe online?
export PROMPT
MODELS ?= default
# What `models` brings if it is missing: names of models.toml.
WANTED = target/$(MODELS) bundle/$(MODELS)

# Each worker has a core of its own, see tests/conftest.py. Files go out as they are listed, so that
# the longest does not come last.
PARALLEL = -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# How llama.cpp is compiled, unless CMAKE_ARGS says it: for this CPU, without the code for images.
FITTING_ARGS = -DLLAVA_BUILD=OFF $$($(PYTHON) alignpro_lite/hardware/llama_build.py)

.PHONY: run test coverage lint docs models reward clean

run: models
	@$(BIN)/alignpro-lite run --models $(MODELS) "$$PROMPT"

test: WANTED = target/small bundle/small target/qwen2.5-coder-0.5b-instruct bundle/qwen2.5-coder-0.5b-reference
test: models reward lint
	$(BIN)/python -m pytest $(PARALLEL)

coverage: $(READY)
	$(BIN)/python -m pytest -m "not real" $(PARALLEL) --cov

lint: $(READY)
	$(BIN)/python tools/lint.py

docs: $(READY)
	$(BIN)/python -m tools.generate_architecture
	$(BIN)/python -m tools.generate_cli
	$(BIN)/python -m tools.generate_config

models: $(RUNS)
	@for model in $(WANTED); do \
		$(BIN)/alignpro-lite models path $$model > build/models 2> /dev/null || \
			exec $(BIN)/alignpro-lite models pull $(WANTED); \
	done

reward: $(READY)
	@$(BIN)/alignpro-lite models path reward/default > build/default-reward 2> /dev/null || { \
		$(BIN)/alignpro-lite models pull all-minilm-l6-v2 && \
		$(BIN)/alignpro-lite export bundle reward/default; }

$(RUNS): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version.split()[0] + ": run make PYTHON=python3.12")'
	@echo "Setting up $(VENV); llama.cpp is compiled, which takes 5 to 10 minutes the first time."
	$(PYTHON) -m venv $(VENV)
	@# One cache for each way to compile: pip takes from its own whatever it once compiled.
	CMAKE_ARGS="$${CMAKE_ARGS-$(FITTING_ARGS)}"; export CMAKE_ARGS; \
	cache="$$($(BIN)/python -m pip cache dir 2> /dev/null || echo build)"; \
	$(BIN)/python -m pip install --quiet --constraint constraints.txt llama-cpp-python \
		--cache-dir "$$cache/llama.cpp-$$(cksum <<< "$$CMAKE_ARGS" | cut -d" " -f1)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[cpu]"
	@mkdir -p build && touch $(RUNS)

$(READY): $(RUNS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[cpu,export,train,eval,serve,dev]"
	@touch $(READY)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
