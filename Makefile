# Two commands do everything on a machine that has Python 3.11 or newer with pip and venv, git and make:
#   make reproduce   set-up, then every notebook in profile "quick"
#   make test        set-up, then all tests
PYTHON ?= python3
RUN = .venv/bin/python -m routing
# Dozens of processes import the package: where this is set, each would compile all of it anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup reproduce reproduce-full test test-litellm lint lock bench clean

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("routing needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock --editable .
	@touch $@

reproduce: setup  # two notebooks at a time; 09, which measures times, then runs alone
	$(RUN) run --profile quick --jobs 2 --only 01,02,03,04,05,06,07,08,10
	$(RUN) run --profile quick --resume

reproduce-full: setup
	$(RUN) run --profile full --resume
	.venv/bin/python -m routing.studies.readme

test: setup lint
	.venv/bin/python -m pytest $(PYTEST_OPTIONS)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

# The peers that benchmarks/ compares with pin older versions of shared packages, so they live apart.
bench: .venv-bench/.ready
	for script in benchmarks/*.py; do .venv-bench/bin/python $$script || exit 1; done

.venv-bench/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 --editable '.[notebooks,bench,scale]'
	@touch $@

# The plugin in the real LiteLLM, with mock responses. LiteLLM pins older versions of shared packages, so it lives apart.
test-litellm: .venv-litellm/.ready
	.venv-litellm/bin/python -m tests.integrations.litellm_mock

.venv-litellm/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-litellm
	.venv-litellm/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 'litellm[proxy]>=1.94' --editable .
	@touch $@

# Choose the exact versions anew. A local build tag (+cpu) is dropped, so that the lock fits every platform.
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet torch==2.13.0 '.[notebooks,test,lora,scale]'
	.venv-lock/bin/python -m pip freeze --all --exclude pip --exclude routing | sed 's/+cpu$$//' > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv .venv-bench .venv-litellm .venv-lock runs build *.egg-info
