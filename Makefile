# Two commands matter: `make demo` and `make test`. Each sets up all that it needs in .venv, once.
# Needed on the machine: Python 3.11 or later, make and gcc.

PYTHON ?= $(or $(shell command -v python3.11),python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# PyTorch's CPU build: a tenth of the size of the default (CUDA) one. `make TORCH_INDEX_URL= ...` on a fresh
# checkout takes the default one instead; so does a machine from which this index cannot be reached.
TORCH_INDEX_URL ?= https://download.pytorch.org/whl/cpu
TORCH_INDEX     := $(if $(TORCH_INDEX_URL),--retries 1 --extra-index-url $(TORCH_INDEX_URL))
PIP             := $(BIN)/python -m pip --disable-pip-version-check
# Modules are compiled when they are first imported, most of them never: installing takes half the time.
INSTALL         := $(PIP) install --quiet --no-compile -c constraints.txt

# Tests start hundreds of processes. Modules are compiled once for all of them, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo docs test test-timing lint format pytest serve bench-service image constraints clean
.NOTPARALLEL: results
.PHONY: results results-bb72 results-bb144 results-comparison results-runtimes results-calibration results-pair results-report

help: ## Show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(READY) ## Create .venv with everything at the tested versions

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or later is needed; $(PYTHON) is {sys.version.split()[0]}. Try: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) $(TORCH_INDEX) --no-deps torch
	$(INSTALL) -e '.[dev]'
	@touch $@

demo: $(READY) ## Start the service, decode 2,000 fresh shots with both decoders, print errors and latencies
	$(BIN)/python scripts/demo.py $(ARGS)

# While style and types are checked on one core, another one compiles numba's kernels, and keeps them in files: without
# these, the test processes would all compile them, at the same time. Should that fail, the tests tell why.
test: $(READY) ## Everything that is checked: style, types, tests
	@{ $(BIN)/python -m decoder.cli $(KERNELS); $(BIN)/python -m decoder.cli $(PROOFS); } >/dev/null 2>&1 & $(MAKE) --no-print-directory lint; linted=$$?; wait; exit $$linted
	@$(MAKE) --no-print-directory pytest

KERNELS := warm-up
PROOFS  := benchmark optimum --code bb72 --basis Z --rounds 1 --p 0.002 --decoders bposd-osd0 --shots 1 --all-shots --processes 1

lint: $(READY) ## Check style (ruff) and types (mypy --strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

pytest: $(READY) ## Run the tests alone; ARGS='tests/decoder -k bposd' chooses among them
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

test-timing: $(READY) ## Run the tests that measure time, on an otherwise idle machine
	$(BIN)/pytest -m timing $(ARGS)

format: $(READY) ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## Build the documentation into build/docs; a dead link or a wrong name is an error
	$(INSTALL) -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

serve: $(READY) ## Start the service on 127.0.0.1:8000
	$(BIN)/tandem serve --host 127.0.0.1 --port 8000

# A measurement that is there is not repeated: `make results FORCE=1` does so. One of failures that was stopped goes on.
RESULTS  := docs/results
SEED     ?= 2031
measured  = [ -z '$(FORCE)' ] && [ -e $(RESULTS)/$(1)/results.json ] && echo "$(RESULTS)/$(1) is there; FORCE=1 measures again"
once      = --out $(RESULTS)/$(1) $(if $(FORCE),--force)
resumed   = --out $(RESULTS)/$(1) $(if $(FORCE),--force,--resume)

FIGURE   := --decoders neural,serial,bposd --max-errors 100 --seed $(SEED)

results: results-bb72 results-bb144 results-comparison results-runtimes results-calibration results-pair results-report ## Measure all figures and tables, one after the other

results-bb72: $(READY) ## Failures against p of bb72: Z memory over 6, 12 and 18 rounds, X memory over 6
	$(call measured,figure-bb72) || $(BIN)/tandem benchmark accuracy --code bb72 --basis Z --rounds 6,12,18 \
		--p 0.001,0.002,0.003,0.004,0.005 $(FIGURE) --shots 100000 --max-seconds 20 $(call resumed,figure-bb72)
	$(call measured,figure-bb72-X) || $(BIN)/tandem benchmark accuracy --code bb72 --basis X --rounds 6 \
		--p 0.001,0.002,0.003,0.004,0.005 $(FIGURE) --shots 100000 --max-seconds 20 $(call resumed,figure-bb72-X)

results-bb144: $(READY) ## Failures against p of bb144, Z memory over 12 rounds
	$(call measured,figure-bb144) || $(BIN)/tandem benchmark accuracy --code bb144 --basis Z --rounds 12 \
		--p 0.002,0.003,0.004,0.005 $(FIGURE) --shots 20000 --max-seconds 12 $(call resumed,figure-bb144)

