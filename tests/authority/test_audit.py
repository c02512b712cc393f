"""`auth/log`: who did what, and nothing that is a secret; nobody fills it; and it is also in files and in the journal."""

import errno
import logging
import os
import socket
from pathlib import Path
from time import process_time
from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel

from mk9p.auth import NONE, ROOT, Principal
from mk9p.authority import sinks
from mk9p.authority.audit import WORDS, Audit, commands, result
from mk9p.authority.book import Book
from mk9p.authority.deciding import Authority
from mk9p.authority.files import Auth
from mk9p.authority.policy import Rules
from mk9p.authority.sinks import sink
from mk9p.client import connect
from mk9p.errors import NineError
from mk9p.ktext import split_lines, split_words
from mk9p.testing import SOON, Memory, serving, serving_at, until
from mk9p.testing.serving import address_of
from mk9p.tree import Ctl, Dir, Handle, Open, settle
from mk9p.tree import split as words_of

BOB = Principal("bob", 1000, proof="peercred")


@attrs.define
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def said(audit: Audit) -> list[list[str]]:
    """Return the lines of a log, without numbers and times."""
    return [words_of(line.decode())[2:] for line in audit.log.lines]


async def refused(what: Any) -> int:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - which is looked at by who asks
        await what
    return caught.value.errno or 0


async def test_what_is_done_and_what_is_refused_is_written_down() -> None:
    done: list[str] = []

    async def later(what: str) -> None:
        await trio.lowlevel.checkpoint()
        if what == "fail":
            raise NineError(errno.EBUSY)

    files = {
        "ctl": Ctl({"exec": lambda *words: done.append(words[0]), "env": done.append, "wait": later}, mode=0o666),
        "data": Memory({"mine": "x"}, mode=0o755),
    }
    authority = Authority()
    with trio.fail_after(SOON):
        async with serving(Dir(files), authority=authority) as server:
            async with connect(address_of(server), uname="nobody") as client:
                await client.write("ctl", "exec /bin/sh -c 'echo secret'\nenv PASSWORD=secret\n\n")
                for word in ("wait", "wait fail", "nonsense secret"):
                    assert await refused(client.write("ctl", word)) in (errno.EINVAL, errno.EBUSY)
                await client.write("ctl", "wait slowly")
                assert await refused(client.remove("data/mine")) == errno.EACCES
            with pytest.raises(FileNotFoundError):
                async with connect(address_of(server), uname="root", aname="nowhere"):
                    pass
    lines = said(authority.audit)
    who, via = "nobody", lines[0][1]
    assert via.startswith("private:")
    assert lines == [
        [who, via, "attach", "/", "ok"],
        [who, via, "exec:/bin/sh", "/ctl", "ok"],
        [who, via, "env", "/ctl", "ok"],
        [who, via, "wait", "/ctl", "EINVAL"],
        [who, via, "wait", "/ctl", "EBUSY"],
        [who, via, "nonsense", "/ctl", "EINVAL"],
        [who, via, "wait", "/ctl", "ok"],
        [who, via, "remove", "/data/mine", "EACCES"],
        ["root", via, "attach", "nowhere", "ENOENT"],
    ]
    assert b"secret" not in b"".join(authority.audit.log.lines)


@pytest.mark.parametrize(
    ("written", "noted"),
    [
        ("exec /bin/sh -c 'a\nb'\n", ["exec:/bin/sh"]),
        ("mount -c tls!host!5640 /k/k3 secret", ["mount:/k/k3"]),
        ("mount 'exec!ssh -o pass=secret' /k/k3\nbind -a /k/k3 /n", ["mount:/k/k3", "bind:/n"]),
        ("unmount /n", ["unmount:/n"]),
        ("bind k/k3 n/k3", ["bind:n/k3"]),
        ("grant /k/k2 ro", ["grant:/k/k2"]),
        ("narrow SECRETTEXT r", ["narrow"]),
        ("revoke 24b46d64bd96183e", ["revoke:24b46d64bd96183e"]),
        ("revoke En0KEwoEc2Vjcm.V0EgE", ["revoke"]),
        ("mount -w 5 'exec!ssh -o pass=secret' /k/k3", ["mount:/k/k3"]),
        ("mount -cuw 5 'exec!ssh -o pass=secret' /k/k3 secret", ["mount:/k/k3"]),
        ("mount -w 'exec!ssh -o pass=secret' /k/k3", ["mount"]),
        ("mount /k/k3 'exec!ssh -o pass=secret'", ["mount"]),
        ("unmount 'exec!ssh -o pass=secret'", ["unmount"]),
        ("En0KEwoEc2Vjcm.V0EgE", ["-"]),
        ("PASSWORD=secret", ["-"]),
        ("env TOKEN=secret", ["env"]),
        ("'unended", ["-"]),
        ("", ["-"]),
        ("exec", ["exec"]),
        ("\n".join(["do"] * 100), ["do"] * 100),
    ],
)
def test_of_a_command_only_what_is_no_secret_is_written_down(written: str, noted: list[str]) -> None:
    assert commands(written.encode()) == noted


