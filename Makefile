# One command each, the same on a laptop and in CI. `make` alone lists them.
#
# A bare machine needs Python 3.11 or later and make. Everything else goes into .venv, at the versions and
# hashes in constraints.txt.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Kyutai's own package, beside what Parley needs.
REFERENCE := $(VENV)/reference
# Ray, beside what Parley needs.
RAY := $(VENV)/ray
# What looks at the files of deploy/.
DEPLOY := .venv-deploy
# Clients that others made, each with what it needs, apart from ours.
CLIENTS := .venv-clients
PYTHON_CLIENTS := openai pipecat livekit pydantic langchain vision
NODE_CLIENTS := agents livekit azure
CONFIG ?= configs/starter.yaml
ARGS   ?=

# Small models run faster on one thread, and leave the other core to the client.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup serve talk test test-browser test-golden test-reference clients attack rolling soak test-deploy test-ray fuzz check fix bench bench-reference bench-gpu measures release sbom constraints node-locks clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(READY) ## make .venv and install everything into it, hashes checked

# The interpreter is the first that is new enough; a versioned name may exist as a shim that does not run.
$(READY): constraints.txt pyproject.toml
	@python=; for name in $${PYTHON:-} python3 python3.13 python3.12 python3.11; do \
	  if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "Parley needs Python 3.11 or later; set PYTHON=/path/to/python" >&2; exit 1; fi; \
	if [ ! -x $(BIN)/python ]; then \
	  echo "Making $(VENV) with $$($$python --version)"; \
	  $$python -m venv $(VENV) || { rm -rf $(VENV); echo "$$python cannot make a virtual environment (on Debian: apt-get install python3-venv)" >&2; exit 1; }; \
	fi
	@echo "Installing the dependencies (PyTorch with CUDA is some 3 GB, once)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps --no-compile -r constraints.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
	@touch $(READY)

serve: setup ## serve the starter on 127.0.0.1:8000 (CONFIG=configs/….yaml, ARGS='--set a.b=c')
	@$(BIN)/python -m server.cli serve --config $(CONFIG) $(ARGS)

talk: setup ## start a server, ask it the bundled spoken question, print and keep the answer
	@$(BIN)/python -m server.cli talk tests/assets/two_plus_two.wav --config $(CONFIG) --out replies $(ARGS)

test: setup ## run the tests, a file at a time on each core (ARGS='-k name')
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

test-browser: setup ## talk from Chromium, which apt-get installs where it is not there, as npm (ARGS='-k page')
	@missing=; \
	command -v chromium >/dev/null || missing=chromium; \
	command -v npm >/dev/null || missing="$$missing nodejs npm"; \
	[ -z "$$missing" ] || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing; }
	@$(MAKE) --no-print-directory $(CLIENTS)/node-agents/.ready || echo "No @openai/agents-realtime: its tests skip"
	@$(BIN)/python -m pytest -m browser tests/server/web tests/benchmarks/test_bench_transport.py $(ARGS)

test-golden: setup ## compare with stored outputs of Kyutai's own package (DIR=path for others of the same form)
	@$(BIN)/python -m pytest -m golden $(if $(DIR),--golden='$(DIR)') $(ARGS)

test-reference: setup $(REFERENCE)/.ready ## compare with Kyutai's own package, installed aside (ARGS='-k mimi')
	@PYTHONPATH=$(REFERENCE) $(BIN)/python -m pytest -m reference $(ARGS)

$(REFERENCE)/.ready: tests/reference/requirements.txt | $(READY)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --upgrade \
	  --target $(REFERENCE) -r tests/reference/requirements.txt
	@touch $@

clients: setup $(CLIENTS)/.ready ## let unmodified Realtime clients talk to the server (ARGS='--only pipecat')
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
	@$(BIN)/python -m tests.clients.run $(ARGS)

# npm writes locks that name a registry's host; ours are without, so any registry or mirror serves, and the
# hash of every package is checked.
$(CLIENTS)/node-%/.ready: tests/clients/node/%/lock.json
	@mkdir -p $(@D)
	@cp tests/clients/node/$*/package.json $(@D)
	@cp tests/clients/node/$*/lock.json $(@D)/package-lock.json
	@cd $(@D) && npm ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

