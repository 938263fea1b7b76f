PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Byte code is worth keeping in a virtual environment, whatever the caller's shell says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test slow notebooks bench lint style types docs dist clean

demo: $(VENV)/demo
	$(RUN) examples/quickstart.py --output examples/output

test: $(VENV)/test
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadscope -m "not slow" --cov --cov-report=term-missing:skip-covered

slow: $(VENV)/test
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 -m slow

notebooks: $(VENV)/test
	$(RUN) examples/notebooks.py

bench: $(VENV)/test
	$(RUN) benchmarks/run.py
	OMP_NUM_THREADS=1 $(RUN) benchmarks/constants.py

lint: style types

style: $(VENV)/test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(VENV)/test
	$(RUN) -m mypy

dist: $(VENV)/test
	rm -rf build dist
	$(RUN) -m build
	$(RUN) -m twine check --strict dist/*

docs: $(VENV)/test
	$(RUN) -m sphinx -b html -E -W --keep-going --nitpicky docs docs/_build/html

clean:
	rm -rf $(VENV) docs/_build examples/output benchmarks/output build dist *.egg-info

$(VENV)/demo $(VENV)/test: $(VENV)/%: pyproject.toml constraints.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[$*]'
	$(if $(filter test,$*),$(RUN) -m pip install --quiet --no-compile --no-deps --constraint constraints.txt curvlinops-for-pytorch)
	touch $@
