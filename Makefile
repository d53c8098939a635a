# Everything sets itself up once: `make demo` and `make test` are all a newcomer needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
UV_VERSION := 0.13.9
VENV := .venv
AIRFLOW := .venv-airflow
PEERS := .venv-bench
BIN := $(VENV)/bin
# The machine's own certificates, as pip uses them.
export UV_SYSTEM_CERTS := 1
# Where it is set, as in many images, each process would compile torch and all else anew, for half a minute.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo airflow test test-one test-other test-rest soak bench lint lock clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v in ((3, 11), (3, 12)) else f"Python 3.11 or 3.12 is needed, {sys.executable} is {v[0]}.{v[1]}: install one, or say make PYTHON=/path/to/python3.11")'
	@$(PYTHON) jobs/lake/java.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock \
	  || $(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --offline -e .
	@touch $@

# With them Spark reads logs that are Delta tables; the tests have it read the lake's tables too.
$(VENV)/.jars: $(VENV)/.ready
	$(BIN)/wherewhen doctor --fetch-jars
	@touch $@

$(AIRFLOW)/.ready: requirements-airflow.lock $(VENV)/.ready
	$(PYTHON) -m venv $(AIRFLOW)
	$(BIN)/uv pip install --quiet --python $(AIRFLOW)/bin/python --require-hashes -r requirements-airflow.lock
	@touch $@

demo: setup
	@$(BIN)/wherewhen demo

# An Airflow of its own in out/airflow, on this machine, until Ctrl-C; after `make demo` its nights are the demo's.
airflow: export AIRFLOW_HOME := $(CURDIR)/out/airflow
airflow: export AIRFLOW__CORE__DAGS_FOLDER := $(CURDIR)/dags
airflow: export AIRFLOW__CORE__LOAD_EXAMPLES := False
airflow: export AIRFLOW__API__HOST := 127.0.0.1
airflow: export AIRFLOW__API__PORT ?= 8080
airflow: export AIRFLOW__CORE__EXECUTION_API_SERVER_URL = http://127.0.0.1:$(AIRFLOW__API__PORT)/execution/
airflow: export WHEREWHEN_CONFIG ?= conf/demo.yaml
airflow: export WHEREWHEN_SCHEDULE ?= none
airflow: setup $(AIRFLOW)/.ready
	@PATH="$(CURDIR)/$(AIRFLOW)/bin:$$PATH" $(BIN)/python dags/local_airflow.py

# Spark leaves a core idle at times: two sessions of it run side by side, and what does without beside these; the second and
# third are shown when they have ended. Threads of torch that wait for each other would take the cores from Spark.
test: setup $(VENV)/.jars $(AIRFLOW)/.ready
	@OMP_NUM_THREADS=1 $(MAKE) --no-print-directory -k -j 3 test-one test-other test-rest

# About half of the seconds; all that goes on from the lake of tests/begun.py is in the other half.
ONE := $(wildcard tests/jobs/test_[s-z]*.py) $(wildcard tests/jobs/test_ev*.py) \
  $(addprefix tests/jobs/test_, consent.py privacy.py ranker.py redis.py relations.py) \
  $(filter-out %__pycache__/ tests/jobs/erase/ tests/jobs/seeing/, $(wildcard tests/jobs/*/))

test-one:
	@$(BIN)/python -m pytest -m 'spark and not soak' $(ONE)

test-other:
	@$(call shown-at-the-end, -m 'spark and not soak' $(addprefix --ignore=, $(ONE)) tests)

test-rest:
	@$(call shown-at-the-end, -m 'not spark and not soak')

shown-at-the-end = $(BIN)/python -m pytest $(1) > $(VENV)/$@.log 2>&1; code=$$?; cat $(VENV)/$@.log; exit $$code

# Hours: a SIGKILL at every commit point of a night, a line each; a whole night by Airflow.
soak: setup $(VENV)/.jars $(AIRFLOW)/.ready
	$(BIN)/python -m pytest -m soak

# One JSON line per peer; ARGS are the benchmark's own, as in: make bench BENCH=clean ARGS='--size 1000000'
bench: setup $(PEERS)/.ready
	@$(BIN)/python tests/benchmarks/$(BENCH).py $(ARGS)

$(PEERS)/.ready: requirements-bench.lock $(VENV)/.ready
	$(PYTHON) -m venv $(PEERS)
	$(BIN)/uv pip install --quiet --python $(PEERS)/bin/python --require-hashes -r requirements-bench.lock
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The peers' torch and numbers are of our versions: what is compared are programs.
lock:
	$(BIN)/uv pip compile --quiet --no-annotate --no-header --no-emit-index-url --generate-hashes --python-version 3.11 --extra dev --extra tracking pyproject.toml -o requirements.lock
	printf 'apache-airflow==3.3.2\npyyaml>=6\n' | $(BIN)/uv pip compile --quiet --no-annotate --no-header --no-emit-index-url --generate-hashes --python-version 3.11 - -o requirements-airflow.lock
	(printf 'duckdb==2.0.0\nimplicit==0.7.3\nrecbole==1.2.1\n'; grep -oE '^(torch|numpy|pandas)==[^ ]+' requirements.lock) | $(BIN)/uv pip compile --quiet --no-annotate --no-header --no-emit-index-url --generate-hashes --python-version 3.11 - -o requirements-bench.lock

clean:
	rm -rf $(VENV) $(AIRFLOW) $(PEERS) build *.egg-info
