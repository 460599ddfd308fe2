# Two commands do everything: `make up` and `make test`. Both may be run again at any time.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OS_PACKAGES := python3-venv crun catatonit nftables busybox-static golang-github-containers-common
TEST_PACKAGES := runc mmdebstrap iproute2 iptables procps curl skopeo docker-compose \
	containernetworking-plugins

# Three processes share the integration tests, a file each at a time: they wait half of their time.
SHARED := -n 3 --dist loadfile

.PHONY: up clients test test-unit test-integration lint format bench down clean

up: $(VENV)/.installed
	@tools/os-packages $(OS_PACKAGES)
	@$(BIN)/wherry up --sample

down:
	@$(BIN)/wherry down

# In this order: with the clients here, the unit tests of the store run on an etcd, too.
test: clients test-unit test-integration

clients: $(VENV)/.installed-dev
	@tools/clients $(VENV)/clients $(VENV)

test-unit: $(VENV)/.installed-dev
	$(BIN)/pytest tests/unit -q

test-integration: $(VENV)/.installed-dev clients
	@tools/os-packages $(OS_PACKAGES) $(TEST_PACKAGES)
	$(BIN)/pytest tests/integration -q $(SHARED)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev clients
	$(BIN)/python -m benchmarks

$(VENV)/bin/python:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || tools/os-packages python3-venv
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@$(BIN)/pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
