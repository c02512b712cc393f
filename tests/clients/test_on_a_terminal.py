"""What commands print on a terminal: names above the columns of a table, as the manual has them, and colours. A pipe gets the bytes."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mk9p.clients.columns import aligned
from mk9p.clients.explain import columns
from mk9p.testing import child

ME = [sys.executable, "-m", "mk9p"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("columns")
    (folder / "cpu").mkdir()
    (folder / "cpu/status").write_text("mine alone\n")
    where = f"unix:{folder}/s"
    with child([*ME, "serve", "-l", where, "cpu", "host", f"fs:{folder}?name=data"], "listening"):
        yield where


def seen(address: str, *words: str, **more: str) -> str:
    """Return what a command prints on a terminal."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80", **more}
    with subprocess.Popen([*ME, "-a", address, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        said = b""
        try:
            while data := os.read(ours, 65536):
                said += data
        except OSError:  # the terminal has gone with its last user
            pass
        os.close(ours)
    assert process.returncode == 0, said
    return said.decode().replace("\r\n", "\n")


def piped(address: str, *words: str) -> str:
    return subprocess.run([*ME, "-a", address, *words], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("k/k1/cpu/status", "N state node core apic mhz load"),
        ("all/cpu/k1.status", "N state node core apic mhz load"),
        ("irq/status", "N count/s affinity name count"),
        ("mounts", "PATH ADDR STATE SINCE_NS REASON"),
        ("k/k1/net/arp", "medium state ip mac interface"),
        ("k/k1/proc/1/fd", "N target mode offset"),
        ("events", "SEQ TIME_NS WHAT ARGS…"),
        ("lease/status", "N STATE PATH MODE HOLDER TOKEN UNTIL_NS"),
        ("k/k1/proc/1/cwd", ""),
        ("k/k1/dev/kmsg", ""),  # records of the kernel's
        ("cpu/0/status", ""),  # lines of `key value`
        ("k/k1/mem/status", ""),
        ("ns", ""),
        ("cpu", ""),
        ("no/such/file", ""),
        ("k/k1/fs/data/cpu/status", ""),  # somebody's own file
    ],
)
def test_the_manual_says_which_columns_a_file_has(path: str, names: str) -> None:
    assert columns(path).names == tuple(names.split())


def test_columns_stand_below_their_names_and_quoted_words_are_one() -> None:
    table = "0 online 1 2 3\n10 off 'a b''c' d\n\n"
    assert aligned(["N", "state", "cache…"], table) == (
        "N   state   cache…\n0   online  1         2  3\n10  off     'a b''c'  d\n\n"
    )


def test_a_terminal_sees_the_names_and_a_pipe_the_files_bytes(address: str) -> None:
    bold = seen(address, "cat", "cpu/status").splitlines()
    assert bold[0].startswith("\x1b[1mN ")
    plain = seen(address, "cat", "cpu/status", NO_COLOR="1").splitlines()
    assert plain[0].split() == ["N", "state", "node", "core", "apic", "mhz", "load"]
    assert plain[1].split()[:2] == ["0", "online"]
    assert plain[1].index("online") == plain[0].index("state")
    assert "state" not in piped(address, "cat", "cpu/status")
    assert piped(address, "cat", "cpu/status").startswith("0 online ")


def test_what_is_no_table_or_not_in_the_manual_is_shown_as_it_is(address: str) -> None:
    assert seen(address, "cat", "fs/data/cpu/status") == "mine alone\n"
    keys = [line.split()[0] for line in seen(address, "cat", "status").splitlines()]
    assert keys == [line.split()[0] for line in piped(address, "cat", "status").splitlines()]


def test_several_files_have_each_their_names(address: str, tmp_path: Path) -> None:
    lines = seen(address, "cat", "cpu/status", "cpu/topology", NO_COLOR="1").splitlines()
    assert [line.split()[1] for line in lines if line.startswith("N ")] == ["state", "package"]


def test_events_have_the_colour_of_where_they_are_from_where_there_are_colours(address: str) -> None:
    words = ("events", "events")
    assert "\x1b[" in seen(address, *words)
    for plain in (
        seen(address, *words, NO_COLOR="1"),
        seen(address, *words, TERM="dumb"),
        piped(address, *words),
    ):
        assert "\x1b" not in plain
        assert re.search(r"(?m)^\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} events start ", plain)