def test_bytes_that_are_no_text_are_no_command() -> None:
    assert commands(b"\xff\xfe") == ["-"]


def test_nobody_buries_a_command_behind_others_or_before_a_wrong_one() -> None:
    assert commands(b"list\n" * 20 + b"halt\n") == [*["list"] * 20, "halt"]
    assert commands(b"halt\nlist 'x") == ["halt", "-"]
    assert commands(b"list\n" * (WORDS + 5)) == [*["list"] * WORDS, "..."]


@pytest.mark.parametrize("text", [b"s\n", b"\n", b" ", b"'\n", b" -a", b" -w", b"a' '\n"])
def test_a_write_is_read_for_the_log_in_a_moment(text: bytes) -> None:
    began = process_time()
    for before in (b"mount", b"list\n", b""):
        commands(before + text * ((1 << 20) // len(text)))
    assert process_time() - began < 2


def test_a_line_is_a_line_whatever_somebody_is_called() -> None:
    audit = Audit()
    audit.note(Principal("a\nb 'c'", 1, proof="private"), "unix!x", "open", "/x\n7 7 root\u202e" + "y" * 9999, None)
    (line,) = audit.log.lines
    assert line.count(b"\n") == 1
    assert len(line) < 2000
    assert said(audit)[0][:2] == ["a\\nb 'c'", "private:unix!x"]


def test_nobody_fills_the_log_with_refusals_and_what_is_lost_is_told() -> None:
    clock = Clock()
    lost: list[int] = []
    audit = Audit(clock=clock, on_lost=lambda: lost.append(1))
    error = NineError(errno.EACCES)
    for _ in range(1000):
        audit.note(BOB, "unix!pid_1", "walk", "/x", error)
    audit.note(BOB, "unix!pid_1", "exec:/bin/sh", "/ctl", None)  # what is done is not hidden by what is refused
    audit.note(ROOT, "fd", "walk", "/x", error)
    lines = said(audit)
    assert [line[2] for line in lines] == ["walk"] * 50 + ["exec:/bin/sh", "walk"]
    assert (lost, audit.lossy) == ([1], True)
    audit.tell_lost()
    assert len(said(audit)) == len(lines)
    clock.now += 0.2
    audit.tell_lost()
    assert said(audit)[-1] == ["bob", "peercred:unix!pid_1", "lost", "-", "950"]
    assert not audit.lossy
    audit.note(BOB, "unix!pid_1", "walk", "/y", error)
    assert said(audit)[-1][2:4] == ["walk", "/y"]


def test_principals_that_are_forgotten_lose_no_count() -> None:
    audit = Audit(clock=Clock())
    error = NineError(errno.EACCES)
    for _ in range(60):
        audit.note(BOB, "x", "walk", "/", error)
    for number in range(2000):
        audit.note(attrs.evolve(NONE, name=f"n{number}"), "x", "walk", "/", error)
    assert ["bob", "peercred:x", "lost", "-", "10"] in said(audit)


async def test_what_is_lost_is_told_though_nobody_comes() -> None:
    authority = Authority()
    with trio.fail_after(SOON):
        async with serving(Dir({}), authority=authority):
            for _ in range(60):
                authority.audit.note(BOB, "x", "walk", "/", NineError(errno.EACCES))
            await until(lambda: said(authority.audit)[-1][2] == "lost")


def test_the_lines_are_in_a_file_that_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "SIZE", 1000)
    file = tmp_path / "log"
    with sink([str(file)]) as put:
        audit = Audit(sinks=[put])
        for number in range(40):
            audit.note(BOB, "unix!pid_1", "attach", f"/{number}", None)
    files = {each.name: each for each in tmp_path.iterdir()}
    assert set(files) == {"log", "log.1", "log.2"} | set(list(files)[3:])
    assert all(each.stat().st_mode & 0o777 == 0o600 for each in files.values())
    text = [each.read_text() for each in files.values()]
    lines = sorted((line for part in text for line in split_lines(part)), key=lambda line: int(split_words(line)[0]))
    assert [split_words(line)[5] for line in lines] == [f"/{number}" for number in range(40)]
    assert all(len(part) <= 1000 for part in text)


def test_a_file_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), sink([str(tmp_path / "none" / "log")]):
        pass


