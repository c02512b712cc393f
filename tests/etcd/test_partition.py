"""Composers at three hosts, each with a member of etcd, whose network is parted: the part without a quorum grants nothing, and its holder stops
before anybody in the other part begins. What is on the disk tells that there were never two writers."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import mk9p.sync
from mk9p.errors import NineError
from mk9p.testing import child, until_true
from tests.etcd.cluster import Cluster, Member, running
from tests.etcd.network import Network, network

ROOT = Path(__file__).parent.parent.parent
ME = [sys.executable, "-m", "mk9p"]
FILE = "/k/k1/fs/data/log"
TTL = 3


class Lab:
    """Three composers, called h0, h1, h2, and a kernel that all of them reach, whatever happens to the network."""

    def __init__(self, folder: Path, net: Network, etcd: Cluster) -> None:
        self.folder, self.net, self.etcd = folder, net, etcd
        self.data = folder / "data"
        self.env = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "PYTHONPATH": str(ROOT)}

    def at(self, host: int) -> str:
        return f"unix!{self.folder}/h{host}"

    @contextmanager
    def serving(self) -> Iterator[None]:
        self.data.mkdir()
        (self.data / "log").write_text("")
        script = self.folder / "script"
        script.write_text(f"mount unix!{self.folder}/k1 /k/k1\n")
        with ExitStack() as stack:
            kernel = [*ME, "serve", "-l", f"unix!{self.folder}/k1", f"fs:{self.data}"]
            stack.enter_context(child(kernel, "listening", env=self.env, cwd=ROOT))
            for host in range(3):
                store = self.etcd.where(f"h{host}", ttl=TTL)
                command = [*self.net.inside(host), *ME, "compose", "--store", store, "-l", self.at(host), str(script)]
                stack.enter_context(child(command, "listening", env=self.env, cwd=ROOT))
            yield

    @property
    def tokens(self) -> list[int]:
        return [int(line) for line in (self.data / "log").read_text().split("\n") if line]


@contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    with network(3) as net:
        members = [
            Member(f"m{n}", net.address(n), 2379, 2380, folder / f"m{n}", around=net.inside(n)) for n in range(3)
        ]
        with running(Cluster(folder, members)) as etcd:
            made = Lab(folder, net, etcd)
            with made.serving():
                yield made


def code_of(ctl: "mk9p.sync.File", word: str) -> int:
    """Say a word to a ctl; return its errno, 0 for none."""
    try:
        ctl.pwrite(f"{word}\n".encode(), 0)
    except NineError as error:
        return error.errno
    return 0


def test_a_holder_that_is_cut_off_stops_before_another_begins_and_all_is_right_when_it_is_healed(
    tmp_path: Path,
) -> None:
    with lab(tmp_path) as it, ExitStack() as stack:
        here = stack.enter_context(mk9p.sync.connect(it.at(0)))
        mine = stack.enter_context(here.open("lease/clone", "r+"))
        assert code_of(mine, f"take {FILE} for 8") == 0
        file = stack.enter_context(here.open(FILE, "a"))
        n = int(mine.pread(99, 0))
        token = here.read(f"lease/{n}/status").split()[5]
        new = stack.enter_context(here.open("registry/new", "r+"))
        new.pwrite(b"web port 80\n", 0)
        it.net.part([1, 2], [0])
        cut = time.monotonic()
        waiting = [sys.executable, "-m", "tests.etcd.taker", it.at(1), FILE]
        taker = stack.enter_context(child(waiting, env=it.env, cwd=ROOT, stdout=subprocess.PIPE))
        # as long as its term lasts, the holder writes, although nobody can be asked
        last, refused = 0.0, 0
        while not refused:
            try:
                file.write(f"{token}\n".encode())
                last = time.monotonic()
            except NineError as error:
                refused = error.errno
            time.sleep(0.02)
        assert refused == errno.EIO
        assert last - cut > 4, "it stopped long before its term"
        other = stack.enter_context(here.open("lease/clone", "r+"))
        assert code_of(other, "take /k/k1/fs/data for 8") in (errno.EAGAIN, errno.EBUSY)
        assert here.read("registry/index") == "web port 80\n", "what was known is read on"
        assert taker.wait(60) == 0
        assert taker.stdout is not None
        theirs_began = float(taker.stdout.read())
        assert last < theirs_began
        assert it.tokens == sorted(it.tokens)
        assert len(set(it.tokens)) == 2
        it.net.heal()
        until_true(lambda: " h1" in here.read("lease/status") or "h1." in here.read("lease/status"))
        until_true(lambda: code_of(other, "take /k/k1/fs for 2") in (0, errno.EBUSY))
        print(f"cut, to the last write {last - cut:.2f} s, to the first of the other part {theirs_began - cut:.2f} s")


@pytest.mark.parametrize("seconds", [30])
def test_under_partitions_there_are_never_two_writers(tmp_path: Path, long: bool, seconds: int) -> None:
    with lab(tmp_path) as it, ExitStack() as stack:
        for n in range(6):
            words = [sys.executable, "-m", "tests.lease.contender", it.at(n % 3), FILE, str(n)]
            stack.enter_context(child(words, "contends", env=it.env, cwd=ROOT, stdout=subprocess.PIPE))
        end, parted = time.monotonic() + (600 if long else seconds), 0
        while time.monotonic() < end:
            alone = parted % 3
            time.sleep(3)
            before = len(it.tokens)
            it.net.part([host for host in range(3) if host != alone], [alone])
            parted += 1
            time.sleep(TTL + 4)
            until_true(lambda: len(it.tokens) > before)  # noqa: B023  # somebody goes on
            it.net.heal()
        tokens = it.tokens
    wrong = [at for at in range(1, len(tokens)) if tokens[at] < tokens[at - 1]]
    assert not wrong, f"two writers at {wrong}: {tokens}"
    print(f"{len(tokens)} writes, {len(set(tokens))} leases, {parted} partitions")
