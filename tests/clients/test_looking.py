"""The commands that look: find, edit, wait, logs, events, explain, and ps and run on the tree of a single kernel."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from mk9p.clients.explain import explained
from mk9p.clients.help import page, pages
from mk9p.clients.ps import size, spent
from mk9p.composing import namespace
from mk9p.errors import NineError
from mk9p.page import Page
from mk9p.testing import child, serving_at
from mk9p.tree import Dir, Log, Text
from tests.clients.test_file_commands import ME, Run


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Serve this kernel's tree, without a namespace."""
    where = f"unix:{tmp_path_factory.mktemp('single')}/s"
    with child([*ME, "serve", "-l", where, "host", "cpu", "proc", "cmd"], "listening"):
        yield Run(where)


class Lab:
    """A namespace with two kernels in a process of its own thread of control: trees that a test changes while commands look."""

    def __init__(self) -> None:
        self.state = "loaded"
        self.events = Log()
        self.log = Log()
        self.kmsg = Log()

    @property
    def status(self) -> str:
        return f"state {self.state}\nreason it was told to\n"

    def kernels(self) -> Dir:
        mine = Dir({"status": Text(lambda: self.status), "events": self.events, "log": Text("console's\nlast words\n")})
        return Dir({"status": Text(""), "events": Log(), "k1": mine})


async def run(address: str, *words: str) -> tuple[int, str]:
    done = await trio.run_process(
        [*ME, "-a", address, *words], capture_stdout=True, capture_stderr=True, check=False, stdin=b""
    )
    return done.returncode, (done.stdout + done.stderr).decode()


def test_ps_and_run_work_on_the_tree_of_a_single_kernel(single: Run) -> None:
    rows = {row["pid"]: row for row in json.loads(single("ps", "--json")[1])}
    me = rows[str(os.getpid())]
    assert me["user"] == "root"
    assert "python" in me["args"]
    assert int(me["kib"]) > 1000
    name = me["kernel"]
    status, said = single("ps")
    assert status == 0
    assert said.splitlines()[0].split() == ["KERNEL", "PID", "USER", "STATE", "TIME", "MEMORY", "COMMAND"]
    assert single("run", ".", "--", "echo", "here") == (0, "here\n")
    assert single("run", name, "--", "echo", "here") == (0, "here\n")
    assert single("run", "no", "--", "true") == (1, f"mk9p run: no kernel no; there are: {name}\n")


def test_times_and_sizes_are_for_people() -> None:
    assert [spent(ms) for ms in (0, 61_000, 35_999_999, 36_000_000)] == ["0:00", "1:01", "599:59", "10h00"]
    assert [size(kib) for kib in (0, 999, 1000, 22448, 204800, 3 << 20)] == [
        "0K",
        "999K",
        "1.0M",
        "21.9M",
        "200M",
        "3.0G",
    ]


def test_find_lists_what_fits_and_tells_what_it_could_not_list(single: Run) -> None:
    status, said = single("find", "cpu", "-name", "status")
    assert (status, said.splitlines()[0]) == (0, "cpu/status")
    assert "cpu/0/status" in said.splitlines()
    assert single("find", "cpu", "-maxdepth", "0") == (0, "cpu\n")
    assert json.loads(single("find", "cpu", "-maxdepth", "0", "--json")[1]) == {"path": "cpu", "type": "d"}
    assert set(single("find", "/cpu", "-type", "d")[1].splitlines()) >= {"/cpu", "/cpu/0"}
    assert single("find", "c*", "-maxdepth", "1", "-name", "clone", "-print0") == (0, "cmd/clone\0")
    assert single("find", "no") == (1, "mk9p: no: No such file or directory\n")


