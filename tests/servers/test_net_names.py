"""net: cs, dns and ndb. What is resolved is what this machine resolves without asking anybody: its own names."""

import errno
import os
import socket
from pathlib import Path

import pytest
import trio

from mk9p.client import Client
from mk9p.servers.net import tree
from mk9p.testing import SOON
from tests.servers.calls import served
from tests.servers.trees import plant, read


async def ask(ns: Client, file: str, question: str, *, linux: bool = False) -> list[str]:
    """Write a question and read the answers: from the start as Plan 9 does, or from where the question ended as a descriptor of Linux does."""
    async with await ns.open(file, "r+") as f:
        await f.pwrite(question.encode(), 0)
        answers, at = [], len(question) if linux else 0
        while line := await f.pread(8192, at):
            answers.append(line.decode())
            at += len(line)
        return answers


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("tcp!127.0.0.1!8080", ["/net/tcp/clone 127.0.0.1!8080\n"]),
        ("tcp!localhost!http\n", ["/net/tcp/clone 127.0.0.1!80\n"]),
        ("udp!127.0.0.1!domain", ["/net/udp/clone 127.0.0.1!53\n"]),
        ("net!127.0.0.1!9", ["/net/tcp/clone 127.0.0.1!9\n", "/net/udp/clone 127.0.0.1!9\n"]),
        ("tcp!::1!9", ["/net/tcp/clone ::1!9\n"]),
        ("tcp!*!8080", ["/net/tcp/clone 8080\n"]),
        ("vsock!host!564", ["/net/vsock/clone 2!564\n"]),
        ("vsock!*!564", ["/net/vsock/clone 564\n"]),
    ],
)
async def test_cs(question: str, answers: list[str]) -> None:
    async with served() as ns:
        for linux in (False, True):
            found = await ask(ns, "cs", question, linux=linux)
            assert [line for line in found if "localhost" not in question or "127" in line] == answers


async def test_dns() -> None:
    async with served() as ns:
        assert "localhost ip 127.0.0.1\n" in await ask(ns, "dns", "localhost ip")
        assert await ask(ns, "dns", "localhost A") == await ask(ns, "dns", "localhost ip")
        try:
            name = socket.gethostbyaddr("127.0.0.1")[0]
        except OSError:
            pytest.skip("127.0.0.1 has no name on this machine")
        for question in ("127.0.0.1", "1.0.0.127.in-addr.arpa"):
            assert await ask(ns, "dns", f"{question} ptr") == [f"{question} ptr {name}\n"]


@pytest.mark.parametrize(
    ("file", "question", "number", "words"),
    [
        ("cs", "tcp!127.0.0.1", errno.EINVAL, "usage: NETWORK!HOST!SERVICE"),
        ("cs", "tcp!!80", errno.EINVAL, "usage"),
        ("cs", "il!127.0.0.1!80", errno.EINVAL, "no network 'il'"),
        ("cs", "tcp!127.0.0.1!no-such-service", errno.EINVAL, "no such service"),
        ("cs", "vsock!here!1", errno.EINVAL, "bad CID"),
        ("cs", f"tcp!{'a' * 300}!80", errno.EHOSTUNREACH, "dns: no such name"),
        ("dns", "localhost", errno.EINVAL, "usage: NAME TYPE"),
        ("dns", "localhost mx", errno.EOPNOTSUPP, "no type 'mx'"),
        ("dns", "a" * 300 + " ip", errno.EHOSTUNREACH, "dns: no such name"),
    ],
)
async def test_wrong_questions(file: str, question: str, number: int, words: str) -> None:
    async with served(version="9P2000") as ns:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            await ask(ns, file, question)
        assert words in str(caught.value)
    async with served() as ns, await ns.open(file, "r+") as f:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            await f.pwrite(question.encode(), 0)
        assert caught.value.errno == number
        assert await f.pread(100, 0) == b""  # no answer is left from before


async def test_each_open_file_has_its_own_question() -> None:
    async with served() as ns, await ns.open("cs", "r+") as one, await ns.open("cs", "r+") as two:
        await one.pwrite(b"tcp!127.0.0.1!1", 0)
        await two.pwrite(b"tcp!127.0.0.1!2", 0)
        assert await one.pread(100, 0) == b"/net/tcp/clone 127.0.0.1!1\n"
        assert await two.pread(100, 0) == b"/net/tcp/clone 127.0.0.1!2\n"
        await one.pwrite(b"tcp!127.0.0.1!3", 0)
        assert await one.pread(100, 0) == b"/net/tcp/clone 127.0.0.1!3\n"
        assert [await two.pread(5, 0), await two.pread(100, 5)] == [b"/net/", b"tcp/clone 127.0.0.1!2\n"]


async def test_ndb_says_who_resolves_names(tmp_path: Path) -> None:
    plant(tmp_path, {"etc/resolv.conf": "# mine\nnameserver 10.0.0.53\nnameserver fd00::53\nsearch lab.example"})
    with trio.fail_after(SOON):
        async with tree(root=str(tmp_path)) as net:
            text = await read(net, "ndb")
    words = text.split()
    assert f"sys={os.uname().nodename}" in words
    assert words[-3:] == ["dns=10.0.0.53", "dns=fd00::53", "dnsdomain=lab.example"]
    assert not text.startswith("\t")
    assert all(line.startswith("\t") for line in text.splitlines()[1:])
