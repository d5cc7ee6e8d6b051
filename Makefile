# Every target makes the environment it needs; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
STUDY ?= global_kmeans
VENV := .venv
CLI := $(VENV)/bin/python -m studies

# glibc hands large blocks back to the system at each training step; keeping them saves page faults.
# The program tells it so itself (training/allocator.py); here it is said to the tests too.
export MALLOC_MMAP_THRESHOLD_ ?= 1073741824
export MALLOC_TRIM_THRESHOLD_ ?= 4294967296
export MALLOC_TOP_PAD_ ?= 268435456
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_ALLOW_PICKLE_DESERIALIZATION := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# VARIABLE=value on make's command line becomes --variable value of the program.
quoted = '$(subst ','\'',$(1))'
option = $(if $($(1)),--$(2) $(call quoted,$($(1))))
STUDY_OPTIONS = $(call option,TRIALS,trials) $(call option,TIMEOUT,timeout) $(call option,SEED,seed) \
	$(call option,DATA,data) $(call option,SPLIT,split) $(call option,PREPROCESS,preprocess) \
	$(call option,DETECTOR,detector) $(call option,DEVICE,device) $(call option,LABEL,label) \
	$(call option,TRAIN_ON,train-on) $(call option,GENERATOR,generator)
WORKERS_OPTIONS = $(call option,WORKERS,workers) $(call option,ENGINE,engine) \
	$(call option,GPU_SHARE,gpu-share)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

.PHONY: study
study: $(if $(filter ray,$(ENGINE)),$(VENV)/ready-cluster,$(VENV)/ready) ## Search: STUDY=global_kmeans [TRIALS=100] [TIMEOUT=] [SEED=0] [DATA=] [SPLIT=] [TRAIN_ON=real] [DEVICE=auto] [WORKERS=1] [ENGINE=local]
	@$(CLI) run '$(STUDY)' $(STUDY_OPTIONS) $(WORKERS_OPTIONS)

.PHONY: generate
generate: $(VENV)/ready ## Make synthetic images: [GENERATOR=vae] [N=1500] [FOR=classifier] [SEED=0] [DATA=] [SPLIT=] [DEVICE=]
	@$(CLI) generate '$(or $(GENERATOR),vae)' $(call option,N,n) $(call option,FOR,for) \
		$(call option,SEED,seed) $(call option,DATA,data) $(call option,SPLIT,split) \
		$(call option,PREPROCESS,preprocess) $(call option,DEVICE,device)

# STUDY has a default, which is no choice of a column.
COLUMN = $(if $(filter file,$(origin STUDY)),,--study '$(STUDY)')
.PHONY: table
table: $(VENV)/ready ## Search every detector under every head: [TRIALS=25] [SPLIT=] [DETECTOR=] [STUDY=] [DATA=]
	@$(CLI) table $(COLUMN) $(call option,TRIALS,trials) $(call option,SEED,seed) \
		$(call option,DATA,data) $(call option,SPLIT,split) $(call option,PREPROCESS,preprocess) \
		$(call option,DETECTOR,detector) $(call option,DEVICE,device) $(call option,LABEL,label) \
		$(call option,TRAIN_ON,train-on) $(call option,GENERATOR,generator)

.PHONY: paper
paper: $(VENV)/ready ## Fill the paper's Table 1: [QUICK=1] [SEEDS=3] [SPLIT=grouped] [SEED=0] [DATA=] [DEVICE=]
	@$(CLI) paper $(call option,QUICK,quick) $(call option,SEEDS,seeds) \
		$(call option,SPLIT,split) $(call option,SEED,seed) $(call option,DATA,data) \
		$(call option,PREPROCESS,preprocess) $(call option,DEVICE,device)

.PHONY: evidence
evidence: $(VENV)/ready ## Repeat a study over splits, with controls: STUDY= [SPLITS=5] [DETECTOR=] [TRIALS=]
	@$(CLI) evidence '$(STUDY)' $(call option,SPLITS,splits) $(call option,TRIALS,trials) \
		$(call option,SEED,seed) $(call option,DATA,data) $(call option,SPLIT,split) \
		$(call option,PREPROCESS,preprocess) $(call option,DETECTOR,detector) \
		$(call option,DEVICE,device) $(call option,LABEL,label)

.PHONY: external
external: $(VENV)/ready ## Try a registered model on other images: DATA=<folder> [MODEL=models:/<name>@<alias>] [STUDY=]
	@$(CLI) external '$(DATA)' $(call option,MODEL,model) $(call option,STUDY,study) \
		$(call option,SEED,seed) $(call option,SPLIT,split) $(call option,PREPROCESS,preprocess) \
		$(call option,DETECTOR,detector) $(call option,LABEL,label)

.PHONY: compare
compare: $(VENV)/ready ## Hold studies against one another: STUDIES="giaem dbscan" [ANYWAY=1]
	@$(CLI) compare $(call quoted,$(STUDIES)) $(call option,ANYWAY,anyway)

.PHONY: promote
promote: $(VENV)/ready ## Make a study's best model the champion, if the gate lets it: STUDY= [ALIAS=champion] [FORCE="reason"]
	@$(CLI) promote $(call quoted,$(STUDY)) $(call option,MODEL,model) $(call option,ALIAS,alias) \
		$(call option,RECALL_FLOOR,recall-floor) $(call option,SPECIFICITY_FLOOR,specificity-floor) \
		$(call option,RECALL_MARGIN,recall-margin) $(call option,FORCE,force)

.PHONY: rollback
rollback: $(VENV)/ready ## Put the champion before the present one back: [ALIAS=champion] [WHY="reason"]
	@$(CLI) rollback $(call option,ALIAS,alias) $(call option,WHY,why)

