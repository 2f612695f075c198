# make help lists the targets. Variables: PYTHON, VENV, DATASET (auto, mnist, sample), RUNGS ("a05 a06"), JOBS, SEEDS (3: of every rung; make all: 5), ABLATIONS (make all: as SEEDS), PEERS, KEEP.
PYTHON ?= python3
VENV ?= .venv
DATASET ?= auto
RUNGS ?=
JOBS ?= 2
SEEDS ?=
ABLATIONS ?=
PEERS ?=
KEEP ?=

BIN := $(VENV)/bin
LAB := $(BIN)/python -m lab
PIN := pip compile --quiet --universal --python-version 3.11 --no-annotate --custom-compile-command 'make pins'
export OMP_NUM_THREADS ?= 1
export PYTHONUTF8 := 1

.PHONY: help install run test lint all site bench results render publish lowest pins audit

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/installed  ## create the virtual environment

$(VENV)/installed: requirements.txt requirements-dev.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	@touch $@

run: install  ## execute the notebooks into runs/ (DATASET=mnist: the published run; RUNGS="a05 a06": only these; SEEDS=3)
	$(LAB) run --dataset $(DATASET) --jobs $(JOBS) $(if $(SEEDS),--seeds $(SEEDS)) $(RUNGS)

test: install $(VENV)-batch/installed lint  ## lint and all tests, every notebook executed in small
	SNAKEMAKE="$(abspath $(VENV)-batch/bin/snakemake)" $(BIN)/python -m pytest -n $(JOBS)

lint: install  ## formatting and lint, notebooks included
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

all: install $(VENV)-batch/installed  ## the published runs that results/ lacks, SEEDS=5 of each small rung, through Snakemake (ABLATIONS=0: without ablations)
	$(VENV)-batch/bin/snakemake -s workflow/Snakefile --cores $(JOBS) --keep-going --nolock --rerun-incomplete --rerun-triggers mtime input \
		--config python="$(abspath $(BIN)/python)" seeds=$(or $(SEEDS),5) rungs="$(RUNGS)" $(if $(ABLATIONS),seeds_of_ablations=$(ABLATIONS))
	$(LAB) index

$(VENV)-batch/installed: workflow/requirements.txt workflow/constraints.txt
	$(PYTHON) -m venv $(VENV)-batch
	$(VENV)-batch/bin/python -m pip install --quiet --disable-pip-version-check -r $< -c workflow/constraints.txt
	@touch $@

site: install  ## make site/ of all pages as they are: open site/index.html
	$(LAB) site

bench: install $(if $(PEERS),$(VENV)-peers/installed)  ## images per second: the originals' loop, ours, others (PEERS=1: JAX, too; KEEP=1: for README; RUNGS: seconds of whole runs)
	$(LAB) bench $(if $(PEERS),--peers $(VENV)-peers/bin/python) $(if $(KEEP),--keep) $(if $(RUNGS),--runs $(RUNGS))

$(VENV)-peers/installed: lab/bench/requirements.txt lab/bench/constraints.txt
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/python -m pip install --quiet --disable-pip-version-check -r $< -c lab/bench/constraints.txt
	@touch $@

results: install  ## merge finished run records of runs/ into results/
	$(LAB) results $(RUNGS)

render: install  ## rewrite the generated parts of notebooks and README
	$(LAB) render

publish: install  ## execute notebooks on one thread without parameters and keep their outputs
	OMP_NUM_THREADS=1 $(LAB) publish $(RUNGS)

lowest: install  ## the smoke tests with the lowest versions that the requirements allow
	$(BIN)/uv venv --quiet --clear $(VENV)-lowest
	$(BIN)/uv pip install --quiet --python $(VENV)-lowest --resolution lowest-direct -r requirements-dev.txt
	$(VENV)-lowest/bin/python -m pytest -n $(JOBS) tests/test_model.py tests/training/test_loop.py tests/batch/test_notebooks_run.py

pins: install  ## renew every constraints.txt, for the requirements as they are now
	$(BIN)/uv $(PIN) requirements-dev.txt -o constraints.txt
	$(BIN)/uv $(PIN) workflow/requirements.txt -o workflow/constraints.txt
	$(BIN)/uv $(PIN) lab/bench/requirements.txt -o lab/bench/constraints.txt

audit: install  ## known vulnerabilities of the pinned versions
	$(BIN)/uv tool run pip-audit --no-deps --disable-pip -r constraints.txt
