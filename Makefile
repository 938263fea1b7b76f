PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Byte code is worth keeping in a virtual environment, whatever the caller's shell says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-lowest test-latest slow notebooks bench lint style types docs dist clean

demo: $(VENV)/demo
	$(RUN) examples/quickstart.py --output examples/output

test: $(VENV)/test
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadscope -m "not slow" --cov --cov-report=term-missing:skip-covered

# The tests of what works without optional dependencies; those that need one are skipped.
CORE := _utils store scoring projectors gradients tasks inputs attribution cli
NOT_CORE := attribution/test_fsdp.py attribution/test_ray.py store/test_object_store.py
# A torch without CUDA is a download of a tenth: UV_TORCH_BACKEND=cpu make test-lowest
test-lowest: RESOLUTION := lowest-direct
test-latest: RESOLUTION := highest
test-lowest test-latest: test-%:
	rm -rf $(VENV)-$*
	$(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/python -m pip install --quiet uv
	$(VENV)-$*/bin/uv pip compile --quiet --resolution $(RESOLUTION) --extra test-core --python $(VENV)-$*/bin/python \
		--output-file $(VENV)-$*/requirements.txt pyproject.toml
	$(VENV)-$*/bin/uv pip install --quiet --python $(VENV)-$*/bin/python --requirement $(VENV)-$*/requirements.txt
	PYTHONPATH=. OMP_NUM_THREADS=1 $(VENV)-$*/bin/python -m pytest -m "not slow" $(NOT_CORE:%=--ignore=tests/%) $(CORE:%=tests/%)

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
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-latest docs/_build examples/output benchmarks/output build dist *.egg-info

$(VENV)/demo $(VENV)/test: $(VENV)/%: pyproject.toml constraints.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[$*]'
	$(if $(filter test,$*),$(RUN) -m pip install --quiet --no-compile --no-deps --constraint constraints.txt curvlinops-for-pytorch)
	touch $@
