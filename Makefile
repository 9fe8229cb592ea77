# `make demo` and `make test` set up what they need by themselves; see docs/contributing.md.

SHELL := /bin/sh
.SHELLFLAGS := -euc
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export LC_ALL := C.UTF-8
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.dev

SETUP := tests/tools/setup.sh
CHECKS := .venv/bin/python tests/tools/checks.py
TARGETS := ruff types lint sanity changelog build unit integration stores clusters drills fleet molecule

.PHONY: help demo test bench bench-cluster bench-scale bench-s3 bench-forecast soak lab setup clean distclean $(TARGETS)

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 14
	@echo "$(TARGETS)" | fold -sw 70 | sed '1s/^/single checks: /; 2,$$s/^/               /'

demo: ## an ecosystem captured, wrecked, restored in order and proven
	@$(SETUP) demo
	@.venv/bin/python tests/demo/run.py $(DEMO_ARGS)

test: ## everything that can be checked, ending in "N passed, N failed"
	@$(SETUP) test
	@$(CHECKS) $(TARGETS)

$(TARGETS):
	@$(SETUP) test
	@$(CHECKS) --live $@

soak: ## every fault point and the long random walks
	@$(SETUP) test
	@$(CHECKS) --live soak

lab: ## several hosts on this machine, as root: make lab ARGS=up, then ARGS="kill db1", ARGS="run COMMAND", ARGS=down
	@$(if $(filter down,$(ARGS)),,$(SETUP) test)
	@.venv/bin/python tests/lab/hosts_command.py $(ARGS)

bench: ## beside restic and cp -a, then bench-cluster; updates docs/benchmarks.md
	@$(SETUP) bench
	@.venv/bin/python tests/benchmarks/bench.py $(BENCH_ARGS)
	@$(if $(findstring help,$(BENCH_ARGS)),,$(MAKE) bench-cluster)

bench-cluster: ## PostgreSQL clusters beside pgBackRest
	@$(SETUP) bench
	@.venv/bin/python tests/benchmarks/cluster_bench.py $(CLUSTER_ARGS)

bench-scale: ## fifty services beside a lower bound, and what each costs; updates docs/benchmarks.md
	@$(SETUP) bench
	@.venv/bin/python tests/benchmarks/scale_bench.py $(SCALE_ARGS)

bench-s3: ## the S3 backend beside plain boto3 transfers
	@$(SETUP) bench
	@.venv/bin/python tests/benchmarks/s3_bench.py $(S3_ARGS)

bench-forecast: ## restores that are predicted, over links of any width; FORECAST_ARGS=--docs updates docs/benchmarks.md
	@$(SETUP) bench
	@.venv/bin/python tests/benchmarks/forecast_bench.py $(FORECAST_ARGS)

setup: ## only the set-up of `make test`
	@$(SETUP) test

clean: ## remove what runs, tests and tools left, but not .venv
	@rm -rf .demo runs tests/output tests/benchmarks/output .ansible .cache lifeboat-recovery-*.tar.gz
	@find . -name .venv -prune -o \( -name __pycache__ -o -name .mypy_cache -o -name .ruff_cache -o -name .pytest_cache -o -name .hypothesis \) -type d -print | xargs -r rm -rf

distclean: clean ## clean, and .venv and the tools' homes too
	@rm -rf .venv .dev
