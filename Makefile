# Everything runs in a local .venv that the first target makes.
# ARGS goes to the program: make demo ARGS="--backend trio"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Folders that mypy checks besides the packages.
SCRIPTS := $(wildcard benchmarks demos docs/tutorial tests conftest.py)

# The three lower bounds of pyproject.toml as name==version.
LOWEST = $$(sed -n 's/^ *"\(anyio\|attrs\|msgspec\)>=\([0-9.]*\)",$$/\1==\2/p' pyproject.toml)

# All the tests, on all the cores. A file is not divided: the examples of a page go on from each other.
# ARGS=-n0 runs them one after the other, as `python -m pytest` does.
ALL_TESTS := -m pytest -n logical --dist loadfile

# The server that `make fleet-test` starts, in a scratch directory.
ETCD ?= etcd

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo serve replay stress test test-lowest bench bench-peers bench-plots bench-docs docs docs-serve explore \
	crash fleet-test fuzz mutants mutate lint format coverage wheel-test clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

demo: $(VENV)/.demos ## a guest shares a device, then crashes: the story, live
	$(BIN)/python demos/guest_sva.py $(ARGS)

serve: $(VENV)/.serve ## serve an allocator on build/serve.sock, for trying out; what was served stays
	@mkdir -p build
	$(BIN)/ioasid --socket build/serve.sock serve --journal build/serve.journal $(ARGS)

