# Every target makes .venv by itself. Needed: git, make, Python 3.10 or newer, and a package index that pip can reach.
PYTHON ?= python3
# e.g. PIP_FLAGS="--index-url ..." for another package index
PIP_FLAGS ?=
# e.g. PYTEST_FLAGS="-k trial --cov"
PYTEST_FLAGS ?=

BIN := .venv/bin
FILES := sb3_dream tests benchmarks docs/conf.py setup.py
DEFINITION := setup.py constraints.txt sb3_dream/version.txt

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
# what is installed is compiled once, where it is first used, and not anew in every process
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test opengl lint format check-format type doc benchmark clean

help:  ## This list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/make \1: \2/p' Makefile

demo: .venv/.demo  ## Train a small agent, and see it explore and then act
	@$(BIN)/python -m benchmarks.demo

test: .venv/.tests opengl  ## Run the tests
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal $(PYTEST_FLAGS)

# What the tests of MetaSign-v0 draw with. Without it they are skipped.
OPENGL := libegl1 libgl1 libglu1-mesa libgl1-mesa-dri libfreetype6 libfontconfig1
HAS_OPENGL = $(BIN)/python -W ignore -c 'from sb3_dream.envs.sign import load_world; load_world()' >/dev/null 2>&1
opengl: .venv/.tests
	@$(HAS_OPENGL) || { { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends $(OPENGL); } \
		>/dev/null 2>&1 </dev/null; $(HAS_OPENGL); } \
		|| echo "No OpenGL: the tests of MetaSign-v0 are skipped. To run them, as root: apt-get install $(OPENGL)"

lint: .venv/.tests  ## Look for mistakes
	@$(BIN)/ruff check $(FILES)

format: .venv/.tests  ## Format the code and sort the imports
	@$(BIN)/ruff check --select I --fix $(FILES)
	@$(BIN)/black -q $(FILES)

check-format: .venv/.tests  ## Say what `make format` would change
	@$(BIN)/ruff check --select I $(FILES)
	@$(BIN)/black --check $(FILES)

type: .venv/.tests  ## Check the types
	@$(BIN)/mypy

doc: .venv/.docs  ## Build the documentation: docs/_build/html/index.html
	@$(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build/html
	@echo "docs/_build/html/index.html"

benchmark: .venv/.demo  ## Measure the speed
	@$(BIN)/python -m benchmarks.throughput

clean:  ## Remove what was installed and built, .venv too
	rm -rf .venv build dist sb3_dream.egg-info docs/_build .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find sb3_dream tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: each is remade when what defines the package changes.
.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed. Run: make PYTHON=/path/to/python3.10"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "This Python cannot make a venv. Run: apt-get install python3-venv"; exit 1; }
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@touch $@

define install
@echo "Installing into .venv (the first time takes about a minute) ..."
@$(BIN)/pip install -qq --no-compile -c constraints.txt $(PIP_FLAGS) -e ".[$(EXTRAS)]"
@touch $@
endef

.venv/.demo: EXTRAS := benchmarks
.venv/.demo: .venv/.created $(DEFINITION)
	$(install)

.venv/.tests: EXTRAS := benchmarks,tests
.venv/.tests: .venv/.created $(DEFINITION)
	$(install)
	@touch .venv/.demo

.venv/.docs: EXTRAS := docs
.venv/.docs: .venv/.created $(DEFINITION)
	$(install)
