# `make demo` and `make test` need only a Debian with Python 3.11, root and make: they install the rest, or say in one line what they may not install.
PYTHON ?= $(shell for p in /usr/bin/python3 python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# Debian packages: guests (qemu, busybox, zstd, gcc for user-mode Linux, iproute2 for its network), FUSE, and for the tests other people's clients and
# servers, and the names of services that net/cs asks for
GUESTS := qemu-system-x86 busybox-static zstd gcc libc6-dev iproute2 util-linux
FUSE := fuse3 libfuse3-dev pkg-config gcc libc6-dev python3-dev
STRANGERS := diod tshark curl dbench e2fsprogs acpica-tools netbase

PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
PINNED := $(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-annotate --custom-compile-command 'make requirements' pyproject.toml

.PHONY: setup demo test soak check coverage format lint types bench bench-fuse slower floods requirements dist clean
.DEFAULT_GOAL := check

setup: .venv/.ready

.venv/.ready: pyproject.toml .ci/packages .ci/build.txt .ci/requirements.txt
	@sh .ci/packages python3-venv $(GUESTS) $(FUSE)
	@test -x $(BIN)/python || { test -n "$(PYTHON)" || { echo "mk9p: no Python 3.11 or newer: apt-get install python3" >&2; exit 1; }; $(PYTHON) -m venv .venv; }
	@$(PIP) --require-hashes -r .ci/build.txt
	@$(PIP) --require-hashes --no-build-isolation -r .ci/requirements.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

# .ci/*.txt: every Python package that is installed here, with its version and its hashes. This takes the newest that pyproject.toml allows.
requirements: setup
	@$(PIP) --require-hashes -r .ci/pins.txt
	@$(PINNED) --group build -o .ci/build.txt
	@$(PINNED) --group pins -o .ci/pins.txt
	@$(PINNED) --extra fuse --extra fsspec --extra net --group test --group lint -o .ci/requirements.txt

demo: setup
	@$(BIN)/mk9p demo

test: setup
	@sh .ci/packages $(STRANGERS)
	@$(BIN)/python -m pytest -q

# the same tests with many more frames, kills and kinds of nonsense: an hour or more
soak: setup
	@sh .ci/packages $(STRANGERS)
	@MK9P_LONG=1 $(BIN)/python -m pytest -q

check: setup lint types coverage test

# tests cover every branch of the two rooms that everything else uses
coverage: setup
	@$(BIN)/python -m coverage run --branch --data-file=.venv/coverage --source=mk9p.wire,mk9p.session -m pytest -q tests/wire tests/test_session.py
	@$(BIN)/python -m coverage report --data-file=.venv/coverage --fail-under=100

format: setup
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lint: setup
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .

types: setup
	@$(BIN)/mypy

bench: setup
	@sh .ci/packages diod gcc libc6-dev
	@$(BIN)/python -m tests.bench

# a FUSE mount beside sshfs
bench-fuse: setup
	@sh .ci/packages sshfs openssh-sftp-server
	@$(BIN)/python -m tests.bench.fuse

# all benches, and what has become slower than what tests/bench/figures.json and docs/performance.md publish
slower: setup
	@sh .ci/packages diod gcc libc6-dev sshfs openssh-sftp-server
	@$(BIN)/python -m tests.bench.figures

# floods, and how long an honest client waits beside each
floods: setup
	@$(BIN)/python -m tests.bench.floods

# what is released: dist/, built and tried (docs/releasing.md)
dist: setup
	@sh .ci/wheel $(BIN)/python

clean:
	rm -rf .venv build dist
