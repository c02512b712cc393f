"""`mk9p run` from outside: it ends when it is told to and loses nothing before, whatever its standard descriptors are; its errors are one line."""

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from mk9p.clients.run import ANSWER, HURRY
from mk9p.testing import SOON, child, serving_at
from mk9p.tree import Dir, Stream

ME = [sys.executable, "-m", "mk9p"]


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve this kernel's commands from a process of their own; gives where, and the process."""
    where = f"unix!{folder / 'socket'}"
    with child([*ME, "serve", "-l", where, "cmd", "host"], "listening") as process:
        yield where, process


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("served")) as (where, _):
        yield where


def run(served: str, *words: str, **options: Any) -> subprocess.CompletedProcess[Any]:
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    if "input" in options:
        del options["stdin"]
    return subprocess.run([*ME, "-a", served, "run", *words], timeout=SOON, **options)


@contextmanager
def started(served: str, *words: str, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    process = subprocess.Popen([*ME, "-a", served, "run", *words], **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=SOON)


def until_full(descriptor: int) -> None:
    """Wait until a pipe has no room: poll(2) tells that of its end for writing."""
    end = time.monotonic() + SOON
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    while poll.poll(0):
        assert time.monotonic() < end, "it never became full"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_ends_when_it_is_told_though_nobody_takes_its_output(served: str, number: signal.Signals) -> None:
    reader, writer = os.pipe()
    try:
        with started(served, "/", "--", "yes", stdout=writer) as process:
            until_full(writer)
            process.send_signal(number)
            assert process.wait(SOON) == 128 + number
    finally:
        os.close(reader)
        os.close(writer)


def test_told_twice_it_leaves_a_command_that_waits_to_get_rid_of_its_output(served: str) -> None:
    reader, writer = os.pipe()
    try:
        with started(served, "/", "--", "sh", "-c", "trap '' TERM; yes", stdout=writer) as process:
            until_full(writer)
            process.send_signal(signal.SIGTERM)
            end = time.monotonic() + SOON
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
                process.send_signal(signal.SIGTERM)
            assert process.wait(SOON) in (128 + signal.SIGTERM, -signal.SIGTERM)  # one may come while it is ending
    finally:
        os.close(reader)
        os.close(writer)


def test_it_ends_with_its_server_though_nobody_takes_its_output(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        with serving(tmp_path) as (where, server), started(where, "/", "--", "yes", stdout=writer) as process:
            until_full(writer)
            server.kill()
            assert process.wait(SOON) == 1
            assert process.stderr is not None
            said = process.stderr.read().decode()
            assert said.startswith("mk9p run: ")
            assert said.count("\n") == 1
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("words", [("sleep", "1000"), ("cat",), ("yes",)])
def test_a_server_that_goes_is_one_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    with (
        serving(tmp_path) as (where, server),
        started(where, "/", "--", "sh", "-c", 'echo ready; exec "$@"', "sh", *words, stdin=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        server.kill()
        while process.stdout.read(65536):
            pass
        said = process.stderr.read().decode()
        assert process.wait(SOON) == 1
    assert (said.startswith("mk9p run: "), said.count("\n")) == (True, 1), said


def test_what_is_not_blocking_loses_nothing(served: str) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with started(served, "/", "--", "seq", "1", "200000", stdout=writer) as process:
        until_full(writer)
        os.close(writer)
        with open(reader, "rb") as file:
            content = file.read()
        assert process.wait(SOON) == 0
    assert content == b"".join(b"%d\n" % n for n in range(1, 200001))


def test_input_that_is_not_blocking_is_waited_for(served: str) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with started(served, "/", "--", "sh", "-c", "echo ready; cat", stdin=reader) as process:
        os.close(reader)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.write(writer, b"hello\n")
        os.close(writer)
        assert (process.stdout.read(), process.wait(SOON)) == (b"hello\n", 0)


def test_descriptors_that_cannot_be_polled(served: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"from a file\n" * 20000)
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as to:
        assert run(served, "/", "--", "cat", stdin=source, stdout=to).returncode == 0
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ('"$@" echo x >&-', 1, "mk9p run: standard output: Bad file descriptor\n"),
        ('"$@" true >&- 2>&-', 0, ""),
        ('"$@" sh -c "exit 3" <&- >&- 2>&-', 3, ""),
        ('"$@" sh -c "cat; echo end" <&-', 0, "end\n"),
        ('"$@" echo x >/dev/full', 1, "mk9p run: standard output: No space left on device\n"),
    ],
)
def test_descriptors_that_are_closed_or_of_no_use(served: str, script: str, status: int, said: str) -> None:
    words = ["sh", "-c", script, "sh", *ME, "-a", served, "run", "/", "--"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SOON)
    assert (done.returncode, done.stdout + done.stderr) == (status, said)


def test_who_takes_no_more_output_ends_the_command(served: str) -> None:
    for command in ("yes", "trap '' PIPE; while echo y; do :; done 2>/dev/null; exit 141"):
        with started(served, "/", "--", "sh", "-c", command) as process:
            assert process.stdout is not None
            process.stdout.read(2)
            process.stdout.close()
            assert process.wait(SOON) == 128 + signal.SIGPIPE
            process.stdout = None


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["no-such-program"], 127, "no-such-program: No such file or directory"),
        (["/no/such/program"], 127, "/no/such/program: No such file or directory"),
        (["/proc/version"], 126, "/proc/version: permission denied"),
        (["/"], 126, "/: permission denied"),
        (["sh", "-c", "exit 7"], 7, ""),
        (["sh", "-c", "kill -TERM $$"], 143, ""),
    ],
)
def test_exit_statuses_are_those_of_a_shell(served: str, words: list[str], status: int, said: str) -> None:
    done = run(served, "/", "--", *words)
    assert (done.returncode, done.stderr.decode()) == (status, f"mk9p run: {said}\n" if said else "")


