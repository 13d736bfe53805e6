# `make` alone lists the targets. Needs Python 3.11+, make and git; everything else is installed
# into .venv in this folder.

PYTHON ?= python3
# Installed first, so that no open range chooses a build. For a GPU, or a CPU build from another
# index, pass pip's own words: make install TORCH="torch==2.13.0 --index-url <index>"
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=
# How long `make bench-serve` keeps the server saturated after measuring 1 to 64 clients.
MINUTES ?= 10
FUZZ_SEED ?= 0
# make release-check: UVX_ARGS="--torch-backend cpu" or "--find-links FOLDER" chooses torch's build.
UVX_ARGS ?=
SCENES ?= 1000

VENV := .venv
RUN := $(VENV)/bin/python
BASE := $(VENV)/.installed
DEV := $(VENV)/.installed-dev

# The processes of a test run share the cores: one thread each.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

.DEFAULT_GOAL := help
.PHONY: help install test coverage fuzz replicas clients tutorials lint quickstart bench bench-serve bench-gateway package packaging release-check docs pins site screenshots clean FORCE

help:  ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

# Another torch asked for by hand replaces the installed one; the default never does.
ifneq ($(origin TORCH),file)
ifneq ($(TORCH),$(shell cat $(BASE) 2>/dev/null))
$(BASE): FORCE
endif
endif

install: $(DEV)  ## Create .venv with this package, all extras and what tests need, pinned

# What labelling, training and reports need; enough for the quickstart.
$(BASE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(0 if sys.version_info >= (3, 11) \
	  else f"m3router needs Python 3.11 or newer, but $(PYTHON) is {v}. Try: make install PYTHON=python3.11")'
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --disable-pip-version-check --no-input $(TORCH)
	$(RUN) -m pip install --disable-pip-version-check --no-input -c constraints.txt -e .
	@printf '%s' '$(TORCH)' > $@

$(DEV): $(BASE)
	$(RUN) -m pip install --disable-pip-version-check --no-input -c constraints.txt -e ".[dev]"
	@touch $@

test: install  ## Run the tests on two processes
	$(ONE_THREAD) $(RUN) -m pytest -n 2 $(PYTEST_ARGS)

# Counting lines takes two fifths more time, so that it is not done by default.
coverage: install  ## Run the tests and list the lines that they do not reach
	$(ONE_THREAD) $(RUN) -m pytest -n 2 --cov=data --cov=m3core --cov=router \
	  --cov-report=term-missing:skip-covered $(PYTEST_ARGS)

fuzz: install  ## Damaged images, bodies and files for long: FUZZ_SEED=7 takes other ones
	$(ONE_THREAD) $(RUN) -m tests.fuzz --long --seed $(FUZZ_SEED)

replicas: install  ## Kill a replica under load, on a real Ray
	$(ONE_THREAD) $(RUN) -m pytest --tb=native -m slow tests/serve/test_ray_backend.py

clients: install  ## Drive OpenAI's clients, LangChain, LlamaIndex and others against the server
	$(ONE_THREAD) $(RUN) -m pytest -m clients tests/clients

tutorials: install  ## Run the documentation's tutorials as they are written
	$(ONE_THREAD) $(RUN) -m pytest -n 2 -m tutorial tests/docs

lint: install  ## Check style, types and that what is generated in docs/ is fresh
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(RUN) -m m3router.router.cli.docs --check
	$(RUN) -m experiments.figures --check
	$(RUN) -m experiments.pins --check
	$(RUN) -m experiments.families.page --check

quickstart: $(BASE)  ## The whole idea in a few minutes: label, train, route, report
	$(RUN) -m m3router quickstart --out quickstart

bench: quickstart  ## Measure labelling, routing, pipeline, MQT, training and shared prefixes
	$(RUN) -m experiments.benchmarks.speed --quickstart quickstart
	$(RUN) -m experiments.benchmarks.mqt --tower-repeats 1
	$(RUN) -m experiments.benchmarks.training
	$(RUN) -m experiments.benchmarks.vlm

package: install  ## Build wheel and source distribution into dist/
	rm -rf build dist
	$(RUN) -m build

release-check: package  ## Run the quickstart from the built wheel by uvx, in an empty folder and environment
	$(RUN) -m pip install --disable-pip-version-check --no-input --quiet uv
	@folder=$$(mktemp -d) && cd $$folder && \
	  $(CURDIR)/$(VENV)/bin/uvx --isolated $(UVX_ARGS) --with '$(firstword $(TORCH))' \
	    --from $(CURDIR)/dist/m3router-*.whl m3router quickstart --scenes $(SCENES) && \
	  test "$$(ls)" = quickstart && rm -r $$folder

packaging: install  ## Test both elsewhere: contents, types, an empty environment (takes minutes)
	M3ROUTER_TORCH='$(TORCH)' $(ONE_THREAD) $(RUN) -m pytest -m packaging -p no:cacheprovider tests/packaging

bench-serve: quickstart  ## Measure the server under load, 1 to 64 clients, then MINUTES=10 at saturation
	$(RUN) -m experiments.benchmarks.serving --quickstart quickstart --minutes $(MINUTES)

bench-gateway: install  ## Measure what the gateway adds, 1 to 64 clients, and what it leaves of throughput
	$(ONE_THREAD) $(RUN) -m experiments.benchmarks.gateway --work gateway-bench

docs: install  ## Write what docs/ has of the commands' help and of recorded results
	$(RUN) -m m3router.router.cli.docs
	$(RUN) -m experiments.figures
	$(RUN) -m experiments.families.page

pins: install  ## Write requirements/: the container's pins with their hashes, from pip's index
	$(RUN) -m experiments.pins

site: install  ## Build the documentation's pages in site/, offline
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

screenshots: install quickstart  ## Picture every page at four widths, light and dark, into screenshots/
	$(RUN) -m experiments.screenshots

clean:  ## Remove caches and build outputs; keeps .venv and run folders
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage build dist site *.egg-info

FORCE:
