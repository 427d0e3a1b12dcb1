# Two main commands: `make demo` runs the whole chain, `make test` checks everything. Both set up what they need.
PROFILE ?= embedded
BIN := .venv/bin
STAMP := .venv/.complete

.PHONY: demo test test-kills test-deploy setup up check lock repro docs clean

demo: setup            ## materialize the whole asset graph and print the results (PROFILE=embedded|boadella)
	@$(BIN)/caco demo --profile $(PROFILE)

test: setup check      ## lint, types, import contracts, all tests
	@$(BIN)/python -m pytest tests --ignore tests/deploy --ignore tests/e2e/test_chain_killed.py -n 2 --dist worksteal --durations=20

test-kills: setup      ## a retraining whose run, daemon and tracking server are killed at each stage: 7 minutes on a quiet machine
	@$(BIN)/python -m pytest tests/e2e/test_chain_killed.py -n 0

test-deploy: setup     ## the parts of a team server and a cluster as local processes (DEPLOY_TESTS='-m "not slow"': only the quick tests)
	@$(BIN)/python -m pytest tests/deploy -n 0 --durations=5 $(DEPLOY_TESTS)

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports --no-cache

setup: $(STAMP)        ## .venv from requirements.lock; fast if nothing changed

$(STAMP): requirements.lock pyproject.toml scripts/setup.sh
	@bash scripts/setup.sh

up: setup              ## Dagster UI, MLflow UI and the workspace's pages; one Ctrl-C stops all
	@$(BIN)/caco up --profile $(PROFILE)

repro: setup           ## make the data products through DVC only
	@PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro pack@$(PROFILE)

lock: setup            ## compile requirements.in in one go (exact pins, hashes, no addresses)
	@$(BIN)/uv pip compile requirements.in --python-version 3.12 --generate-hashes --no-header --no-emit-index-url -q -o requirements.lock

clean:                 ## delete the workspace (keeps .venv)
	@chmod -R u+w workspace 2>/dev/null; rm -rf workspace
