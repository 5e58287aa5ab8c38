# `make demo` and `make test` do all their own set-up: a .venv with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A file's tests stay in one process: they share runs. The long files come first (tests/conftest.py).
PARALLEL := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test soak lint bench clean

demo: $(STAMP)
	$(BIN)/finetune-tui demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m "not soak" $(PARALLEL)

soak: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m soak $(PARALLEL)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "finetune-tui needs Python 3.11 or newer; name one with make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
