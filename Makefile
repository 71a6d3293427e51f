# Give PYTHON=python3 to use an interpreter that already has torch (GPU images do); nothing is installed then.
# Otherwise .venv is made once, with the exact versions of constraints.txt.
ifdef PYTHON
  PY := $(PYTHON)
  READY :=
else
  PY := .venv/bin/python
  READY := .venv/.installed
endif
GPU ?= auto
SWEEP ?= table1
ARGS ?=
# Tests of real processes wait as much as they compute: half as many workers again as cores.
WORKERS = $(shell echo $$(( ($$(getconf _NPROCESSORS_ONLN) * 3 + 1) / 2 )))
PARALLEL = --benchmark-skip -n $(WORKERS) --dist worksteal
TEST ?= -m "not slow" $(PARALLEL)

.PHONY: help setup bench campaign status merge test test-all lint report publish predict wheel doctor audit tune zoo fit aa clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12
	@echo "Variables: GPU=auto|cpu|a100|... SWEEP=$(SWEEP) ARGS='--where model=tinyllama' PYTHON=python3"

setup: $(READY)  ## Make .venv and install what everything needs, once

.venv/.installed: pyproject.toml constraints.txt
	@for p in python3 python3.13 python3.12 python3.11; do \
	  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && exec $$p -m venv .venv; \
	done; echo "error: no Python 3.11 or newer with venv found on the PATH" >&2; exit 2
	.venv/bin/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

bench: $(READY)  ## Measure SWEEP (Table 1) on this machine, find out why times differ, and draw its report
	@dir=$$($(PY) -m bench run $(SWEEP) --gpu $(GPU) $(ARGS)); status=$$?; why=0; \
	[ -z "$$dir" ] || [ $$status -gt 1 ] || $(PY) -m bench why "$$dir" || why=$$?; \
	[ -z "$$dir" ] || $(PY) -m plots "$$dir" || status=$$?; \
	[ $$status -ne 0 ] || status=$$why; exit $$status

campaign: $(READY)  ## Everything worth measuring on this GPU, resumable; ARGS="--time 25m --save DIR" stops in between
	$(PY) -m bench campaign --gpu $(GPU) $(ARGS)

status: $(READY)  ## How a sweep on several GPUs stands, and attach: make status DIR=results/a100/grid ARGS=--cancel
	$(PY) -m bench status $(DIR) $(ARGS)

merge: $(READY)  ## Shards, machines or runs into one folder: make merge DIR="run1 run2" ARGS="--out merged"
	$(PY) -m bench merge $(DIR) $(ARGS)

test: $(READY)  ## The fast tests, without benchmarks (a few minutes)
	$(PY) -m pytest $(TEST)

test-all: lint  ## Everything CI runs: lint, types, all tests, the benchmarks of one model, smoke three times
	$(MAKE) test TEST="$(PARALLEL)"
	$(PY) -m pytest --benchmark-only -k gpt2-medium
	$(PY) -m pytest -s tests/cluster/test_scale.py tests/record/test_merge_scale.py
	$(MAKE) aa SWEEP=smoke

lint: $(READY)  ## Style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

report: $(READY)  ## Redraw tables, plots and report of every results folder; ARGS="--price 1.80" adds costs
	$(PY) -m plots $(ARGS) $(dir $(wildcard results/*/*/run.json results/*/reference/*/run.json))

# Built beside the folder and put into its place as a whole: no stale file stays, and no half copy is seen.
publish: export FROM := results/$(GPU)/$(SWEEP)
publish: export TO := results/$(GPU)/reference/$(SWEEP)
publish: export DRAFT := results/$(GPU)/.publishing-$(SWEEP)
publish:  ## Put a measured folder where git sees it: make publish GPU=h100 SWEEP=table1
	@case "$(SWEEP)" in */*|.*|reference) echo "error: SWEEP=$(SWEEP) is no folder of a run" >&2; exit 2;; esac
	@test -f "$$FROM/run.json" || { echo "error: $$FROM holds no run; give GPU= and SWEEP=" >&2; exit 2; }
	rm -rf "$$DRAFT" "$$DRAFT.old" && mkdir -p "$$DRAFT" "$$(dirname "$$TO")"
	find "$$FROM" -maxdepth 1 -type f ! -name '.*' ! -name '*.new' -exec sh -c 'cp "$$@" "$$DRAFT"' sh {} +
	find "$$DRAFT" -name samples.jsonl -size +1024k -exec gzip -9 -n {} +
	if [ -e "$$TO" ]; then mv "$$TO" "$$DRAFT.old"; fi && mv "$$DRAFT" "$$TO" && rm -rf "$$DRAFT.old"
	git add -A "$$TO"

comma := ,
PREDICTED = results/predicted/$(notdir $(basename $(SWEEP)))-$(subst $(comma),-,$(GPU))

predict: $(READY)  ## What SWEEP would take on boards that are not here, with intervals: GPU=a100,h100,rtx5090
	@$(PY) -m bench predict $(SWEEP) --gpu $(GPU) --out $(PREDICTED) $(ARGS) && $(PY) -m plots $(PREDICTED)

wheel: $(READY)  ## Build dist/lorabench-*.whl: the kernels alone, as the package lorabench
	rm -rf build && $(PY) -m build --wheel --no-isolation  # an old build/ would put deleted modules into the wheel

PYTHONS = $(or $(PYTHON),.venv/bin/python python3 python3.14 python3.13 python3.12 python3.11)

doctor:  ## What this machine can run, and what is missing; installs nothing
	@for p in $(PYTHONS); do \
	  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && exec $$p bench/needs.py; \
	done; echo "missing: Python 3.11 or newer; none of these is: $(PYTHONS)"; \
	echo "to mend it: apt-get install python3 python3-venv (or your system's), then make setup"; exit 1

audit: $(READY)  ## Compile every kernel and tile for every architecture, without a GPU, and check what came out
	$(PY) -m kernels.audit $(ARGS)

tune: $(READY)  ## On a GPU: time every scheme and tile; ARGS=--write puts the winners into kernels/tuned
	$(PY) -m kernels.tune $(ARGS)

zoo: $(READY)  ## Try accelerate() and paca() on every architecture of transformers; ARGS="--model llama gpt2"
	$(PY) -m kernels.zoo $(ARGS)

fit: $(READY)  ## Refit bench/predict/fitted.yaml to published timings: make fit ARGS=FOLDER
	$(PY) -m bench.predict.fit $(ARGS)

aa: $(READY)  ## SWEEP three times anew: how far its ratios lie apart, and whether their intervals knew
	@for i in 1 2 3; do $(PY) -m bench run $(SWEEP) --fresh --gpu $(GPU) --out results/aa/$(SWEEP)-$$i $(ARGS) >/dev/null || exit; done
	@$(PY) -m bench spread results/aa/$(SWEEP)-1 results/aa/$(SWEEP)-2 results/aa/$(SWEEP)-3

clean:  ## Remove .venv and caches; results stay
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
