# What a person does with Perch, and what CI does. `make demo` and `make test` need nothing but Python 3.11+ and make;
# the first run installs into .venv (and node_modules for the CDK's command line), later runs need no network.

PYTHON ?= python3
BIN := .venv/bin
# onnxruntime would report to its maker.
export ORT_DISABLE_TELEMETRY := 1
# torch is pinned where the container image pins it, and nowhere else.
PINS := functions/predict_torch/requirements.txt

.PHONY: help demo up test explore test-clients test-images check format layers bench clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: .venv/.installed ## Tell the whole story on a local cloud; KEEP=1 leaves it running.
	@$(BIN)/perch demo $(if $(KEEP),--keep)

up: .venv/.installed ## Run a local cloud with the project deployed on it.
	@$(BIN)/perch up

test: .venv/.installed node_modules/.installed ## Run all tests.
	@$(BIN)/pytest -n 2 --dist loadfile -m "not builder"

explore: .venv/.installed node_modules/.installed ## Run the property tests with examples that they have not seen.
	@$(BIN)/pytest -n 2 -m hypothesis --hypothesis-profile explore

test-clients: .venv/.installed ## Let unmodified clients of the Open Inference Protocol ask a local cloud.
	@$(BIN)/python -m tests.clients.run

test-images: .venv/.installed ## Build the predictors' images with docker, podman or buildah, and run them.
	@$(BIN)/pytest tests/images -m builder -rs $(if $(WITHOUT),-k "not $(WITHOUT)")

check: .venv/.installed ## Lint, types and import contracts.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p perch -p cdk -p examples
	for handler in functions/*/handler.py; do $(BIN)/mypy $$handler || exit 1; done
	$(BIN)/lint-imports

format: .venv/.installed ## Format, and mend what can be mended.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

layers: .venv/.installed ## Build the Lambda layers (cached).
	$(BIN)/python -m cdk.layers

bench: .venv/.installed ## Run every benchmark and save its result.
	$(BIN)/pip install -q -r benchmarks/requirements.txt
	for name in handler_overhead large_tensors monitoring_cost pt2_call serving_throughput gateway_throughput loop judge_rates judgement_cost experiment_rates load_weights cold_start bytecode layer_budget; do $(BIN)/python -m benchmarks.$$name || exit 1; done

clean: ## Remove what was built and installed.
	rm -rf .venv .perch cdk.out node_modules

.venv/.installed: pyproject.toml $(PINS)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Perch needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -r $(PINS) -e '.[local,export,simulate,dev]'
	@touch $@

node_modules/.installed: package-lock.json .venv/.installed
	PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --no-progress
	@touch $@
