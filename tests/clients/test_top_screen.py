"""`mk9p top` for hands: what keys do, at any size of a terminal, and in a real terminal."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mk9p.clients.top_board import KERNEL
from mk9p.clients.top_screen import KEYS, Screen, keys
from mk9p.testing import SOON, child

ME = [sys.executable, "-m", "mk9p"]


def kernel(name: str, state: str = "up", age: int | None = None) -> dict[str, Any]:
    return dict.fromkeys(KERNEL) | {"kernel": name, "state": state, "age": age}


def process(pid: int, name: str, cpu: float, kernel: str = "k1") -> dict[str, Any]:
    return {"kernel": kernel, "pid": pid, "user": "me", "state": "Sleep", "cpu%": cpu, "size": pid << 10, "name": name}


def screen() -> Screen:
    found = [process(1, "init", 0.0), process(7, "cc1", 99.0), process(30, "sh", 3.0, "k2"), process(31, "make", 2.0)]
    return Screen([kernel("k1"), kernel("k2", "silent", 9)], found, args={("k1", 7): "cc1 -O2 file.c"})


def pids(one: Screen) -> list[int]:
    return [row["pid"] for row in one.rows()]


def press(one: Screen, *names: str) -> list[str]:
    return [one.press(name) for name in names]


def test_processes_are_sorted_turned_and_filtered() -> None:
    one = screen()
    assert pids(one) == [7, 30, 31, 1]
    press(one, "right")  # size
    assert (one.sort, pids(one)) == ("size", [31, 30, 7, 1])
    press(one, "r")
    assert pids(one) == [1, 7, 30, 31]
    press(one, "left", "r", "/", *"file.", "enter")
    assert pids(one) == [7]  # by its command line
    press(one, "/", *"k2", "backspace", "backspace", *"sh")
    assert (one.typing, pids(one)) == (True, [30])
    press(one, "escape")
    assert (one.typing, len(pids(one))) == (False, 4)


def test_a_process_is_ended_only_after_a_question() -> None:
    one = screen()
    assert press(one, "down", "k") == ["", ""]
    assert one.lines(80, 24)[-1] == ("end 30 sh on k2? y n", "bold red")
    assert press(one, "n") == [""]
    one.processes[1]["cpu%"] = 50.0  # the order changes, and who is chosen does not
    assert press(one, "k", "y") == ["", "kill"]
    assert one.chosen == ("k2", 30)
    one.processes = [process(1, "init", 0.0)]  # it has ended: the first is chosen
    assert press(one, "enter") == ["details"]
    assert one.chosen == ("k1", 1)
    one.processes = []
    assert press(one, "k", "y", "enter", "down") == ["", "", "", ""]


def test_a_question_is_about_the_process_that_it_names() -> None:
    one = screen()
    press(one, "down", "k")
    del one.processes[2]  # the one that was asked about
    assert one.lines(80, 24)[-1] == ("it is not there any more; any key", "bold red")
    assert press(one, "y") == [""]


@pytest.mark.parametrize(("size", "least"), [((80, 24), 16), ((40, 8), 3), ((20, 3), 0)])
def test_kernels_in_trouble_are_seen_however_many_there_are(size: tuple[int, int], least: int) -> None:
    one = screen()
    one.kernels = [kernel(f"k{n}", age=9) for n in range(1000)] + [kernel("ill", "silent", 60), kernel("gone", "away")]
    shown = [line.partition(" ")[0] for line, _ in one.lines(*size)][1 : 1 + least]
    assert shown[:2] == ["ill", "gone"][:least]
    if least:
        assert one.lines(*size)[least][0].startswith(f"… and {1002 - least + 1} more"), one.lines(*size)


def test_a_long_name_leaves_room_for_the_rest() -> None:
    one = screen()
    one.kernels[0]["kernel"] = one.processes[0]["kernel"] = "a-kernel-with-a-long-name" * 5
    for line, _ in one.lines(80, 24)[:-1]:
        assert len(line) <= 80
        assert not line or "a-kernel" not in line or "…" in line


def test_details_are_seen_whole_as_far_as_there_is_room() -> None:
    one = screen()
    one.details = ["process 7", "", "args  " + "x" * 60]
    assert [line for line, _ in one.lines(40, 8)] == ["process 7", "", "args  " + "x" * 34, "x" * 26, "any key: back"]
    one.details += ["more"] * 20
    assert [line for line, _ in one.lines(40, 8)][-2:] == ["more", "any key: back"]
    assert len(one.lines(40, 8)) == 8


def test_what_servers_say_does_nothing_to_the_terminal() -> None:
    one = screen()
    one.kernels[0]["kernel"] = "\x1b[2J"
    one.processes[0] |= {"kernel": "\x1b]0;k\a", "user": "\x9b", "name": "\u202e"}
    one.told = "\x1b[1m"
    for names in ((), ("k",), ("n",)):
        press(one, *names)
        assert all(line.isprintable() for line, _ in one.lines(200, 50))
    one.details = ["\x1b[2J  root"]
    assert one.lines(80, 24)[0] == ("\\x1b[2J  root", "")


@pytest.mark.parametrize("size", [(80, 24), (40, 8), (200, 60), (20, 3), (1, 1)])
def test_every_size_of_a_terminal_is_filled_and_not_exceeded(size: tuple[int, int]) -> None:
    one = screen()
    one.processes += [process(pid, f"p{pid}", 0.0) for pid in range(100, 400)]
    one.kernels += [kernel(f"x{n}") for n in range(50)]
    for moves in ((), ("page down",) * 3, ("page down",) * 400, ("up",)):
        press(one, *moves)
        lines = one.lines(*size)
        assert len(lines) <= max(size[1], 2)
        assert size[1] < 3 or [style for _, style in lines].count("reverse") == 1
    press(one, "h")
    assert len(one.lines(*size)) <= size[1]
    press(one, "x", "q")
    assert one.over


async def test_bytes_of_a_terminal_are_keys() -> None:
    pieces = [b"\x1b[A\x1b[Bq", b"/\xc3", b"\x1b[15~k", b"\x1b", b""]

    async def take(_: int) -> bytes:
        return pieces.pop(0)

    found = [key async for key in keys(take)]
    assert found == ["up", "down", "q", "/", "\ufffd", "k", "escape"]
    assert "up" in KEYS.values()


class Tmux:
    """A real terminal, with a shell command in it."""

    def __init__(self, command: str, columns: int, rows: int) -> None:
        self.name = f"mk9p-{uuid.uuid4().hex[:8]}"
        env = {**os.environ, "TERM": "xterm-256color"}
        words = ["new-session", "-d", "-x", str(columns), "-y", str(rows), command]
        subprocess.run(["tmux", "-L", self.name, "-f", "/dev/null", *words], check=True, env=env)

    def run(self, *words: str) -> str:
        return subprocess.run(["tmux", "-L", self.name, *words], capture_output=True, text=True).stdout

    def press(self, *names: str) -> None:
        self.run("send-keys", *names)

    def wait(self, what: Callable[[str], bool]) -> str:
        until = time.monotonic() + SOON
        while not what(text := self.run("capture-pane", "-p")):
            assert time.monotonic() < until, text
            time.sleep(0.1)
        return text


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    where = f"unix:{tmp_path}/s"
    with child([*ME, "serve", "-l", where, "host", "cpu", "mem", "proc"], "listening"):
        yield where


@pytest.mark.parametrize(("columns", "rows"), [(120, 30), (40, 8)])
def test_a_user_finds_and_ends_a_process_in_a_real_terminal(served: str, columns: int, rows: int) -> None:
    victim = subprocess.Popen(["sleep", "98765"])
    terminal = Tmux(f"{' '.join(ME)} -a {served} top -d 0.3; echo ended $?; sleep 1000", columns, rows)
    try:
        terminal.wait(lambda text: "PID" in text)
        terminal.press("/")
        terminal.press("-l", "98765")
        terminal.wait(lambda text: "/98765" in text)
        terminal.press("Enter")
        terminal.wait(lambda text: str(victim.pid) in text)
        terminal.press("Enter")
        terminal.wait(lambda text: "sleep 98765" in text and "KERNEL" not in text)
        terminal.press("x", "k")
        terminal.wait(lambda text: f"end {victim.pid} sleep on" in text)
        terminal.press("y")
        assert victim.wait(SOON) == -signal.SIGKILL
        terminal.press("q")
        text = terminal.wait(lambda text: "ended" in text)
        assert "ended 0" in text
        assert "PID" not in text  # the screen from before is back
    finally:
        terminal.run("kill-server")
        victim.kill()
        victim.wait()