.PHONY: history
history: $(VENV)/ready ## List every decision about champions [JSON=1]
	@$(CLI) history $(call option,JSON,json)

.PHONY: reproduce
reproduce: $(VENV)/ready ## Run a trial again and hold it against its record: RUN=<run id or models:/<name>@<alias>> [DATA=] [DEVICE=]
	@$(CLI) reproduce $(call quoted,$(RUN)) $(call option,DATA,data) $(call option,DEVICE,device)

.PHONY: predict
predict: $(VENV)/ready ## Ask a model about images: IMAGES="scan.png slices/ *.dcm" [MODEL=] [JSON=1] [CSV=file] [OVERLAY=folder] [SLICE=middle]
	@$(CLI) predict $(call quoted,$(IMAGES)) $(call option,MODEL,model) $(call option,JSON,json) \
		$(call option,CSV,csv) $(call option,OVERLAY,overlay) $(call option,SLICE,slice)

.PHONY: serve
serve: $(VENV)/ready ## Let a model answer over HTTP on 127.0.0.1 [MODEL=models:/tumor-detector@champion] [PORT=5001]
	@$(CLI) serve $(call option,MODEL,model) $(call option,PORT,port)

.PHONY: bench
bench: $(VENV)/ready ## Measure what is fast here beside plain scikit-learn, PyTorch and Optuna + MLflow: [QUICK=1] [PART=heads] [INTO=README.md]
	@$(CLI) bench $(call option,QUICK,quick) $(call option,PART,part) $(call option,INTO,into) \
		$(call option,JSON,json) $(call option,SEED,seed) $(call option,DATA,data) \
		$(call option,SPLIT,split) $(call option,PREPROCESS,preprocess)

.PHONY: studies
studies: $(VENV)/ready ## List the studies, a line each
	@$(CLI) list

.PHONY: ui
ui: $(VENV)/ready ## Open the tracking server on 127.0.0.1 [PORT=5000]
	@$(CLI) ui $(call option,PORT,port)

.PHONY: dashboard
dashboard: $(VENV)/ready-dashboard ## Open Optuna's dashboard of all trials on 127.0.0.1 [PORT=8080]
	@$(CLI) dashboard $(call option,PORT,port)

.PHONY: sync
sync: $(VENV)/ready ## Hand over to MLflow what studies owe it
	@$(CLI) sync

.PHONY: doctor
doctor: $(VENV)/ready ## Look whether everything that studies stand on is well
	@$(CLI) doctor

.PHONY: gc
gc: $(VENV)/ready ## Remove the files of all but the best trials: [KEEP=20] [DRY=1, at first]
	@$(CLI) gc $(call option,KEEP,keep) $(call option,DRY,dry)

.PHONY: backup
backup: $(VENV)/ready ## Save databases, runs, models and reports: [TO=var/backups/<date>.tar.gz]
	@$(CLI) backup $(call option,TO,to)

.PHONY: restore
restore: $(VENV)/ready ## Put a backup in place: FROM=<file> [INTO=<folder>] [REPLACE=1]
	@$(CLI) restore $(call quoted,$(FROM)) $(call option,INTO,into) $(call option,REPLACE,replace)

.PHONY: server
server: $(VENV)/ready ## Open it to a team: [HOST=127.0.0.1] [PORT=5000] [AUTH=1] [ALLOWED_HOSTS=mlflow.lab.example]
	@$(CLI) server $(call option,HOST,host) $(call option,PORT,port) $(call option,AUTH,auth) \
		$(call option,ALLOWED_HOSTS,allowed-hosts)

.PHONY: users
users: $(VENV)/ready ## List the server's users
	@$(CLI) users

.PHONY: user
user: $(VENV)/ready ## Let a user in, or change them: NAME= [ROLE=reader|researcher|admin] [DELETE=1]
	@$(CLI) user $(call quoted,$(NAME)) $(call option,ROLE,role) $(call option,DELETE,delete)

.PHONY: grant
grant: $(VENV)/ready ## Say what a user may do: NAME= EXPERIMENT=|MODEL= PERMISSION=READ|EDIT|MANAGE|DENY|DEFAULT
	@$(CLI) grant $(call quoted,$(NAME)) $(call option,EXPERIMENT,experiment) $(call option,MODEL,model) \
		$(call option,PERMISSION,permission)

# As many tests at a time as there are processors, each on one: two threads on each would be slower.
# Tests of one file stay together and share what they have trained.
PYTEST := $(VENV)/bin/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile
test fast: export OMP_NUM_THREADS := 1
test fast: export NUMBA_NUM_THREADS := 1

.PHONY: test
test: $(VENV)/ready-dev ## Check the style and run every test, the slow ones too
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PYTEST) $(call option,TESTS,k)

.PHONY: fast
fast: $(VENV)/ready-dev ## Run the fast tests only
	$(PYTEST) -m 'not slow and not br35h'

.PHONY: format
format: $(VENV)/ready-dev ## Put every file into the house's format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

.PHONY: lock
lock: $(VENV)/ready-dev ## Write the installed versions into constraints.txt
	{ head -n 1 constraints.txt; $(VENV)/bin/pip freeze --exclude-editable | sort -f; } > constraints.tmp
	mv constraints.tmp constraints.txt

.PHONY: clean
clean: ## Remove the environment; var/ with its studies stays
	rm -rf $(VENV)

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "$(PYTHON) cannot make an environment: install its venv module"; exit 2; }

$(VENV)/ready: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/ready-cluster: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[cluster]'
	@touch $(VENV)/ready $@

$(VENV)/ready-dashboard: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[dashboard]'
	@touch $(VENV)/ready $@

$(VENV)/ready-dev: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(VENV)/ready $@