replay: $(VENV)/.demos ## compare with what a kernel's allocator answered
	$(BIN)/python demos/replay.py tests/conformance/data/*.json $(ARGS)

stress: $(VENV)/.demos ## storm over 200 VMs with crashes everywhere, a minute or three
	$(BIN)/python demos/many_vms.py --vms 200 --devices 4 --ops 200000 $(ARGS)

bench: $(VENV)/.bench ## measure against the floor, results in build/bench.json
	$(BIN)/python benchmarks/run.py $(ARGS)

bench-peers: build/peers/.installed ## compare with other libraries, added to build/bench.json
	build/peers/bin/python benchmarks/run.py --peers $(ARGS)

bench-plots: $(VENV)/.bench ## measure cost against size, plots in docs/performance/
	$(BIN)/python benchmarks/sweeps.py $(ARGS)

bench-docs: $(VENV)/.bench ## put the last results into docs/performance.md
	$(BIN)/python benchmarks/page.py

docs: $(VENV)/.docs ## build the documentation as a site in build/site, links and anchors checked
	$(BIN)/zensical build --strict --clean

docs-serve: $(VENV)/.docs ## show the documentation on http://127.0.0.1:8000, as you write it
	$(BIN)/zensical serve --dev-addr 127.0.0.1:8000 $(ARGS)

explore: $(VENV)/.demos ## run the shipped scenarios under thousands of schedules
	$(BIN)/python -m ioasid.testing $(ARGS)

fuzz: $(VENV)/.demos ## feed a million bad messages, frames, requests and snapshots to the core and the socket
	$(BIN)/python -m tests.fuzz $(ARGS)

crash: $(VENV)/.test ## kill an agent 1,000 times, and cut the power at every write
	$(BIN)/python -m tests.journal.crash $(ARGS)
	IOASID_LOSSES=1 $(BIN)/python -m pytest -q -o faulthandler_timeout=0 tests/journal/test_power.py

fleet-test: $(VENV)/.test ## test the fleet over an etcd on loopback (etcd-server), and 1,000 races
	@command -v $(ETCD) >/dev/null || { echo "no etcd here: apt install etcd-server, or make fleet-test ETCD=path"; exit 1; }
	IOASID_ETCD=$(ETCD) $(BIN)/python -m pytest tests/fleet $(ARGS)
	$(BIN)/python -m tests.fleet.races

mutants: $(VENV)/.test ## plant small bugs and see which tool catches which
	$(BIN)/python -m tests.mutants.run $(ARGS)

mutate: $(VENV)/.test ## change the core operator by operator: what do its tests miss?
	$(BIN)/python -m tests.mutants.mutate $(ARGS)

test: $(VENV)/.test ## run the tests, README and docs included
	$(BIN)/python $(ALL_TESTS) $(ARGS)

coverage: $(VENV)/.test ## run the tests and show the lines they miss
	$(BIN)/python -m coverage run -m pytest $(ARGS)
	$(BIN)/python -m coverage report

lint: $(VENV)/.dev ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict -p ioasid
	$(BIN)/mypy --strict $(SCRIPTS)

format: $(VENV)/.dev ## format the code and repair what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The wheel is built from the source distribution, and the tests come from that
# archive too: a file missing from either is noticed. The copy loses core/,
# journal/ and all the others, so ioasid can only come from the wheel.
wheel-test: $(VENV)/.dev ## build sdist and wheel, test the installed wheel
	rm -rf build/lib dist
	$(BIN)/python -m build --outdir dist . >/dev/null
	ls -l dist
	@set -eu; \
	away=$$(mktemp -d); trap 'rm -rf "$$away"' EXIT; trap 'exit 1' HUP INT TERM; \
	mypy=$$PWD/$(BIN)/mypy; \
	$(BIN)/python -m venv "$$away/venv" || $(BIN)/python -m venv --without-pip --clear "$$away/venv"; \
	$(BIN)/python -m pip --python "$$away/venv/bin/python" install --quiet "$$(echo dist/*.whl)[test]"; \
	tar -xzf dist/*.tar.gz -C "$$away"; \
	cd "$$away"/ioasid-*; \
	rm -r package core journal actors linux recorder service fleet testing; \
	set -x; \
	"$$away/venv/bin/python" -c 'import sysconfig, ioasid; \
	from ioasid import core, journal, actors, linux, recorder, service, fleet, testing; \
	home = sysconfig.get_path("purelib"); \
	packages = ioasid, core, journal, actors, linux, recorder, service, fleet, testing; \
	files = [each.__file__ for each in packages]; \
	assert all(file.startswith(home) for file in files), files; \
	print("ioasid comes from", home)'; \
	"$$mypy" --python-executable "$$away/venv/bin/python" $(wildcard demos); \
	"$$away/venv/bin/python" $(ALL_TESTS) $(ARGS)

test-lowest: $(VENV)/.test ## test with the oldest dependencies pyproject.toml allows
	rm -rf build/lowest
	$(BIN)/python -m venv build/lowest || $(BIN)/python -m venv --without-pip --clear build/lowest
	$(BIN)/python -m pip --python build/lowest/bin/python install --quiet --editable '.[test]' $(LOWEST)
	build/lowest/bin/python $(ALL_TESTS) $(ARGS)

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist ioasid.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Some systems ship Python without ensurepip; then pip comes from the outside.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv --clear $(VENV) || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }

# An editable install maps ioasid.core and so on to the folders for Python; the
# links do the same for mypy (mypy_path in pyproject.toml). Both name
# folders, and files only of package/, so a new module is there at once.
define install
	$(BIN)/python -m pip install --quiet --editable '.[$(1)]'
	mkdir -p $(VENV)/links/ioasid
	ln -sf ../../../package/__init__.py ../../../package/__main__.py $(VENV)/links/ioasid
	ln -sfn ../../../core $(VENV)/links/ioasid/core
	ln -sfn ../../../journal $(VENV)/links/ioasid/journal
	ln -sfn ../../../actors $(VENV)/links/ioasid/actors
	ln -sfn ../../../linux $(VENV)/links/ioasid/linux
	ln -sfn ../../../recorder $(VENV)/links/ioasid/recorder
	ln -sfn ../../../service $(VENV)/links/ioasid/service
	ln -sfn ../../../fleet $(VENV)/links/ioasid/fleet
	ln -sfn ../../../testing $(VENV)/links/ioasid/testing
endef

$(VENV)/.demos: pyproject.toml | $(BIN)/python
	$(call install,demos)
	@touch $(VENV)/.demos

$(VENV)/.serve: pyproject.toml | $(BIN)/python
	$(call install,top)
	@touch $(VENV)/.serve

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(call install,docs)
	@touch $(VENV)/.docs

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(call install,bench)
	@touch $(VENV)/.demos $(VENV)/.bench

# An environment of their own, for they bring much along. One that does not
# install here must not keep the others away: then they come one by one.
build/peers/.installed: pyproject.toml
	$(PYTHON) -m venv build/peers || $(PYTHON) -m venv --without-pip --clear build/peers
	$(PYTHON) -m pip --python build/peers/bin/python install --quiet --editable '.[bench]'
	$(PYTHON) -m pip --python build/peers/bin/python install --quiet --editable '.[peers]' || \
	sed -n '/^peers = /,/^]/s/^ *"\(.*[0-9]\)",$$/\1/p' pyproject.toml | while read -r peer; do \
		$(PYTHON) -m pip --python build/peers/bin/python install --quiet "$$peer" || true; done
	@touch build/peers/.installed

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(call install,test)
	@touch $(VENV)/.demos $(VENV)/.bench $(VENV)/.docs $(VENV)/.serve $(VENV)/.test

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(call install,dev)
	@touch $(VENV)/.demos $(VENV)/.bench $(VENV)/.docs $(VENV)/.serve $(VENV)/.test $(VENV)/.dev
