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
.PHONY: results results-bb72 results-bb144 results-comparison results-windows results-optimum results-foreign results-runtimes results-calibration results-pair results-report

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
	TANDEM_NOTEBOOK_MINUTES=0.1 NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

serve: $(READY) ## Start the service on 127.0.0.1:8000
	$(BIN)/tandem serve --host 127.0.0.1 --port 8000

# A measurement that is there is not repeated: `make results FORCE=1` does so. One of failures that was stopped goes on,
# also with more shots or more decoders, on the same shots.
RESULTS  := docs/results
SEED     ?= 4117
measured  = [ -z '$(FORCE)' ] && [ -e $(RESULTS)/$(1)/results.json ] && echo "$(RESULTS)/$(1) is there; FORCE=1 measures again"
once      = --out $(RESULTS)/$(1) $(if $(FORCE),--force)
resumed   = --out $(RESULTS)/$(1) $(if $(FORCE),--force,--resume)

# Of a code's memory in both bases: $(1) code, $(2) rounds, $(3) p, $(4) shots, $(5) more options.
failures  = $(call measured,$(1)-p$(3)) || $(BIN)/tandem benchmark accuracy --code $(1) --basis Z,X --rounds $(2) --p $(3) \
	--shots $(4) $(5) --seed $(SEED) $(call resumed,$(1)-p$(3))
WITH     := --decoders serial,bposd
ALONE    := --decoders serial
comma    := ,
plotted   = $(BIN)/python scripts/plot_failures.py $(2) --out $(RESULTS)/$(1).png --force

results: results-bb72 results-bb144 results-comparison results-windows results-optimum results-foreign results-runtimes results-calibration results-pair results-report ## Measure all figures and tables, one after the other

results-bb72: $(READY) ## Failures of bb72 over 6 rounds
	$(call failures,bb72,6,0.001,1024000,$(WITH))
	$(call failures,bb72,6,0.002,102400,$(ALONE))
	$(call failures,bb72,6,0.003,20480,$(WITH))
	$(call failures,bb72,6,0.005,5120,$(ALONE))
	$(call plotted,failures-against-time,$(RESULTS)/bb72-p0.003 $(RESULTS)/bb72-p0.003-before=daa0671 '$(RESULTS)/comparison=(seed 2031)' --code bb72 --basis Z --p 0.003)

results-bb144: $(READY) ## Failures of bb144 over 12 rounds
	$(call failures,bb144,12,0.002,1024000,$(ALONE))
	$(call failures,bb144,12,0.003,204800,$(ALONE))
	$(call failures,bb144,12,0.004,20480,$(ALONE))
	$(call failures,bb144,12,0.005,5120,$(ALONE))

results-comparison: $(READY) ## Failures of every decoder at p = 0.3 %, bb72, Z memory over 6 rounds
	$(call measured,comparison) || $(BIN)/tandem benchmark accuracy --code bb72 --basis Z --rounds 6 --p 0.003 \
		--decoders neural,serial,serial-1,bp,bplsd,bposd,bposd-osd0,bposd-xyz,relay-1,relay-5,relay-1-xyz,relay-5-xyz,tesseract-short-sparsify \
		--shots 10000 --max-seconds 100 --min-shots 1000 --seed 2031 $(call resumed,comparison)

# In windows of d and 2d layers that move on by d/2, or of 2d by d: $(1) code, $(2) rounds, $(3) p, $(4) shots, $(5) windows, $(6) timed shots.
windows   = $(call measured,windows/$(1)-r$(2)) || $(BIN)/tandem benchmark accuracy --code $(1) --basis Z --rounds $(2) --p $(3) \
	--decoders $(subst $() ,$(comma),serial $(5:%=serial-window-%)) --shots $(4) --seed $(SEED) $(call resumed,windows/$(1)-r$(2))
answering = $(call measured,windows/$(1)-r$(2)-latency) || $(BIN)/tandem benchmark latency --code $(1) --basis Z --rounds $(2) --p $(3) \
	--decoders $(subst $() ,$(comma),$(4:%=serial-window-%)) --shots $(5) --batch 1 --seed $(SEED) $(call once,windows/$(1)-r$(2)-latency)
BB72_W    := 6-3 12-3 12-6
BB144_W   := 12-6 24-6 24-12

