# `make demo` and `make test` need only a Debian with Python 3.11, root and make: they install the rest, or say in one line what they may not install.
PYTHON ?= $(shell for p in /usr/bin/python3 python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# Debian packages: guests (qemu, busybox, zstd, gcc for user-mode Linux, iproute2 for its network), FUSE, and for the tests other people's clients and
# servers, shells, and the names of services that net/cs asks for
GUESTS := qemu-system-x86 busybox-static zstd gcc libc6-dev iproute2 util-linux
FUSE := fuse3 libfuse3-dev pkg-config gcc libc6-dev python3-dev
STRANGERS := diod tshark curl dbench e2fsprogs acpica-tools netbase zsh fish tmux openssl mmdebstrap lintian man-db etcd-server systemd \
	libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients
# the browser of the tests of the live page
BROWSER := chromium

PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
PINNED := $(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-annotate --custom-compile-command 'make requirements' pyproject.toml

.PHONY: terminal setup demo demo-driver test soak check coverage format lint types bench bench-fuse slower floods requirements dist pyz deb docs picture clean
.DEFAULT_GOAL := check

setup: .venv/.ready

.venv/.ready: pyproject.toml .ci/packages .ci/build.txt .ci/requirements.txt
	@sh .ci/packages python3-venv $(GUESTS) $(FUSE)
	@test -x $(BIN)/python || { test -n "$(PYTHON)" || { echo "mk9p: no Python 3.11 or newer: apt-get install python3" >&2; exit 1; }; $(PYTHON) -m venv .venv; }
	@sh .ci/told "installing what builds Python packages" $(PIP) --require-hashes -r .ci/build.txt
	@sh .ci/told "installing Python packages into .venv" env PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) --require-hashes --no-build-isolation -r .ci/requirements.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

# .ci/*.txt: every Python package that is installed here, with its version and its hashes. This takes the newest that pyproject.toml allows.
requirements: setup
	@$(PIP) --require-hashes -r .ci/pins.txt
	@$(PINNED) --group build -o .ci/build.txt
	@$(PINNED) --group pins -o .ci/pins.txt
	@$(PINNED) --extra fuse --extra fsspec --extra net --extra caps --extra tls --extra web --extra terminal --extra etcd --extra multikernel --extra wasm --group test --group lint --group docs -o .ci/requirements.txt

# xterm.js for the consoles of the live page, if there is npm: it goes into what is built, and git does not see it
terminal:
	@sh .ci/terminal

demo: setup
	@$(BIN)/mk9p demo

# a kernel that has only a USB stick and a network card panics, and its user goes on
demo-driver: setup
	@sh .ci/packages e2fsprogs
	@$(BIN)/mk9p demo driver

test: setup
	@sh .ci/packages $(STRANGERS) $(BROWSER)
	@$(BIN)/python -m tests.sides --maxfail=20 --durations=10 -o faulthandler_timeout=300

# the same tests with many more frames, kills and kinds of nonsense: four hours on two CPUs, and nothing else beside it; SIDE=leases: a part of it
soak: setup
	@sh .ci/packages $(STRANGERS) $(BROWSER)
	@MK9P_LONG=1 $(BIN)/python -m tests.sides $(if $(SIDE),--side "$(SIDE)")

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

# dist/mk9p.pyz: one file that any Python from 3.11 on runs, with nothing installed
pyz: setup
	@$(BIN)/python .ci/pyz.py dist/mk9p.pyz

# build/site: the pages of docs/ for a browser
docs: setup
	@$(BIN)/python -m sphinx -q -W --keep-going -d build/trees docs build/site
	@echo build/site/index.html

# docs/page.svg: README's picture, drawn from the live page as Chromium shows it
picture: setup
	@sh .ci/packages $(BROWSER)
	@$(BIN)/python .ci/picture.py docs/page.svg

# dist/*.deb: mk9p and its services for Debian 12 and newer
deb: setup
	@$(BIN)/python .ci/deb.py dist

clean:
	rm -rf .venv build dist
