"""Three members of a real etcd, which can be killed, started again, and stopped: `with Cluster(folder) as cluster`."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import attrs
import pytest

from mk9p.testing import until_true

# a heartbeat and an election that a busy machine can keep: with etcd's own figures each fault would cost seconds
FAST = ["--heartbeat-interval", "100", "--election-timeout", "1000"]


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@attrs.define(eq=False)
class Member:
    """One member: where it serves, and its process, if it has one."""

    name: str
    host: str
    port: int
    peer_port: int
    folder: Path
    around: list[str] = attrs.field(factory=list)
    """The command in which it runs: `ip netns exec …`."""
    pid: int = 0
    """Its process, which is no child of ours: one that a test starts again is no leftover of that test."""

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def ask(self, path: str, body: dict[str, Any], seconds: float = 2) -> dict[str, Any]:
        """Ask it by the gateway, without TLS, from where it is."""
        if self.around:
            words = ["curl", "-sS", "-m", str(seconds), "-d", json.dumps(body), f"http://{self.address}{path}"]
            done = subprocess.run([*self.around, *words], capture_output=True, text=True)
            if done.returncode:
                raise OSError(done.stderr)
            return dict(json.loads(done.stdout))
        request = Request(f"http://{self.address}{path}", json.dumps(body).encode())
        with urlopen(request, timeout=seconds) as answer:
            return dict(json.load(answer))

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        until_true(lambda: not self.runs)
        self.pid = 0

    def pause(self) -> None:
        """Stop it; return when none of its threads runs any more, which on a busy machine is later."""
        os.kill(self.pid, signal.SIGSTOP)
        until_true(lambda: all(_state(each) in "TX" for each in Path(f"/proc/{self.pid}/task").iterdir()))

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @property
    def runs(self) -> bool:
        """Whether it has a process that has not ended."""
        return self.pid != 0 and _state(Path(f"/proc/{self.pid}")) not in "ZX"


def _state(process: Path) -> str:
    """Return the letter of the state of a process, or of a thread: X if it is gone."""
    try:
        return process.joinpath("stat").read_text().rpartition(")")[2][1]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


@attrs.define(eq=False)
class Cluster:
    """Some members on this machine."""

    folder: Path
    members: list[Member]
    options: list[str] = attrs.field(factory=list)
    scheme: str = "http"

    @classmethod
    def of(cls, folder: Path, count: int = 3, **more: Any) -> "Cluster":
        """Return members on loopback, at free ports."""
        made = [Member(f"m{n}", "127.0.0.1", free_port(), free_port(), folder / f"m{n}") for n in range(count)]
        return cls(folder, made, **more)

    def where(self, name: str, **options: object) -> str:
        """Return what `--store` takes for a composer of that name."""
        more = "".join(f"&{key}={value}" for key, value in options.items())
        return f"etcd!{','.join(one.address for one in self.members)}?name={name}{more}"

    def start(self, member: Member) -> None:
        peers = ",".join(f"{one.name}=http://{one.host}:{one.peer_port}" for one in self.members)
        client, peer = f"{self.scheme}://{member.host}:{member.port}", f"http://{member.host}:{member.peer_port}"
        words = ["--name", member.name, "--data-dir", str(member.folder), "--initial-cluster", peers]
        words += ["--listen-client-urls", client, "--advertise-client-urls", client]
        words += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--unsafe-no-fsync"]
        log = self.folder / f"{member.name}.log"
        command = [*member.around, "etcd", *words, "--logger", "zap", *FAST, *self.options]
        begun = ["sh", "-c", 'log=$1; shift; "$@" >>"$log" 2>&1 </dev/null & echo $!', "sh", str(log), *command]
        member.pid = int(subprocess.run(begun, stdout=subprocess.PIPE, check=True).stdout)

    def leader(self) -> Member:
        """Return the member that leads, as soon as one does."""

        def found() -> Member | None:
            for member in self.members:
                with suppress(OSError):
                    said = member.ask("/v3/maintenance/status", {}, 1)
                    if said.get("leader") == said["header"]["member_id"]:
                        return member
            return None

        leader = until_true(found)
        assert leader is not None
        return leader

    def wipe(self) -> None:
        """Take everything away that is stored."""
        self.leader().ask("/v3/kv/deleterange", {"key": "AA==", "range_end": "AA=="})

    def end(self) -> None:
        for member in self.members:
            if member.pid:
                member.kill()


@contextmanager
def running(cluster: Cluster) -> Iterator[Cluster]:
    """Run the members while the block runs."""
    if shutil.which("etcd") is None:
        pytest.fail("no etcd: apt-get install etcd-server")
    try:
        for member in cluster.members:
            cluster.start(member)
        if cluster.scheme == "http":
            cluster.leader()
        yield cluster
    finally:
        cluster.end()


def compact(cluster: Cluster, members: Sequence[Member] = ()) -> int:
    """Let etcd forget all but the present revision, which is returned."""
    some = (members or cluster.members)[0]
    revision = some.ask("/v3/kv/range", {"key": "AA=="})["header"]["revision"]
    some.ask("/v3/kv/compaction", {"revision": revision, "physical": True})
    return int(revision)


def took(began: float) -> float:
    return time.monotonic() - began
