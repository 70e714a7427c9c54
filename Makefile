# `make help` lists what there is. Everything lands in .venv, which `make clean` removes.
SHELL := bash
VENV ?= .venv
WORKDIR ?= runs/quickstart
comma := ,
export VENV PYTHON
unexport PYTHONPATH PYTHONHOME  # cluster modules set these; they would hide the pinned versions
.NOTPARALLEL:
.PHONY: help demo quickstart test oracle lint docs notebooks clean

help:
	@echo 'make demo         a prompt in; a video, a larger one with sound, an edited one and a page out, by the small'
	@echo '                  models of lit solids that come with mgjax; PROMPT="a red ball rolls left and hits a blue'
	@echo '                  cube" EDIT="make the red ball yellow"; open demo/index.html; WORLD=digits for moving'
	@echo '                  digits, PROMPT="the green digit 3 moves left" EDIT="make the digit blue"'
	@echo 'make quickstart   train a small text-to-video model on moving digits and show its samples'
	@echo '                  WORKDIR=folder for the results (runs/quickstart), CLIPS=folder of your own clips;'
	@echo '                  CLIPS=folder FAST=1 for a first picture of them in two minutes'
	@echo '                  CLIPS=folder LORA=digits/video for adapters of a trained model, some minutes;'
	@echo '                  WORLD=solids for lit solids of 64 px, seventy minutes of two cores;'
	@echo '                  SOUND=1 for a model that makes the sound of moving digits instead'
	@echo 'make test         run the tests, on up to four cores; ARGS="-m slow" or any other arguments of pytest'
	@echo 'make oracle       compare with the reference implementations (installs PyTorch)'
	@echo 'make lint         check style and types'
	@echo 'make docs         make the documentation site in docs/_build/html; a warning is an error'
	@echo 'make notebooks    run notebooks/*.py and write each as .ipynb with its pictures; ONLY=notebooks/name.py for one'
	@echo 'make clean        remove what these targets made, except runs/'
	@echo 'PYTHON=python3.12 chooses the Python (3.11, 3.12 or 3.13), VENV=folder where to install, one a checkout'

demo:
	@bash requirements/install.sh base
	"$(VENV)/bin/python" -m launch.demo --world="$(or $(WORLD),solids)" --prompt="$(PROMPT)" --edit="$(EDIT)" --out=demo

quickstart:
	$(if $(LORA),$(if $(CLIPS),,$(error LORA=$(LORA) needs CLIPS=folder of your clips)))
	$(if $(filter-out digits solids,$(WORLD)),$(error WORLD=$(WORLD): expected digits or solids))
	@bash requirements/install.sh base
	"$(VENV)/bin/python" -m launch.train --workdir="$(WORKDIR)" \
	  --config="$(if $(LORA),configs/clips/lora.py:$(CLIPS)$(comma)$(LORA),configs/quickstart.py$(if $(CLIPS),:$(if $(FAST),fast$(comma))$(CLIPS),$(if $(SOUND),:sound,$(if $(filter-out digits,$(WORLD)),:$(WORLD)))))"

test:
	@bash requirements/install.sh test
	"$(VENV)/bin/python" -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile $(ARGS)

oracle:
	@bash requirements/install.sh test
	@bash requirements/install.sh oracle
	@# By itself: it asks for torchvision, of which it needs one class and whose CUDA build breaks PyTorch's for CPUs.
	"$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps lpips==0.1.4
	"$(VENV)/bin/python" -m pytest -m oracle $(ARGS)

lint:
	@bash requirements/install.sh dev
	"$(VENV)/bin/python" -m ruff check .
	"$(VENV)/bin/python" -m ruff format --check .
	"$(VENV)/bin/python" -m pyright
	"$(VENV)/bin/python" -m pyright --project pyright_strict.json

docs:
	@bash requirements/install.sh docs
	"$(VENV)/bin/python" -m sphinx --quiet --builder html --fail-on-warning --conf-dir docs . docs/_build/html
	@echo 'The site is docs/_build/html/index.html.'

notebooks:
	@bash requirements/install.sh docs
	"$(VENV)/bin/python" docs/make_notebooks.py $(ONLY)

clean:
	rm -rf .venv .jax_cache .pytest_cache .ruff_cache .hypothesis build dist mgjax.egg-info docs/_build docs/api
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
