# Two main commands: `make demo` runs the whole chain, `make test` checks the code. Both set up what they need.
PROFILE ?= embedded
BIN := .venv/bin
# a file stays with one worker, which makes its fixtures once
PYTEST := $(BIN)/python -m pytest tests -n 2 --dist loadfile --durations=20
STAMP := .venv/.complete

.PHONY: demo test test-systems test-slow test-kills test-deploy setup up check lock repro docs clean

demo: setup            ## materialize the whole asset graph and print the results (PROFILE=embedded|boadella)
	@$(BIN)/caco demo --profile $(PROFILE)

test: setup check      ## lint, types, import contracts, and all tests that need no whole system
	@$(PYTEST) -m "not (slow or systems or kills or deploy)"

test-systems: setup    ## servers, daemons, torchrun and Ray as real processes, and the chain in Dagster and a browser
	@$(PYTEST) -m "systems and not slow"

test-slow: setup       ## the tests whose small twins `make test` runs, and the full number of rounds and examples
	@SLOW=1 $(PYTEST) -m "(slow or counted or hypothesis) and not deploy"

test-kills: setup      ## a retraining whose run, daemon and tracking server are killed at each stage: 7 minutes on a quiet machine
	@$(BIN)/python -m pytest tests -m kills -n 0

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

clean:                 ## delete the workspace with all models and data: shows what, and does it with CONFIRM=yes (keeps .venv)
	@bash scripts/clean.sh "$(CONFIRM)"
