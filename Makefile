# Two commands on a fresh machine with Python >=3.10 (venv), make and git:
#   make demo    install, train a TCN on the adding problem, and see what it reached
#   make test    install the development tools, and pass every check
PYTHON ?= python3
SEED ?= 0
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test lint types tests clean

demo: .venv/installed
	$(BIN)/seqbench train model=tcn task=adding budget=quick seed=$(SEED)

test: lint types tests

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/mypy

# A worker for each core, and one thread in each: models this small gain little from a second one.
tests: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable .
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[dev]'
	touch $@ .venv/installed

clean:
	rm -rf .venv dist build
