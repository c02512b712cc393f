"""Programs contend for a file while programs, the composer and the kernel are killed. What is on the disk tells that there were never two writers."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import attrs
import pytest

from mk9p.testing import SOON, child
from tests.etcd.cluster import Cluster, Member, running

ME = [sys.executable, "-m", "mk9p"]
ROOT = Path(__file__).parent.parent.parent
WORKERS = 4


@pytest.mark.parametrize("kept", ["file", "etcd"])
def test_there_are_never_two_writers_whatever_is_killed(tmp_path: Path, long: bool, kept: str) -> None:
    with ExitStack() as stack:
        etcd = stack.enter_context(running(Cluster.of(tmp_path))) if kept == "etcd" else None
        contend(tmp_path, 600.0 if long else 20.0, etcd)


def contend(tmp_path: Path, seconds: float, etcd: Cluster | None) -> None:
    """Let programs contend at one composer, or at two that have one etcd, whose members are killed and stopped, one at a time."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "log").write_text("")
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
    script = tmp_path / "script"
    script.write_text(f"mount unix!{tmp_path}/k1 /k/k1\n")
    commands = {"kernel": ([*ME, "serve", "-l", f"unix!{tmp_path}/k1", f"fs:{data}"], "listening")}
    composers = ["composer"] if etcd is None else ["composer a", "composer b"]
    for name in composers:
        store = [] if etcd is None else ["--store", etcd.where(name[-1])]
        commands[name] = ([*ME, "compose", *store, "-l", f"unix!{tmp_path}/{name}", str(script)], "listening")
    for n in range(WORKERS):
        address = f"unix!{tmp_path}/{composers[n % len(composers)]}"
        words = [sys.executable, "-m", "tests.lease.contender", address, "/k/k1/fs/data/log", str(n)]
        commands[f"worker {n}"] = (words, "contends")
    random, done = Random(7), dict.fromkeys(commands, 0)
    with ExitStack() as stack:
        members = Members(etcd.members, etcd, random) if etcd is not None else None
        programs = {name: stack.enter_context(_again(*command, env)) for name, command in commands.items()}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(random.random() * 1.5)
            name = random.choice([*commands, *(f"worker {n}" for n in range(WORKERS))])
            programs[name].kill()
            programs[name].start()
            done[name] += 1
            if members is not None:
                members.fault()
        log = (data / "log").read_text()
    tokens = [int(line) for line in log.split("\n") if line]
    assert len(tokens) > 30, log
    assert len(set(tokens)) > 3, f"few had it: {sorted(set(tokens))}"
    wrong = [at for at in range(1, len(tokens)) if tokens[at] < tokens[at - 1]]
    assert not wrong, f"two writers at {wrong}: {tokens}; killed {done}"
    more = "" if members is None else f", members {members.done}"
    print(f"{len(tokens)} writes, {len(set(tokens))} leases, killed {done}{more}")


@attrs.define
class Members:
    """Members of etcd, of which at most one is killed or stopped."""

    members: list[Member]
    cluster: Cluster
    random: Random
    ill: Member | None = None
    done: dict[str, int] = attrs.field(factory=lambda: {"killed": 0, "stopped": 0})

    def fault(self) -> None:
        """Let one that is ill be well again, or now and then another one ill."""
        if self.ill is not None:
            if self.ill.pid:
                self.ill.resume()
            else:
                self.cluster.start(self.ill)
            self.ill = None
        elif self.random.random() < 0.3:
            self.ill = self.random.choice(self.members)
            how = self.random.choice(["killed", "stopped"])
            self.ill.kill() if how == "killed" else self.ill.pause()
            self.done[how] += 1


class Again:
    """A process that can be killed and started again."""

    def __init__(self, command: list[str], says: str, env: dict[str, str]) -> None:
        self.command, self.says, self.env = command, says, env
        self.stack = ExitStack()
        self.start()

    def start(self) -> None:
        pipes = {"stdout": subprocess.PIPE} if self.says == "contends" else {"stderr": subprocess.PIPE}
        self.process = self.stack.enter_context(child(self.command, self.says, env=self.env, cwd=ROOT, **pipes))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(SOON)
        self.stack.close()


@contextmanager
def _again(command: list[str], says: str, env: dict[str, str]) -> Iterator[Again]:
    made = Again(command, says, env)
    try:
        yield made
    finally:
        made.stack.close()
