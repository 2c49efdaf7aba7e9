# Everything below sets itself up from PyPI in $(VENV). Stamp files say what is done, so a changed
# pyproject.toml installs again, and a changed _native source compiles again.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
MODELS := .demo/models
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?=

MADE := $(VENV)/.made
INSTALLED := $(VENV)/.installed
NATIVE := $(VENV)/.native
SETUP_LOG := $(VENV)/setup.log
BUILD_REQUIRES := $(VENV)/build-requires.txt

# The core is built with the Cython of $(VENV), not with one of pip's own for the occasion: two
# installations of it would each compile everything.
define READ_BUILD_REQUIRES
import tomllib
table = tomllib.load(open("pyproject.toml", "rb"))
print(*table["build-system"]["requires"], sep="\n")
endef
export READ_BUILD_REQUIRES
NATIVE_SOURCES := $(wildcard _native/*.pyx _native/*.pxd protos/*.proto)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo tour retraining serve models test check fuzz bench memory soak swaps reloads shadow \
	stream-cost conformance build clean

help: ## list the targets
	@echo "onnx-gateway: serves ONNX models over the Open Inference Protocol"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		awk -F'|' '{ printf "%-20s%s\n", $$1, $$2 }'

demo: $(NATIVE) models ## start the gateway on real models, send it real inputs, show what it did
	@$(PY) -m examples.demo --models $(MODELS)

tour: $(NATIVE) ## change a model under traffic: shadow, canary, promote, rollback, history
	@$(PY) -m examples.tour

retraining: $(NATIVE) ## a model drifts, is retrained by an action, shadowed, promoted: the loop once around
	@$(PY) -m examples.retraining

serve: $(NATIVE) models ## leave the demo's gateway up on ports 8000 (HTTP), 8001 (gRPC), 8002 (metrics)
	@exec $(VENV)/bin/onnx-gateway serve $(MODELS)

models: $(NATIVE) ## build the demo's model repository in .demo/models
	@$(PY) -m examples.build_models $(MODELS)

test: $(NATIVE) ## run the tests
	@$(PY) -m pytest -m "not slow"

check: $(NATIVE) ## ruff, mypy --strict, Cython warnings as errors, import layers
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@ONNX_GATEWAY_WERROR=1 $(PY) setup.py --quiet build_ext --inplace
	@$(PY) -m mypy
	@$(PY) -m pytest -q tests/test_import_layers.py

fuzz: $(INSTALLED) ## the codecs under AddressSanitizer, FUZZ_SECONDS=600 each of FUZZ_TARGETS (wants clang)
	@$(PY) -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)

bench: $(NATIVE) ## server CPU per request beside the bare ceilings (wants wrk and nghttp2-client)
	@$(PY) -m loadtests.bench

memory: $(NATIVE) ## resident memory before and after 100,000 requests
	@$(PY) -m loadtests.memory

soak: $(NATIVE) ## memory and open files after 1,000,000 calls on one connection and 10,000 connections
	@$(PY) -m loadtests.soak

swaps: $(NATIVE) ## latency while versions are swapped, beside latency while they are not (wants nghttp2-client)
	@$(PY) -m loadtests.swaps

reloads: $(NATIVE) ## resident memory before and after 1,000 loads and unloads of a model of 25 MB
	@$(PY) -m loadtests.reloads

shadow: $(NATIVE) ## latency and goodput with a shadow beside those without (wants nghttp2-client)
	@$(PY) -m loadtests.shadow

stream-cost: $(NATIVE) ## what the prediction stream and the monitors cost, on beside off (wants wrk and nghttp2-client)
	@$(PY) -m loadtests.stream_cost

conformance: $(NATIVE) ## every node test and topology of the onnx package, over the wire
	@$(PY) -m tests.conformance --report build/conformance.md

build: $(NATIVE) ## a wheel in dist/
	@$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist

clean: ## remove everything that make has made
	@rm -rf $(VENV) .demo .cache build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache \
		.hypothesis _native/*.so gateway/_native gateway/protos.binpb \
		tests/clients/grpc_js/node_modules
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE): .ci/preflight.py
	@command -v $(PYTHON) >/dev/null || { \
		echo "make: $(PYTHON) is not there: install it (Debian: apt install python3 python3-venv" \
			"python3-dev), or name another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) .ci/preflight.py
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(INSTALLED): $(MADE) pyproject.toml setup.py
	@echo "Setting up $(VENV) from PyPI and compiling the core (a few minutes the first time) ..."
	@{ $(PY) -m pip install --upgrade pip && \
		$(PY) -c "$$READ_BUILD_REQUIRES" >$(BUILD_REQUIRES) && \
		$(PY) -m pip install --requirement $(BUILD_REQUIRES) && \
		$(PY) -m pip install --no-build-isolation --editable '.[cpu,test,demo,dev]'; \
		} >$(SETUP_LOG) 2>&1 || { cat $(SETUP_LOG) >&2; exit 1; }
	@touch $@

$(NATIVE): $(INSTALLED) $(NATIVE_SOURCES)
	@$(PY) setup.py --quiet build_ext --inplace
	@touch $@
