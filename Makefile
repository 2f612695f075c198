# make help lists the targets. Variables: PYTHON, VENV, DATASET (auto, mnist, sample), RUNGS ("a05 a06"), JOBS, SEEDS.
PYTHON ?= python3
VENV ?= .venv
DATASET ?= auto
RUNGS ?=
JOBS ?= 2
SEEDS ?= 5

BIN := $(VENV)/bin
LAB := $(BIN)/python -m lab
export OMP_NUM_THREADS ?= 1

.PHONY: help install run test lint all bench results render publish

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/installed  ## create the virtual environment

$(VENV)/installed: requirements.txt requirements-dev.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	@touch $@

run: install  ## execute the notebooks into runs/ (DATASET=mnist: the published run; RUNGS="a05 a06": only these)
	$(LAB) run --dataset $(DATASET) --jobs $(JOBS) $(RUNGS)

test: install $(VENV)-batch/installed lint  ## lint and all tests, every notebook executed in small
	SNAKEMAKE=$(abspath $(VENV)-batch/bin/snakemake) $(BIN)/python -m pytest -n $(JOBS)

lint: install  ## formatting and lint, notebooks included
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

all: install $(VENV)-batch/installed  ## the published runs that results/ lacks, SEEDS=5 of each small rung, through Snakemake
	$(VENV)-batch/bin/snakemake -s workflow/Snakefile --cores $(JOBS) --keep-going --nolock --rerun-incomplete --rerun-triggers mtime input \
		--config python=$(abspath $(BIN)/python) seeds=$(SEEDS) rungs="$(RUNGS)"

$(VENV)-batch/installed: workflow/requirements.txt
	$(PYTHON) -m venv $(VENV)-batch
	$(VENV)-batch/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

bench: install  ## images per second: the originals' loop against ours
	$(LAB) bench

results: install  ## merge finished run records of runs/ into results/
	$(LAB) results $(RUNGS)

render: install  ## rewrite the generated parts of notebooks and README
	$(LAB) render

publish: install  ## execute notebooks on one thread without parameters and keep their outputs
	OMP_NUM_THREADS=1 $(LAB) publish $(RUNGS)
