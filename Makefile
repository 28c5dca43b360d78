# Every target sets itself up: all it needs is Python >= 3.11, pip and make.

PYTHON ?= python3
WORKERS ?= 2
ARGS ?=

VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint results clean FORCE

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1 /p' Makefile | while read -r name text; do printf '  make %-8s %s\n' "$$name" "$$text"; done
	@echo "Options: PYTHON=python3.12 (makes the environment), WORKERS=2 and ARGS='-k digits' (of make test)."

demo: $(STAMP) ## train AIR on scenes of digits, evaluate it and draw pictures: runs/air
	@$(RUN) launch.py --config=configs/air.py --workdir=runs/air
	@echo "Figures on held-out scenes: runs/air/eval.json"
	@echo "Pictures: runs/air/figures/, first of all reconstructions.png"

test: $(STAMP) ## ruff, then all tests
	@$(RUN) -m ruff check --quiet .
	@$(RUN) -m pytest -n $(WORKERS) --dist worksteal --durations=40 $(ARGS)

lint: $(STAMP) ## ruff alone
	@$(RUN) -m ruff check .

results: $(STAMP) ## write the tables of experiments/README.md from experiments/results/*.json
	@$(RUN) -m experiments.results_table

clean: ## remove the environment and the caches; keeps runs/
	@rm -rf $(VENV) .pytest_cache .ruff_cache build dist src/*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp holds the folder installed from, so that a moved or copied tree installs itself again.
ifneq "$(shell cat $(STAMP) 2>/dev/null)" "$(CURDIR)"
$(STAMP): FORCE
endif

# Without ensurepip (Debian's python3 without python3-venv) the pip outside installs into the environment.
$(STAMP): setup.cfg pyproject.toml
	$(if $(shell $(PYTHON) -c 'import sys; print("ok" if sys.version_info >= (3, 11) else "")' 2>/dev/null),,\
		$(error objcentric needs Python >= 3.11 and '$(PYTHON)' is $(or $(shell $(PYTHON) --version 2>&1 | grep '^Python'),\
		not there): name a newer one, as in 'make PYTHON=python3.12 test'))
	@echo "Installing objcentric and what it needs into $(VENV) (a minute or two, only when setup.cfg changes)"
	@rm -f $(STAMP); [ -x $(RUN) ] || rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m venv --without-pip $(VENV)
	@pip="$(RUN) -m pip"; $$pip --version >/dev/null 2>&1 || pip="$(PYTHON) -m pip --python $(RUN)"; \
		$$pip --disable-pip-version-check install --quiet --editable '.[dev]'
	@printf '%s\n' "$(CURDIR)" > $(STAMP)