results-windows: $(READY) ## Failures and times in sliding windows, over 30 and 120 rounds
	$(call windows,bb72,30,0.003,5120,$(BB72_W))
	$(call windows,bb72,120,0.003,1024,$(BB72_W))
	$(call windows,bb144,30,0.005,512,$(BB144_W))
	$(call windows,bb144,120,0.005,128,$(BB144_W))
	$(call answering,bb72,120,0.003,$(BB72_W),500)
	$(call answering,bb144,120,0.003,$(BB144_W),100)

results-optimum: $(READY) ## Which failures the most likely error shares
	$(call measured,optimum) || $(BIN)/tandem benchmark optimum --code bb72 --basis Z,X --rounds 6 --p 0.001 \
		--decoders serial --shots 1024000 --seed $(SEED) $(call resumed,optimum)

# Circuits of other projects, where TANDEM_VECTORS says that they are: $(1) the table, $(2) the files, $(3) more options.
foreign  = $(if $(TANDEM_VECTORS),$(call measured,foreign/$(1)) || $(BIN)/tandem benchmark accuracy \
	$(foreach file,$(2),--circuit $(TANDEM_VECTORS)/foreign/$(file).stim) $(3) --seed $(SEED) $(call resumed,foreign/$(1)),@:)

FOREIGN  := relay_bb144_z_r12_p0.003 tesseract_si1000_bb72_x_r6_p0.003 tesseract_nlr5wb_bb72_z_r6_p0.003 tesseract_si1000_bb144_z_r12_p0.003 \
	relay_bb18_choi_xz_r3_p0.003 relay_rotated_surface_d3_x_p0.003 tesseract_superdense_colour_d3_z_p0.003

results-foreign: $(READY) ## Failures on circuits of trmue/relay and Tesseract, where TANDEM_VECTORS says that they are
	$(call foreign,relay_bb144_z_r12_p0.003,relay_bb144_z_r12_p0.003,--decoders serial --shots 102400)
	$(call foreign,bb72,tesseract_si1000_bb72_x_r6_p0.003 tesseract_nlr5wb_bb72_z_r6_p0.003,--decoders serial$(comma)neural$(comma)bposd --shots 10240 --max-seconds 12 --min-shots 256)
	$(call foreign,bb144,tesseract_si1000_bb144_z_r12_p0.003,--decoders serial$(comma)bposd --shots 10240 --max-seconds 200 --min-shots 256)
	$(call foreign,choi,relay_bb18_choi_xz_r3_p0.003,--decoders serial$(comma)bposd --shots 10240 --max-seconds 90 --min-shots 256)
	$(call foreign,others,relay_rotated_surface_d3_x_p0.003 tesseract_superdense_colour_d3_z_p0.003,--decoders serial$(comma)bposd --shots 20480 --max-seconds 12 --min-shots 1024)
	$(if $(TANDEM_VECTORS),$(call measured,foreign/calibration) || $(BIN)/tandem benchmark calibration --decoder serial \
		$(foreach file,$(FOREIGN),--circuit $(TANDEM_VECTORS)/foreign/$(file).stim) --shots 4096 --seed $(SEED) $(call once,foreign/calibration),@:)

results-runtimes: $(READY) ## Times of single shots, on an otherwise idle machine
	$(call measured,runtimes) || $(BIN)/tandem benchmark latency --code bb72 --basis Z --rounds 6 \
		--p 0.003 --decoders neural,serial,bposd --shots 20000 --batch 1 --seed $(SEED) $(call once,runtimes)

results-calibration: $(READY) ## Confidence against failures
	for basis in Z X; do $(call measured,bb72-$$basis-calibration) || $(BIN)/tandem benchmark calibration --code bb72 \
		--basis $$basis --rounds 6 --p 0.001,0.003,0.005 --shots 20000 --seed $(SEED) \
		$(call once,bb72-$$basis-calibration) || exit; done

results-pair: $(READY) ## Pairs: failures against the share of the shots that is passed on
	mkdir -p $(RESULTS)/tune
	for second in serial tesseract; do $(BIN)/tandem tune --code bb72 --rounds 6 --p 0.003 --second $$second \
		--shots 20000 --most 0.005 --seed $(SEED) --out $(RESULTS)/tune/bb72-$$second.md || exit; done

results-report: $(READY) ## One page of all that docs/results holds
	$(BIN)/tandem benchmark report $(RESULTS) --force

SERVICE_BENCHMARKS := latency.py 'latency.py --p 0.001' throughput.py 'throughput.py --p 0.001' load.py overload.py building.py streams.py chaos.py kills.py fuzz.py

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
