# make demo [DOCS=folder] [Q1="..."] [Q2="..."]   see it work, on your documents or on the project's own
# make test | lint | bench                        for who changes it
# make clean                                      remove all that make has made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := indexes/demo
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

ifdef DOCS
Q1 ?= how do I get started
Q2 ?= what to do when something goes wrong
else
Q1 ?= how are meaning and exact words combined into one ranking
Q2 ?= what happens when indexing is interrupted
endif
export DOCS Q1 Q2

.PHONY: demo test lint bench clean
.DELETE_ON_ERROR:

# An index remembers every folder it was given; one that was made of others is made anew, so that only these answer.
# A question that nothing answers (exit status 1) is no failure of the demo.
# The shell reads DOCS, Q1 and Q2 from the environment: they may hold blanks and quotes.
demo: $(VENV)/installed-all
	@set -e; \
	if [ -n "$$DOCS" ]; then set -- "$$DOCS"; else set -- README.md ARCHITECTURE.md CHANGELOG.md semsearch; fi; \
	printf '%s\n' "$$@" | cmp -s - $(VENV)/demo-paths || rm -rf $(DEMO); \
	printf '%s\n' "$$@" > $(VENV)/demo-paths; \
	echo "\$$ semsearch index $$* --index $(DEMO)"; \
	$(BIN)/semsearch index "$$@" --index $(DEMO); \
	for question in "$$Q1" "$$Q2"; do \
	    echo; echo "\$$ semsearch query \"$$question\" --index $(DEMO) -k 3"; \
	    $(BIN)/semsearch query "$$question" --index $(DEMO) -k 3 || [ $$? = 1 ]; \
	done

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed-dev
	@for script in benchmarks/[a-z]*.py; do \
	    [ -e "$$script" ] || { echo "there are no benchmarks yet"; break; }; \
	    echo "== $$script"; $(BIN)/python "$$script" || exit 1; \
	done

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find semsearch tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v "$(PYTHON)" > /dev/null || { echo "$(PYTHON) is not installed; name a Python: make PYTHON=python3.12 ..."; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "semsearch needs Python 3.10 or newer, and $(PYTHON) is $$("$(PYTHON)" --version 2>&1); name another: make PYTHON=python3.12 ..."; \
	    exit 1; }
	"$(PYTHON)" -m venv $(VENV)

# The stamps say what is installed; only a change of these two files installs again.
$(VENV)/installed-all: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing semsearch and what it needs into $(VENV): a few minutes, the first time"
	$(PIP) --editable '.[all]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing semsearch and what its tests need into $(VENV): a few minutes, the first time"
	$(PIP) --editable '.[all,dev]'
	@touch $(VENV)/installed-all $@