def test_a_directory_that_is_not_there_is_not_a_program_that_is_not_there(served: str) -> None:
    done = run(served, "-d", "/no/such", "/", "--", "true")
    assert (done.returncode, done.stderr) == (1, b"mk9p run: dir /no/such: No such file or directory\n")


def test_without_input_a_loop_keeps_its_own(served: str) -> None:
    words = ["sh", "-c", 'while read -r line; do echo "$line"; "$@"; done', "sh"]
    words += [*ME, "-a", served, "run", "-n", "/", "--", "cat"]
    done = subprocess.run(words, input=b"a\nb\nc\n", stdout=subprocess.PIPE, timeout=SOON)
    assert (done.returncode, done.stdout) == (0, b"a\nb\nc\n")


def test_a_terminal_that_is_not_there(served: str) -> None:
    done = run(served, "-t", "/", "--", "true", start_new_session=True)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"mk9p run: there is no terminal here")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(("signals", "most"), [(1, ANSWER), (2, HURRY)])
def test_a_kernel_that_stands_still_keeps_nobody_who_is_told_to_end(tmp_path: Path, signals: int, most: float) -> None:
    with (
        serving(tmp_path) as (where, server),
        started(where, "/", "--", "sh", "-c", "echo ready; exec sleep 1000") as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        server.send_signal(signal.SIGSTOP)
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)  # two that come in one moment are one
        start = time.monotonic()
        status = process.wait(SOON)
        # five files are open, and each would wait 5 s for being closed; a busy machine takes its time for the rest
        assert time.monotonic() - start < most + 4
        assert process.stderr is not None
        assert (status, process.stderr.read().count(b"\n")) == (1, 1)


def test_a_terminal_that_goes_away(served: str) -> None:
    """Its end is not told by a signal here, but by what reading and writing it say."""
    master, slave = pty.openpty()
    with started(served, "-t", "/", "--", "sh", "-c", "echo ready; exec cat", stdin=slave, stdout=slave) as process:
        os.close(slave)
        said = b""
        while b"ready" not in said:
            said += os.read(master, 100)
        os.close(master)
        process.send_signal(signal.SIGHUP)
        assert process.wait(SOON) in (0, 128 + signal.SIGHUP)  # the end of its input may be quicker
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_terminal_of_the_output_alone_will_do(served: str) -> None:
    master, slave = pty.openpty()
    try:
        done = run(served, "-t", "/", "--", "sh", "-c", "tty >/dev/null && echo yes", stdout=slave)
        os.close(slave)
        assert (done.returncode, os.read(master, 3)) == (0, b"yes"), done.stderr
    finally:
        os.close(master)


def test_nobody_at_the_other_end_is_one_line(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        process = subprocess.Popen(
            [*ME, "-a", f"unix!{tmp_path / 's'}", "run", "/", "--", "true"], stderr=subprocess.PIPE
        )
        listener.accept()[0].close()
        said = process.communicate(timeout=SOON)[1].decode()
    assert (process.returncode, said.count("\n")) == (1, 1), said


async def test_a_console_that_is_told_to_end_gives_the_terminal_back(tmp_path: Path) -> None:
    said_once = trio.Event()

    async def one() -> bytes:
        if said_once.is_set():
            await trio.sleep_forever()
        said_once.set()
        return b"ready\r\n"

    tree = Dir({"kernels": Dir({"k1": Dir({"console": Stream(one, lambda data: None)})})})
    async with serving_at(f"unix!{tmp_path}/s", tree):
        master, slave = pty.openpty()
        before = termios.tcgetattr(slave)
        command = [*ME, "-a", f"unix!{tmp_path}/s", "console", "k1"]
        process = await trio.lowlevel.open_process(command, stdin=slave, stdout=slave, stderr=slave)
        try:
            said = b""
            with trio.fail_after(SOON):
                while b"ready" not in said:
                    await trio.lowlevel.wait_readable(master)
                    said += os.read(master, 100)
                assert termios.tcgetattr(slave) != before
                process.terminate()
                assert await process.wait() == 128 + signal.SIGTERM
            assert termios.tcgetattr(slave) == before
        finally:
            process.kill()
            os.close(master)
            os.close(slave)
