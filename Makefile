# Two commands for a newcomer: `make demo` labels drawn scenes and scores them, `make test` checks everything. Both set up .venv
# first. `make compare` labels drawn scenes with every segmenter and scores them in one table; `make photos` labels photos with
# untrained checkpoints; `make miniature` trains what ships.
.PHONY: demo compare photos test nightly setup miniature format
PY := .venv/bin/python
export OMP_NUM_THREADS := 1

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv .venv
	if $(PY) -m pip install -q uv; then \
	  UV_FIND_LINKS="$${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-}}" .venv/bin/uv pip install -q --python $(PY) -c constraints.txt -e '.[dev]'; \
	else \
	  $(PY) -m pip install -q -c constraints.txt -e '.[dev]'; \
	fi
	touch $@

demo: setup
	.venv/bin/ovsops demo --out demo-out

compare: setup
	$(PY) -m jobs.compare --scenes 48 --out compare-out

photos: setup
	.venv/bin/python -m jobs.demo_photos --out photos-out

test: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PY) -m pytest -q -n 2 --dist loadfile -m "not nightly and not gpu and not ray and not kill"
	$(PY) -m pytest -q -m "(ray or kill) and not nightly and not gpu"

nightly: setup
	$(PY) -m pytest -q -m "nightly"

miniature: setup
	.venv/bin/python -m jobs.ship_miniature

format: setup
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
