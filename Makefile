# demo, test, check and bench each set up what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEER := benchmarks/peer/.venv

.PHONY: setup demo test check bench starter policies screenshots

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Vigie needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/python app.py

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup $(PEER)/.ready
	$(BIN)/python benchmarks/bench.py

$(PEER)/.ready: benchmarks/peer/requirements.txt | setup
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(PEER)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(PEER)/bin/python --requirement $<
	touch $@

starter: setup
	$(BIN)/python -m training.build_starter --out starter

policies: setup
	$(BIN)/python -m training.compare_policies --revision v2 --out docs/policies
	$(BIN)/python -m training.choose_policy --revision v2 --cost-miss 50 --cost-false-alarm 1 --cost-review 5 --prevalence 0.02 \
	    --out docs/policies > docs/policies/choice.txt

screenshots: setup
	PYTHONPATH=. $(BIN)/python tests/screenshots.py