def test_a_full_disk_is_told_once_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    if not os.path.exists("/dev/full"):
        pytest.fail("there is no /dev/full")
    with sink(["/dev/full"]) as put:
        for _ in range(20):
            put("line")
    assert sum("cannot be written to /dev/full" in record.getMessage() for record in caplog.records) == 1


def test_the_lines_are_in_the_journal(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        with sink(["journal"], path) as put:
            Audit(sinks=[put]).note(BOB, "unix!pid_1", "attach", "/", None)
            fields = dict(line.partition("=")[::2] for line in split_lines(journal.recv(65536).decode()))
    assert fields["MESSAGE"].endswith(" bob peercred:unix!pid_1 attach / ok")
    assert (fields["SYSLOG_IDENTIFIER"], fields["PRIORITY"]) == ("mk9p-audit", "6")


def test_the_journal_may_come_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = str(tmp_path / "socket")
    caplog.set_level(logging.WARNING)
    with sink(["journal"], path) as put:
        put("lost")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
            while "cannot be written to the journal" not in caplog.text:
                os.sched_yield()
            journal.bind(path)
            journal.settimeout(SOON)
            while True:
                put("there")
                if b"MESSAGE=there\n" in journal.recv(65536):
                    break


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NineError(errno.EBUSY), "EBUSY"),
        (ValueError("secret"), "EINVAL"),
        (OSError("odd", "words"), "EIO"),
        (OSError([], "words"), "EIO"),
        (OSError(99999, "words"), "EIO"),
        (OSError("words"), "EIO"),
    ],
)
def test_what_came_of_it_is_one_word_whatever_the_error_is(error: Exception, said: str) -> None:
    assert result(error) == said


async def opened(audit: Audit, ctl: Ctl) -> Handle:
    return audit.watched(await settle(ctl.open(Open(BOB, write=True))), BOB, "fd", "/ctl")


async def test_a_watched_file_answers_as_it_would_alone() -> None:
    audit = Audit()
    ctl: Any = Ctl({"say": lambda word: f"{word}\n"})
    handle = await opened(audit, ctl)
    assert await settle(handle.write(0, memoryview(b"say this"))) == 8
    assert bytes(await settle(handle.read(8, 100))) == b"this\n"
    assert said(audit) == [["bob", "peercred:fd", "say", "/ctl", "ok"]]


async def test_a_refusal_is_one_line_although_a_client_asks_again_for_its_words() -> None:
    authority = Authority()
    async with serving_at("tcp!127.0.0.1!0", Dir({}), authority=authority) as host:
        for _ in range(2):
            with pytest.raises(OSError, match="takes no capabilities"):
                async with connect(host.address, cap="text"):
                    raise AssertionError("it came in")
    assert [line[2:] for line in said(authority.audit)] == 2 * [["attach", "cap!...", "EACCES"]]


async def test_a_text_that_is_written_whole_is_one_line() -> None:
    authority = Authority(book=Book(Rules.parse("", lambda name: 0)))
    auth = Auth(authority)
    async with (
        serving(Dir({"auth": auth.tree()}), authority=authority) as server,
        connect(address_of(server), uname="root") as client,
    ):
        await client.write("auth/policy", "# one\nallow * r /**\ndeny * w /**\n")
        with pytest.raises(OSError, match="line 2"):
            await client.write("auth/policy", "allow * r /**\nallow * x /**\n")
    assert [line[2:] for line in said(authority.audit)][-2:] == [
        ["policy", "/auth/policy", "ok"],
        ["policy", "/auth/policy", "EINVAL"],
    ]
