# The commands of this project; `make help` lists them. They need Python 3.11 or newer
# and make: what else they need, they install into .venv and .venv-newer.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test lint types docs smoke pytest pytest-newer bench clean

# Whom the demo's messages go through: redis, nats, rabbitmq, mqtt, or nobody. BROKER_URL
# is where that is; else the one on this machine, which is started where it is not.
BROKER ?=
export BROKER

# The first of these versions that is installed and can make an environment. pyenv keeps
# its versions off the PATH until one is chosen, so it is asked as well.
find-python = $(firstword $(foreach version,$(1),$(shell \
	for python in python$(version) python3 \
		"$$(pyenv prefix $(version) 2>/dev/null)/bin/python"; do \
		"$$python" -c 'import ensurepip, sys; \
			assert "%d.%d" % sys.version_info[:2] == "$(version)"; \
			print(sys.executable)' 2>/dev/null && break; \
	done)))

# The oldest Python that there is runs the oldest Django, the newest runs the newest.
PYTHON = $(call find-python,3.11 3.12 3.13 3.14)
NEWER_PYTHON = $(call find-python,3.14 3.13 3.12)

VENV := .venv
DJANGO := Django>=5.2,<6
NEWER_VENV := .venv-newer
NEWER_DJANGO := Django>=6,<7

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s%s\n", $$1, $$2 }' Makefile

# Each of the two has brokers of its own; more would only wait for each other's.
PYTEST := -m pytest --numprocesses 2 --dist worksteal

# What shows nothing about the newer Python is not run on it again: the brokers that the
# tests start, Nest and the docs. asyncio's debug mode takes half the time of the rest.
NEWER_PYTEST := $(PYTEST) --override-ini asyncio_debug=false \
	$(addprefix --ignore tests/,brokers docs interop)

demo: $(VENV)/.demo ## run the demo project, over TCP or a broker: BROKER=redis
	@$(VENV)/bin/python -m demo_project

test: lint types docs smoke pytest pytest-newer ## run everything that CI runs

lint: $(VENV)/.dev ## check the style
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

types: $(VENV)/.dev ## check the types
	$(VENV)/bin/mypy

docs: $(VENV)/.dev ## build the documentation into docs/_build/html
	$(VENV)/bin/python -m sphinx --fail-on-warning --fresh-env --keep-going --quiet \
		docs docs/_build/html

smoke: $(VENV)/.dev ## see that the benchmarks run
	$(VENV)/bin/python -m tests.benchmarks --smoke

pytest: $(VENV)/.dev ## run the tests on the oldest Python there is, with Django 5.2
	$(VENV)/bin/python $(PYTEST)

pytest-newer: ## run the tests on the newest Python there is, with Django 6
	@python="$(NEWER_PYTHON)"; \
	if [ -n "$$python" ]; then \
		$(MAKE) --no-print-directory NEWER_PYTHON="$$python" $(NEWER_VENV)/.test && \
		$(NEWER_VENV)/bin/python $(NEWER_PYTEST); \
	else \
		echo "Django 6 was not tested: there is no Python 3.12 or newer here."; \
	fi

bench: $(VENV)/.dev ## run the benchmarks in full
	$(VENV)/bin/python -m tests.benchmarks

clean: ## remove what these commands made
	rm -rf $(VENV) $(NEWER_VENV) docs/_build build dist htmlcov .coverage .coverage.*
	rm -rf .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment holds this package and a dependency group, and is brought up to date
# when pyproject.toml is younger than its stamp. pip knows groups since 25.1.
define install
	$(1)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(1)/bin/python -m pip install --quiet --editable . --group $* "$(2)"
	@touch $@
endef

$(VENV)/bin/python:
	@python="$(PYTHON)"; \
	if [ -z "$$python" ]; then \
		echo "This needs Python 3.11 or newer with its venv module" \
			"(on Debian the package python3-venv)." >&2; \
		exit 1; \
	fi; \
	set -x; "$$python" -m venv $(VENV)

$(NEWER_VENV)/bin/python:
	$(NEWER_PYTHON) -m venv $(NEWER_VENV)

$(VENV)/.%: pyproject.toml | $(VENV)/bin/python
	$(call install,$(VENV),$(DJANGO))

$(NEWER_VENV)/.%: pyproject.toml | $(NEWER_VENV)/bin/python
	$(call install,$(NEWER_VENV),$(NEWER_DJANGO))