results-comparison: $(READY) ## Failures of every decoder at p = 0.3 %, bb72, Z memory over 6 rounds
	$(call measured,comparison) || $(BIN)/tandem benchmark accuracy --code bb72 --basis Z --rounds 6 --p 0.003 \
		--decoders neural,serial,serial-1,bp,bplsd,bposd,bposd-osd0,bposd-xyz,relay-1,relay-5,relay-1-xyz,relay-5-xyz,tesseract-short-sparsify \
		--shots 10000 --max-seconds 100 --min-shots 1000 --seed $(SEED) $(call resumed,comparison)

results-runtimes: $(READY) ## Times of single shots, on an otherwise idle machine
	$(call measured,runtimes) || $(BIN)/tandem benchmark latency --code bb72 --basis Z --rounds 6 \
		--p 0.003 --decoders neural,bposd --shots 100000 --batch 1 --seed $(SEED) $(call once,runtimes)
	$(call measured,runtimes-low) || $(BIN)/tandem benchmark latency --code bb72 --basis Z --rounds 6 \
		--p 0.001 --decoders neural,bposd --shots 20000 --batch 1 --seed $(SEED) $(call once,runtimes-low)

results-calibration: $(READY) ## Confidence against failures
	for basis in Z X; do $(call measured,bb72-$$basis-calibration) || $(BIN)/tandem benchmark calibration --code bb72 \
		--basis $$basis --rounds 6 --p 0.002,0.003 --shots 20000 --seed $(SEED) \
		$(call once,bb72-$$basis-calibration) || exit; done

results-pair: $(READY) ## The pairs of decoders, bb72 over 6 rounds: failures in both bases, and failures against time
	$(call measured,pair-accuracy) || $(BIN)/tandem benchmark accuracy --code bb72 --basis Z,X --rounds 6 --p 0.003,0.002 \
		--decoders neural,tandem,tandem-tesseract,relay-5-xyz --shots 20000 --max-seconds 450 \
		--seed 2032 $(call resumed,pair-accuracy)
	$(call measured,pair-latency) || $(BIN)/tandem benchmark latency --code bb72 --basis Z --rounds 6 --p 0.003 \
		--decoders neural,tandem,tandem-tesseract,serial,relay-5-xyz,bposd --shots 1000 --batch 1 --seed $(SEED) $(call once,pair-latency)

results-report: $(READY) ## One page of all that docs/results holds
	$(BIN)/tandem benchmark report $(RESULTS) --force

SERVICE_BENCHMARKS := latency.py 'latency.py --p 0.001' throughput.py 'throughput.py --p 0.001' load.py overload.py streams.py chaos.py kills.py fuzz.py

bench-service: $(READY) ## Measure the service: docs/results/service/, 20 minutes on an otherwise idle machine of two cores
	@failed=; for run in $(SERVICE_BENCHMARKS); do $(BIN)/python benchmarks/$$run || failed="$$failed, $$run"; done; \
		[ -z "$$failed" ] || { echo "missed a goal: $${failed#, }"; exit 1; }

image: ## Build the container image (needs Docker)
	docker buildx build --load --sbom=true --provenance=mode=max -t tandem .

# What the image is made of, each file with the digests that it may have.
COMPILE     := $(BIN)/uv pip compile --quiet -c constraints.txt --generate-hashes --no-annotate --no-header --python-version 3.11 --python-platform x86_64-manylinux_2_28
FOR_CPU     := --index $(TORCH_INDEX_URL) --index-strategy unsafe-best-match
TORCH_ALONE := $(addprefix --no-emit-package ,filelock fsspec jinja2 markupsafe mpmath networkx setuptools sympy typing-extensions)

constraints: $(READY) ## Pin constraints.txt, and what the image is made of, to what .venv holds now
	$(INSTALL) -e '.[docs]'
	@{ sed -n '/^#/p' constraints.txt; $(PIP) freeze --all --exclude pip --exclude-editable | sed 's/+[a-z0-9.]*$$//'; } > $(VENV)/constraints.txt
	mv $(VENV)/constraints.txt constraints.txt
	$(PIP) install --quiet uv
	$(COMPILE) pyproject.toml $(FOR_CPU) --no-emit-package torch -o deploy/image/requirements.txt
	echo hatchling | $(COMPILE) - -o deploy/image/build.txt
	echo torch | $(COMPILE) - $(FOR_CPU) $(TORCH_ALONE) -o deploy/image/torch-cpu.txt
	echo torch | $(COMPILE) - $(TORCH_ALONE) -o deploy/image/torch-cuda.txt
	@touch $(READY)

clean: ## Remove .venv and all caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
