# make demo        train on handwritten digits and open nothing but files: about three minutes
# make test        the fast tests; make test-ci adds real processes and longer runs, make test-all the slow ones
# make lint        ruff and pyright
# make bench       speed: a tutorial's loop against ours, then a row for each family

PYTHON ?= python3
# What pip is asked for. On Linux a plain torch may bring several gigabytes of CUDA: see the README.
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-ci test-all lint bench clean

demo: $(VENV)/.demo
	$(BIN)/faussaire train dcgan digits --resolution 32 --width 32 --conditional --for 2m --out runs/demo
	@echo
	@echo "Those were 1,797 handwritten digits. With your own pictures:"
	@echo "    $(BIN)/faussaire train dcgan FOLDER --resolution 64 --for 30m"

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not long"

test-ci: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/.demo
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/family_speed.py

# torch goes first and alone, so that whichever build you choose stays.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[demo]"
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
