# `make demo` and `make test` set up everything they need, in .venv.
PYTHON ?= python3
VENV ?= .venv
DATA ?=
OUT ?= demo
MINUTES ?=
SERVE ?=
BIN := $(VENV)/bin
DOCS_VENV ?= .venv-docs
# Bytecode is kept in any case: without, every process that a test starts compiles torch anew.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test setup lint docs lock clean

demo: setup
	$(BIN)/resight demo $(if $(DATA),"$(DATA)") --out "$(OUT)" $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)
	$(if $(SERVE),$(BIN)/resight serve "$(OUT)/gallery-after")

test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder --durations 20 $(ARGS)

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# The site, in site/. The package's docstrings are read from its source.
docs: $(DOCS_VENV)/.packages
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --quiet
	@echo "site/index.html"

setup: $(VENV)/.installed

# The package is installed as a user would have it, not linked: tests run on what is shipped.
# Nothing is fetched here, so that it also works offline once the packages are there.
$(VENV)/.installed: $(VENV)/.packages pyproject.toml $(shell find src -type f -not -name '*.pyc')
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --force-reinstall .
	@touch $@

$(VENV)/.packages: requirements.lock
	@PYTHON="$(PYTHON)" sh tools/make_venv.sh "$(VENV)"
	$(BIN)/python -m pip install --quiet --progress-bar off --no-compile --require-hashes -r requirements.lock
	@touch $@

$(DOCS_VENV)/.packages: requirements-docs.lock
	@PYTHON="$(PYTHON)" sh tools/make_venv.sh "$(DOCS_VENV)"
	$(DOCS_VENV)/bin/python -m pip install --quiet --progress-bar off --require-hashes -r requirements-docs.lock
	@touch $@

lock:
	uv pip compile pyproject.toml --extra dev --generate-hashes --universal \
	  --python-version 3.11 --no-emit-index-url --no-header --quiet --upgrade -o requirements.lock
	uv pip compile --group docs --generate-hashes --universal \
	  --python-version 3.11 --no-emit-index-url --no-header --quiet --upgrade -o requirements-docs.lock

clean:
	rm -rf $(VENV) $(DOCS_VENV) build dist demo site
