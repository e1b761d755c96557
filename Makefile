# The same checks as tools/check.py, for those who have make. `make check` is the one command before a commit.
PYTHON ?= .venv/bin/python

.venv:
	python3 -m venv .venv && .venv/bin/pip install -e ".[dev]"

check: .venv
	$(PYTHON) tools/check.py

format: .venv
	$(PYTHON) -m ruff format . && $(PYTHON) -m ruff check --fix .

docs: .venv
	$(PYTHON) -m bitmar_cli.reference > docs/cli.md

wheel: .venv
	$(PYTHON) -m pip wheel --no-deps -w dist .

.PHONY: check format docs wheel
