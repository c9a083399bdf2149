# Everything runs in .venv, which is made on first use; Python 3.10 or newer is needed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed

.PHONY: demo test test-slow lint format bench clean

demo: $(READY)
	$(BIN)/sfm-features demo --output demo-output

# Two at a time, as each test waits for disks and processes and seldom fills two cores.
test: $(READY) lint
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-slow: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -m slow --timeout 1200

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pipelines.benchmark --output bench-output

clean:
	rm -rf .venv demo-output bench-output build dist

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit('Python 3.10 or newer is needed: make PYTHON=python3.12 ...' if sys.version_info < (3, 10) else 0)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[dev]"
	touch $(READY)