def test_what_an_editor_changes_is_written_if_nobody_else_has_changed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    notes = tree / "notes"
    notes.write_text("one\n")
    where = f"unix!{tmp_path}/s"
    editor = tmp_path / "editor"
    editor.write_text(f'#!/bin/sh\necho two >> "$1"\ntest -z "$OTHER" || echo three > {notes}\nexit ${{STATUS:-0}}\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    with child([*ME, "serve", "-l", where, f"fs:{tree}"], "listening"):
        exported = Run(where)
        assert exported("edit", "fs/tree/notes") == (0, "")
        assert notes.read_text() == "one\ntwo\n"
        monkeypatch.setenv("STATUS", "3")
        status, said = exported("edit", "fs/tree/notes")
        kept = re.fullmatch(r"mk9p: fs/tree/notes: the editor ended with 3; your text is in (\S+)\n", said)
        assert (status, kept and Path(kept[1]).read_text()) == (3, "one\ntwo\ntwo\n")
        assert kept is not None
        Path(kept[1]).unlink()
        Path(kept[1]).parent.rmdir()
        assert notes.read_text() == "one\ntwo\n"
        monkeypatch.setenv("STATUS", "0")
        monkeypatch.setenv("OTHER", "1")
        status, said = exported("edit", "fs/tree/notes")
    kept = re.fullmatch(r"mk9p edit: fs/tree/notes: it has changed meanwhile; your text is in (\S+)\n", said)
    assert (status, notes.read_text()) == (1, "three\n")
    assert kept is not None
    assert Path(kept[1]).read_text() == "one\ntwo\ntwo\n"
    Path(kept[1]).unlink()
    Path(kept[1]).parent.rmdir()


async def test_wait_ends_when_a_kernel_is_in_the_state_or_never_will_be(tmp_path: Path) -> None:
    lab, address = Lab(), f"unix!{tmp_path}/ns"
    outcomes: dict[str, tuple[int, str]] = {}
    async with trio.open_nursery() as nursery:
        ns = namespace(nursery, {"kernels": lab.kernels()})
        async with serving_at(address, ns.root):

            async def one(name: str, *words: str) -> None:
                outcomes[name] = await run(address, "wait", *words)

            assert await run(address, "wait", "k1", "loaded") == (0, "loaded\n")
            assert await run(address, "wait", "k9", "active") == (1, "mk9p wait: no kernel k9; there are: k1\n")
            assert await run(address, "wait", "-t", "0.1", "k1", "active") == (1, "mk9p: k1: not active within 0.1 s\n")
            async with trio.open_nursery() as waiting:
                waiting.start_soon(one, "state", "k1", "active", "silent")
                waiting.start_soon(one, "event", "kernels/k1/events", "active")
                waiting.start_soon(one, "file", "kernels/k1/status", "active")
                await trio.sleep(0.5)
                assert outcomes == {}
                lab.state = "active"
                lab.events.emit("active", "char!/dev/x")
            assert outcomes["state"] == (0, "active\n")
            assert outcomes["file"] == (0, "state active\n")
            assert outcomes["event"][0] == 0
            lab.state = "failed"
            assert await run(address, "wait", "k1", "active") == (1, "mk9p wait: k1 is failed: it was told to\n")
        nursery.cancel_scope.cancel()


async def test_logs_and_events_of_all_kernels_are_in_order_of_time(tmp_path: Path) -> None:
    lab, address = Lab(), f"unix!{tmp_path}/ns"
    boot = time.time_ns() - 1000 * 1_000_000_000
    lab.kmsg.add(b"6,0,1000000,-;Linux version\n")
    lab.kmsg.add(b"3,1,2000000,-;a disk\x1b[2J is broken\n")
    lab.events.emit("started", "k1")
    two = Dir({"status": Text("uptime 1000000000000\n"), "dev": Dir({"kmsg": lab.kmsg}), "events": Log()})
    async with trio.open_nursery() as nursery:
        ns = namespace(nursery, {"kernels": lab.kernels()})
        async with serving_at(address, ns.root), serving_at(f"unix!{tmp_path}/k2", two):
            await ns.run(f"mount unix!{tmp_path}/k2 /k/k2\nmount unix!{tmp_path}/gone /k/k3\n")
            status, said = await run(address, "logs", "k1", "k2")
            assert status == 0
            lines = said.splitlines()
            assert [line.split()[-1] for line in lines] == ["console's", "words", "version", "broken"]
            assert lines[3].endswith("k2 error: a disk\\x1b[2J is broken")
            # it said that it had booted 1000 s ago at some time between then and now, and the record is of 2 s later
            first, last = (
                time.strftime("%m-%d %H:%M:%S", time.localtime(began // 1_000_000_000 + 2))
                for began in (boot, time.time_ns() - 1000 * 1_000_000_000)
            )
            assert first <= lines[3][: len(first)] <= last
            status, said = await run(address, "logs")
            assert status == 1  # k3 is down
            assert "mk9p: k3: " in said
            status, said = await run(address, "events", "-n", "1", "kernels/k1/events")
            assert (status, said.split()[2:]) == (0, ["kernels/k1", "started", "k1"])
            status, said = await run(address, "events", "-n", "1", "--json", "kernels/k1/events")
            told = json.loads(said)
            assert (told["source"], told["words"], told["time_ns"].isdigit()) == ("kernels/k1", "started k1", True)
        nursery.cancel_scope.cancel()


def test_explain_has_something_to_say_of_each_file_of_each_page() -> None:
    for name in pages():
        whole = Page.parse(page(name))
        for shown in whole.shown:
            if shown.directory or shown.name == "…":
                continue
            path = "/".join([whole.top, *(re.sub("[A-Z]+", "7", part) for part in shown.paths[0])])
            said = explained(f"/run/mk9p/lab/n/k/k1/{path}" if name != "compose" else path, 80)
            assert said.startswith(f"{name}: ") or (name == "compose" and "\ncompose: " in said), (name, path, said)
            assert f"From `mk9p help {name}`.\n" in said
            assert len(said.splitlines()) > 3, said


def test_explain_finds_a_path_as_it_is_seen() -> None:
    for path in ("cpu/0/ctl", "/k/k1/cpu/0/ctl", "/mnt/n/k/k1/cpu/0/ctl", "all/cpu/k1.0/ctl"):
        assert explained(path, 80).startswith("cpu: N/ctl\n\n    `N/ctl` takes"), path
    with pytest.raises(NineError, match=r"no page of the manual has 'no/such'"):
        explained("no/such", 80)
