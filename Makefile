# make lists what there is.  Everything but help, clean and lock first sees to it that nothing is missing.

PORT ?= 8000
export PORT
BIN = .venv/bin

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' Makefile | expand -t 18

setup: ## install what is missing: Debian's packages (with sudo) and .venv
	@deploy/setup

run: setup ## run everything until Ctrl-C, the API at PORT (8000)
	@$(BIN)/python -m deploy.local run

setup-tests:
	@deploy/setup tests/packages.txt

shell: setup ## a Python shell with the models, beside a running make run
	@$(BIN)/python manage.py shell

test: setup-tests ## all tests, on real Postgres, Redis, libvirt and guests; as CI runs them (ARGS="tests/api -k name": some)
	@[ "$$(id -u)" = 0 ] || sudo true # the private libvirt needs it
	@tests/run $(ARGS)

test-quick: setup-tests ## within two minutes: the unit and API tests and some stories on a real host
	@[ "$$(id -u)" = 0 ] || sudo true
	@$(BIN)/python -m pytest -q tests/unit tests/api tests/flows/test_operations.py tests/flows/test_claims.py $(ARGS)

chaos: setup-tests ## workers that die at random moments, CHAOS_TRIALS times (500), by CHAOS_SEED
	@[ "$$(id -u)" = 0 ] || sudo true
	@CHAOS_TRIALS=$${CHAOS_TRIALS:-500} $(BIN)/python -m pytest tests/chaos $(ARGS)

# Django wants settings to load; nothing here connects anywhere.
check: export VPS_SECRET_KEY = a secret for checks that read no data
check: export VPS_ALLOWED_HOSTS = localhost
check: export DATABASE_URL = postgres:///nowhere
check: export REDIS_URL = redis://nowhere
check: setup ## style, types, import contracts, dead code, migrations, the published schema
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@echo "vulture: what nothing uses"
	@! $(BIN)/vulture | grep -vE 'unused (variable|attribute)'
	$(BIN)/python -W ignore manage.py makemigrations --check --dry-run
	@echo "lintmigrations: what would lock a table or break the code that still runs"
	@$(BIN)/python -m deploy.local with-postgres -- \
		$(BIN)/python -W ignore manage.py lintmigrations --quiet ok warning --settings tests.lint_settings
	@echo "docs/openapi.yaml should be what 'make schema' writes"
	@$(BIN)/python -W ignore manage.py spectacular --validate --fail-on-warn | diff -u docs/openapi.yaml -

schema: export VPS_SECRET_KEY = a secret for a schema that holds no data
schema: export VPS_ALLOWED_HOSTS = localhost
schema: export DATABASE_URL = postgres:///nowhere
schema: export REDIS_URL = redis://nowhere
schema: setup ## write docs/openapi.yaml, the published schema, from the code
	$(BIN)/python -W ignore manage.py spectacular --validate --fail-on-warn --file docs/openapi.yaml

COMPILE = pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
lock: ## bring the locks up to date: the product's, the developers', the tests' clients'
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && python3 -m venv "$$tools" && \
	"$$tools/bin/pip" install --quiet uv && \
	"$$tools/bin/uv" $(COMPILE) pyproject.toml --output-file requirements.lock && \
	"$$tools/bin/uv" $(COMPILE) pyproject.toml --output-file requirements-dev.lock --extra dev && \
	"$$tools/bin/uv" $(COMPILE) tests/e2e/clients.txt --output-file tests/e2e/clients.lock && \
	"$$tools/bin/uv" $(COMPILE) tests/e2e/generated/generators.txt --output-file tests/e2e/generated/generators.lock && \
	npm install --prefix tests/e2e/generated --package-lock-only --omit-lockfile-registry-resolved

clean: ## stop leftovers and remove var, guests and data included
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m deploy.local clean; fi

bench-api: ## what reading costs, beside a view written by hand (about five minutes)
	@deploy/setup bench/packages.txt
	@$(BIN)/python -m bench api

bench-provision: ## what making servers costs, beside virt-install (about five minutes, ARGS="--turns 3")
	@deploy/setup bench/packages.txt
	@[ "$$(id -u)" = 0 ] || sudo true # the private libvirt needs it
	@$(BIN)/python -m bench provision $(ARGS)

bench-backup: setup ## what copying a disk and restoring it costs, beside qemu-img (ten minutes, ARGS="--turns 1")
	@[ "$$(id -u)" = 0 ] || sudo true # the private libvirt needs it
	@$(BIN)/python -m bench backup $(ARGS)

bench-billing: setup ## what charging 20,000 servers costs (a few minutes, ARGS="--accounts 20000")
	@$(BIN)/python -m bench billing $(ARGS)

.PHONY: bench-api bench-backup bench-billing bench-provision chaos check clean help lock run schema setup setup-tests shell test test-quick
