# Two commands matter: `make demo` (no torch) and `make test` (everything). Both set up their own virtual environment.
PYTHON ?= python3
VENV := .venv
DEMO := .venv-demo
PIP := -m pip --disable-pip-version-check -q
export HF_HUB_OFFLINE := 1

.PHONY: demo test test-pythons bench coverage leaves hostile fuzz lint types schema setup clean

demo: $(DEMO)/installed  ## verify the shipped study's receipts against their evidence
	@$(DEMO)/bin/python fixtures/scripts/show_study.py $(DEMO)/bin/atlas-verify

test: $(VENV)/installed lint types  ## lint, strict types, every test
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

bench: $(VENV)/installed  ## measure verification on 500 MiB of generated evidence
	$(VENV)/bin/python -m benchmarks.run

# The same report on every Python that is here: the light core in an environment of its own, compared with .venv's.
test-pythons: $(VENV)/installed
	@for v in 3.12 3.13; do \
	  for p in "$$(command -v python$$v)" "$$HOME"/.pyenv/versions/$$v*/bin/python; do \
	    [ -n "$$p" ] && "$$p" -c "" 2>/dev/null && [ ! -e .venv-$$v ] && "$$p" -m venv .venv-$$v && .venv-$$v/bin/python $(PIP) install -c constraints.txt -e .; \
	  done; \
	  [ -e .venv-$$v ] || echo "no Python $$v here: its report is not compared"; \
	done
	ATLAS_PYTHON_3_12=$(CURDIR)/.venv-3.12/bin/python ATLAS_PYTHON_3_13=$(CURDIR)/.venv-3.13/bin/python \
	  $(VENV)/bin/python -m pytest -rs tests/verify/test_same_everywhere.py

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/installed
	$(VENV)/bin/mypy

schema: $(VENV)/installed  ## regenerate schema.json and its shipped copy
	$(VENV)/bin/python -c "from pathlib import Path; from atlas_schema.documents.schema import schema_bytes as b; [Path(p).write_bytes(b()) for p in ('schema.json', 'contracts/atlas_contracts/schema.json')]"

coverage: $(VENV)/installed  ## simulate how often the bounds miss, into docs/coverage.md
	$(VENV)/bin/python -m benchmarks.coverage --write docs/coverage.md

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP) install -c constraints.txt "torch==2.13.0"
	$(VENV)/bin/python $(PIP) install -c constraints.txt -e ".[extract,dev]"
	@touch $@

$(DEMO)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python $(PIP) install -c constraints.txt -e .
	@touch $@

clean:
	rm -rf $(VENV) $(DEMO) .venv-3.12 .venv-3.13 build dist

leaves: $(VENV)/installed  ## change every leaf of every shipped receipt; goes on where it was stopped
	$(VENV)/bin/python tests/attacks/leaves.py --write docs/attacks.md

hostile: $(VENV)/installed  ## give the worst inputs to atlas-verify and measure it
	$(VENV)/bin/python tests/attacks/hostile.py --write docs/attacks.md

fuzz: $(VENV)/installed  ## fuzz readers, digests and "change anything, must not verify": SECONDS=60 each
	$(VENV)/bin/python $(PIP) install -c constraints.txt -e ".[fuzz]"
	$(VENV)/bin/python tests/fuzz/run.py $(or $(SECONDS),60) --write docs/attacks.md
