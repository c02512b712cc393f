"""`stats` as `mk9p serve` and `mk9p compose` have it, and the line of a refused connection as it stands in their logs."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socket

from prometheus_client.parser import text_string_to_metric_families

from mk9p import connect
from mk9p.client import Client
from mk9p.testing import SOON
from mk9p.tree import split
from tests.servers.trees import names

ME = [sys.executable, "-m", "mk9p"]


@contextmanager
def daemon(address: str, command: str, *words: str) -> Iterator[list[str]]:
    """Run a daemon that listens at an address; gives the lines that it has said, all of them at the end."""
    said: list[str] = []
    with subprocess.Popen([*ME, command, "-l", address, *words], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                said.append(line)
                if line.startswith(f"mk9p: {address}: "):
                    break
            yield said
        finally:
            process.terminate()
            said += process.stderr.read().splitlines()
            assert process.wait() == 0, said


async def messages(client: Client, path: str = "stats/messages") -> dict[str, list[int]]:
    return {name: [*map(int, rest)] for name, *rest in map(split, (await client.read(path)).splitlines())}


def grown(before: dict[str, list[int]], after: dict[str, list[int]]) -> dict[str, list[int]]:
    """Return count, errors and bytes in and out that came to each kind of message."""
    none = [0] * 4
    both = {name: zip(row[:4], before.get(name, none), strict=False) for name, row in after.items()}
    return {name: [b - a for b, a in pairs] for name, pairs in both.items()}


async def test_a_kernels_own(tmp_path: Path) -> None:
    address = f"unix!{tmp_path}/s"
    with daemon(address, "serve", "host"):
        async with connect(address) as client:
            assert await names(client) == ["ctl", "status", "events", "error", "stats", "auth"]
            one, two = await messages(client), await messages(client)
            for _ in range(20):
                await client.stat("status")
            three = await messages(client)
            looking, all_ = grown(one, two), grown(two, three)
            assert all_["getattr"] == [looking["getattr"][0] + 20, 0, 20 * 19, 20 * 160]
            assert all_["walk"][0] == looking["walk"][0] + 20
            assert all_["clunk"][0] == looking["clunk"][0] + 20
            (line,) = (await client.read("stats/clients")).splitlines()
            assert split(line)[1].startswith("unix!pid_")
            families = {family.name for family in text_string_to_metric_families(await client.read("stats/prometheus"))}
            assert {"mk9p_requests", "mk9p_request_duration_seconds", "mk9p_client_requests"} <= families
            await client.write("stats/ctl", "reset")
            assert (await messages(client))["walk"][0] < 5


async def test_a_namespaces_own_and_its_kernels(tmp_path: Path) -> None:
    kernel, address = f"unix!{tmp_path}/s", f"unix!{tmp_path}/ns"
    (tmp_path / "ns.txt").write_text(f"mount {kernel} /k/me\n")
    with daemon(kernel, "serve", "host"), daemon(address, "compose", f"{tmp_path}/ns.txt"):
        async with connect(address) as client:
            async with await client.open("k/me/status") as file:
                there = await messages(client, "k/me/stats/messages")
                here, text = await messages(client), b""
                for _ in range(30):
                    text = await file.pread(4096, 0)
                now_here = await messages(client)
                now_there = await messages(client, "k/me/stats/messages")
            assert text.startswith(b"name ")
            looks, passed = grown(here, now_here)["read"], grown(there, now_there)["read"]
            assert looks[0] >= 30
            assert passed[0] >= 30
            latency = [split(line) for line in (await client.read("stats/latency")).splitlines()]
            (relayed,) = (line for line in latency if line[:2] == ["read", "relayed"])
            assert int(relayed[2]) >= 30
            assert sum(int(pair.split(":")[1]) for pair in relayed[4:]) == int(relayed[2])
            assert {"me.status", "me.messages"} <= set(await names(client, "all/stats"))


def test_a_refused_connection_is_one_line_of_the_log(tmp_path: Path) -> None:
    address = f"unix!{tmp_path}/s"
    with (
        daemon(address, "serve", "--limit", "connections=1", "host") as said,
        socket(AF_UNIX, SOCK_STREAM) as first,
        socket(AF_UNIX, SOCK_STREAM) as second,
    ):
        for sock in (first, second):
            sock.settimeout(SOON)
            sock.connect(f"{tmp_path}/s")
        assert second.recv(1) == b""
        first.sendall(b"hello, is anybody there?\n")
        assert first.recv(1) == b""
    words = [shlex.split(line) for line in said if line.startswith("mk9p: WARNING: refused ")]
    found = [dict(pair.split("=", 1) for pair in line[3:]) for line in words]
    assert [one["why"] for one in found] == ["connections", "protocol"]
    assert all(re.fullmatch(r"unix!pid_\d+", one["from"]) for one in found)
    assert found[0] == {
        "why": "connections",
        "from": found[0]["from"],
        "uid": found[0]["uid"],
        "user": "-",
        "text": "all 1 connections are in use",
    }