$(CLIENTS)/.ready: $(wildcard tests/clients/requirements/*.txt) $(NODE_CLIENTS:%=$(CLIENTS)/node-%/.ready)
	@echo "Installing the clients (some 1.5 GB, once)"
	@for name in $(PYTHON_CLIENTS); do \
	  $(BIN)/python -m venv $(CLIENTS)/$$name; \
	  $(CLIENTS)/$$name/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps --no-compile \
	    -r tests/clients/requirements/$$name.txt; \
	done
	@touch $@

attack: setup ## attack a server beside somebody who talks to it (ARGS='--only schemas --config scripted')
	@$(BIN)/python -m tests.attacks.run $(ARGS)

rolling: setup ## restart two servers behind nginx while callers talk (ARGS='--callers 12 --proxy haproxy', '--kill')
	@PATH=$$PATH:/usr/sbin; missing=; \
	command -v nginx >/dev/null || missing=nginx-light; \
	command -v haproxy >/dev/null || missing="$$missing haproxy"; \
	[ -z "$$missing" ] || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing; }
	@$(BIN)/python -m tests.rolling.run $(ARGS)

soak: setup ## an hour of talk for each of 16 callers, beside bad peers and killed engines (ARGS='--seconds 110')
	@$(BIN)/python -m benchmarks.bench_soak $(ARGS)

test-deploy: setup $(DEPLOY)/.ready ## Dockerfile, compose and chart, by hadolint, Helm's engine and Prometheus (ARGS='-k chart')
	@command -v prometheus >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus; }
	@$(BIN)/python -m pytest tests/deploy tests/rolling $(ARGS)

$(DEPLOY)/.ready: tests/deploy/requirements.txt | $(READY)
	@$(BIN)/python -m venv $(DEPLOY)
	@$(DEPLOY)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r tests/deploy/requirements.txt
	@touch $@

test-ray: setup $(RAY)/.ready ## serve the starter under Ray Serve here, and kill a replica while callers talk (ARGS='--callers 6')
	@PYTHONPATH=$(RAY):. RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=disabled $(BIN)/python -m tests.ray.run $(ARGS)

$(RAY)/.ready: tests/ray/requirements.txt | $(READY)
	@echo "Installing Ray into $(RAY) (some 470 MB, once)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps --upgrade \
	  --target $(RAY) -r tests/ray/requirements.txt
	@touch $@

# All of them run, so that one round shows everything there is to mend.
check: setup ## format, lint, types, import directions
	@failed=0; \
	$(BIN)/ruff format --check --quiet . || { echo "Not formatted: run make fix" >&2; failed=1; }; \
	$(BIN)/ruff check --quiet . || failed=1; \
	$(BIN)/mypy --no-error-summary || failed=1; \
	$(BIN)/lint-imports --no-logo >$(VENV)/import-linter.txt || { cat $(VENV)/import-linter.txt; failed=1; }; \
	$(BIN)/python -m server.names || failed=1; \
	exit $$failed

fix: setup ## format, and fix what the linter can
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

bench: setup ## latency of the starter on this machine's CPU
	@$(BIN)/python -m benchmarks.bench_latency $(ARGS)

bench-reference: setup $(REFERENCE)/.ready ## speed and memory beside Kyutai's own package (ARGS='--device cuda')
	@PYTHONPATH=$(REFERENCE) $(BIN)/python -m benchmarks.bench_reference $(ARGS)

bench-gpu: setup ## what needs a CUDA device: its tests, then its benchmarks
	@$(BIN)/python -m benchmarks.gpu $(ARGS)

measures: setup ## how the code reads: sizes, comments, sources, circles, files of one reply (ARGS='--root PATH')
	@$(BIN)/python -m benchmarks.measures $(ARGS)

# The version stands in pyproject.toml alone; what shows it asks the installed project.
release: setup ## check, test, and make a version: commit and tag (VERSION=0.2.0); pushing it is up to you
	@[[ "$(VERSION)" =~ ^[0-9]+\.[0-9]+\.[0-9]+$$ ]] || { echo "Say which: make release VERSION=0.2.0" >&2; exit 1; }
	@[ -z "$$(git status --porcelain)" ] || { echo "Commit what was changed first" >&2; exit 1; }
	@! git rev-parse --quiet --verify "refs/tags/v$(VERSION)" >/dev/null || { echo "There is a v$(VERSION)" >&2; exit 1; }
	@$(MAKE) --no-print-directory check test
	@sed -i 's/^version = ".*"$$/version = "$(VERSION)"/' pyproject.toml
	@sed -i "s/^## \[Unreleased\]$$/## [Unreleased]\n\n## [$(VERSION)] - $$(date +%F)/" CHANGELOG.md
	@git commit --quiet --allow-empty --all --message "release: $(VERSION)"
	@git tag --annotate "v$(VERSION)" --message "Parley $(VERSION)"
	@echo "v$(VERSION) is made. To publish it: git push --follow-tags"

# What libraries say of damaged files would hide the figures.
fuzz: setup ## play, damage and invent what nobody foresaw (SECONDS=60 each); figures at the end
	@failed=0; for name in protocol schemas sounds; do \
	  $(BIN)/python -m tests.fuzz.$$name --seconds $(or $(SECONDS),60) 2>$(VENV)/fuzz-$$name.txt || \
	    { failed=1; tail -n 60 $(VENV)/fuzz-$$name.txt >&2; }; \
	done; exit $$failed

sbom: setup ## list what the image installs, as CycloneDX: sbom.json
	@$(BIN)/cyclonedx-py requirements constraints-serve.txt --output-format JSON --output-file sbom.json
	@echo "sbom.json: $$(grep -c '"bom-ref"' sbom.json) components"

constraints: setup ## resolve pyproject.toml and write constraints*.txt (ARGS=--upgrade for newer versions)
	@$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make constraints" \
	  --quiet --output-file constraints.txt $(ARGS)
	@$(BIN)/uv pip compile pyproject.toml --constraints constraints.txt --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
	  --custom-compile-command "make constraints" --quiet --output-file constraints-serve.txt
	@for name in $(PYTHON_CLIENTS); do \
	  $(BIN)/uv pip compile tests/clients/requirements/$$name.in --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make constraints" \
	    --quiet --output-file tests/clients/requirements/$$name.txt $(ARGS); \
	done
	@for name in deploy ray; do \
	  $(BIN)/uv pip compile tests/$$name/requirements.in --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make constraints" \
	    --quiet --output-file tests/$$name/requirements.txt $(ARGS); \
	done

node-locks: ## resolve tests/clients/node/*/package.json and write lock.json beside each
	@for name in $(NODE_CLIENTS); do \
	  place=$$(mktemp -d); \
	  cp tests/clients/node/$$name/package.json $$place; \
	  (cd $$place && npm install --silent --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved \
	    --no-audit --no-fund); \
	  cp $$place/package-lock.json tests/clients/node/$$name/lock.json; \
	  rm -r $$place; \
	done

clean: ## remove the environment and every cache
	rm -rf $(VENV) $(CLIENTS) $(DEPLOY) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
