# One target per step. The first call makes .venv; it is made again when pyproject.toml or constraints.txt change.

PYTHON ?= python3
CONF ?= conf/digits_lt.yaml
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# two files of tests at once: most of their time is Ray's start, which waits more than it works; in the order of conftest.py, which
# puts the longest first, so that no process waits for the other at the end
TOGETHER := -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help venv identify preview generate verify train compare tune test check doctor bench embedded
.DELETE_ON_ERROR:

help: ## show this page
	@echo 'make TARGET [CONF=conf/x.yaml] [ARGS="key=value ..."]'
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo 'CONF names the YAML file, or several, each over the ones before (now $(CONF)); ARGS overrides single values:'
	@echo '  make generate ARGS="plan.replicas=4 generator.micro_batch=16"'
	@echo '  make generate train CONF=conf/digits_lt.yaml ARGS="seed=1 run.name=second"'
	@echo 'Generate and train share ARGS: what decides the spectrum must be the same for both.'
	@echo 'PYTHON names the interpreter .venv is made with (now $(PYTHON); 3.11 or newer).'

# so that the commands a job prints are make's, with the targets that were typed
identify preview generate verify train compare tune doctor embedded: export DISCL_RAY_BY_MAKE = $(or $(MAKECMDGOALS),$@)

# exec: a shell between make and the job would keep to itself what make is told, and leave the job running
preview: $(STAMP) ## a look before a long generate: a few images, what the filters accept, hours, memory, disk
	exec $(BIN)/python jobs/preview.py $(addprefix --config ,$(CONF)) $(ARGS)

identify: $(STAMP) ## which images are hard: how many of each class, and a picture of the hardest
	exec $(BIN)/python jobs/identify.py $(addprefix --config ,$(CONF)) $(ARGS)

generate: $(STAMP) ## make the spectrum: images at every level, scored, and a contact sheet
	exec $(BIN)/python jobs/generate.py $(addprefix --config ,$(CONF)) $(ARGS)

verify: $(STAMP) ## read the spectrum's bytes again; what is damaged is made again by generate
	exec $(BIN)/python jobs/verify.py $(addprefix --config ,$(CONF)) $(ARGS)

train: $(STAMP) ## train on the spectrum, with and without the curriculum, and compare the two
	exec $(BIN)/python jobs/train.py $(addprefix --config ,$(CONF)) $(ARGS)

compare: $(STAMP) ## the results table: strategies and losses over several seeds (takes long)
	exec $(BIN)/python jobs/compare.py $(addprefix --config ,$(CONF)) $(ARGS)

tune: CONF = conf/digits_lt.yaml conf/tune_digits_lt.yaml
tune: $(STAMP) ## sweep schedules under Ray Tune; best.yaml is then laid over CONF (takes long)
	exec $(BIN)/python jobs/tune.py $(addprefix --config ,$(CONF)) $(ARGS)

test: $(STAMP) ## all tests: first what needs neither torch nor Ray, then the rest, slow ones too; fails if either does
	@pure=0; rest=0; \
	$(BIN)/python -m pytest $(TOGETHER) -m pure || pure=$$?; \
	$(BIN)/python -m pytest $(TOGETHER) --durations=20 -m "not pure" || rest=$$?; \
	echo "pure tests: exit $$pure, the rest: exit $$rest"; \
	test $$pure -eq 0 && test $$rest -eq 0

check: $(STAMP) ## formatting, lint, types, the import contract, and how dense the code is
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --threads 2
	$(BIN)/lint-imports
	$(BIN)/python tools/shape.py

doctor: $(STAMP) ## is this machine fit for the job? each problem with its remedy
	exec $(BIN)/python jobs/doctor.py $(addprefix --config ,$(CONF)) $(ARGS)

bench: $(STAMP) ## the engine against stock diffusers and its bound, as ratios measured in one run
	exec $(BIN)/python benchmarks/engine_cpu.py $(ARGS)

embedded: $(STAMP) ## train the embedded models again (about an hour; never needed)
	exec $(BIN)/python tools/train_embedded.py $(ARGS)

venv: $(STAMP) ## only make .venv

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo 'error: $(PYTHON) is not Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.11' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade "pip>=25.1"
	$(BIN)/python -m pip install -q -c constraints.txt -e . --group dev
	@touch $@
