"""`mk9p top`: what it shows is what the files say, of one kernel and of a namespace with one that is away."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from mk9p.client import Client, connect
from mk9p.clients import top_board, top_table
from mk9p.clients.top_board import Look, Process
from mk9p.composing import namespace
from mk9p.errors import NineError
from mk9p.server import Tally, stats_tree
from mk9p.specs import Spec, kernel_tree
from mk9p.testing import serving_at, until
from mk9p.tree import Dir, Stat, Text

ME = [sys.executable, "-m", "mk9p"]


@asynccontextmanager
async def lab(tmp_path: Path) -> AsyncIterator[str]:
    """This kernel's own tree as k/me, one that is away as k/gone, and states as of `kernels`; gives the namespace's address."""
    tally = Tally()
    specs = [Spec(name) for name in ("host", "cpu", "mem", "proc")]
    async with trio.open_nursery() as nursery, kernel_tree(specs, {"stats": stats_tree(tally)}) as tree:
        kernels = Dir({"status": Text("sleeper ready qemu 1 1048576 none\n")})
        ns = namespace(nursery, {"kernels": kernels})
        await ns.run(
            f"mount unix!{tmp_path}/me /k/me\nmount unix!{tmp_path}/gone /k/gone\nmount unix!{tmp_path}/s /k/sleeper"
        )
        async with (
            serving_at(f"unix!{tmp_path}/me", tree, tally=tally),
            serving_at(f"unix!{tmp_path}/ns", ns.root),
        ):
            yield f"unix!{tmp_path}/ns"
        nursery.cancel_scope.cancel()


async def run(address: str, *words: str) -> str:
    done = await trio.run_process(
        [*ME, "-a", address, "top", "-d", "0.1", *words], capture_stdout=True, capture_stderr=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


async def test_a_namespace_and_a_process_that_works(tmp_path: Path) -> None:
    async with lab(tmp_path) as address:
        async with trio.open_nursery() as nursery:
            busy = await nursery.start(trio.run_process, ["sh", "-c", "while :; do :; done"])
            told: dict[str, Any] = {}

            async def seen_at_work() -> bool:
                nonlocal told
                told = json.loads(await run(address, "--once", "--json", "-p", "100000", "-d", "0.5"))
                (mine,) = (row for row in told["processes"] if row["pid"] == busy.pid)
                return bool(mine["cpu%"] > 0)

            await until(seen_at_work)  # a busy machine may not let it work between two looks
            nursery.cancel_scope.cancel()
        gone, me, sleeper = told["kernels"]
        assert (gone["kernel"], gone["state"], gone["cpus"], gone["ops/s"]) == ("gone", "away", None, None)
        assert (sleeper["kernel"], sleeper["state"]) == ("sleeper", "ready")
        assert (me["kernel"], me["state"], me["cpus"]) == ("me", "up", os.cpu_count())
        assert me["ops/s"] > 10  # those of top itself
        assert me["in/s"] > 100
        assert me["mem"] > 1 << 20
        assert 0 <= me["used%"] <= 100
        (mine,) = (row for row in told["processes"] if row["pid"] == busy.pid)
        assert (mine["kernel"], mine["name"]) == ("me", "sh")
        shares = [row["cpu%"] for row in told["processes"]]
        assert shares == sorted(shares, reverse=True)

        text = await run(address, "-n", "2", "-p", "3")
        screens = [screen.splitlines() for screen in text.split("\n\n")]
        assert [screen[0].split() for screen in screens[::2]] == [[name.upper() for name in top_board.KERNEL]] * 2
        assert [line.split()[:2] for line in screens[0][1:]] == [["gone", "away"], ["me", "up"], ["sleeper", "ready"]]
        assert screens[1][0].split() == [name.upper() for name in top_board.PROCESS]
        assert len(screens[1]) <= 4
        assert "\x1b" not in text
        only = json.loads(await run(address, "--once", "--json", "me"))
        assert [row["kernel"] for row in only["kernels"]] == ["me"]
        none = await trio.run_process([*ME, "-a", address, "top", "k9"], capture_stderr=True, check=False)
        assert (none.returncode, none.stderr) == (1, b"mk9p top: no kernel k9; there are: gone me sleeper\n")


@pytest.mark.parametrize("words", [("-d", "0"), ("-d", "nan"), ("-d", "x"), ("-n", "x")])
def test_wrong_use(words: tuple[str, ...]) -> None:
    done = subprocess.run([*ME, "top", *words], capture_output=True, check=False)
    assert done.returncode == 2


@asynccontextmanager
async def board(client: Client, delay: float = 0.05) -> AsyncIterator[top_board.Board]:
    made = top_board.Board(client, [], delay)
    async with trio.open_nursery() as nursery:
        made.nursery = nursery
        await made.find()
        yield made
        nursery.cancel_scope.cancel()


async def test_no_figure_of_a_kernel_ends_the_others(tmp_path: Path) -> None:
    """A number may be none, or have thousands of digits; a line may lack words, or the end of a quote."""
    odd = ("9" * 5000, "x", "-1", "1e3", "٣")
    proc = [f"a root Sleep {word} {word} 0 0 0 0 {word} 0 0 1 1 0\n" for word in odd]
    proc += ["'a root\n", "a\n", "\n", "'a b' root Sleep 10 20 0 0 0 0 300 0 0 1 1 0\n"]
    parts = {
        "status": Text(f"uptime {odd[0]}\ncpus x\n"),
        "cpu": Dir({"status": Text("".join(f"0 online - - - - {word}\n" for word in odd) + "\n1\n")}),
        "mem": Dir({"status": Text(f"MemTotal {odd[0]}\nMemAvailable 5\n")}),
        "stats": Dir({"status": Text(f"since 1\nops {odd[0]}\n")}),
        "proc": Dir({str(n): Dir({"status": Text(text), "args": Text("")}) for n, text in enumerate(proc)}),
    }
    k = {"odd": Dir(parts), "good": Dir({"status": Text("cpus 3\n"), "proc": Dir({})})}
    tree = Dir({"k": Dir(k), "kernels": Dir({"status": Text("good\n\nodd ready x\n")})})
    where = f"unix!{tmp_path}/s"
    async with serving_at(where, tree), connect(where) as client, board(client) as seen:
        await seen.complete()
        rows = {row["kernel"]: row for row in seen.rows()}
        assert not seen.failing
        assert [(row["pid"], row["name"], row["size"]) for row in seen.processes()] == [(8, "a b", 300 << 10)]
        assert (rows["good"]["cpus"], rows["odd"]["cpus"], rows["odd"]["up"]) == (3, None, None)
        told = await trio.run_process([*ME, "-a", where, "ps", "--json"], capture_stdout=True, capture_stderr=True)
        assert [row["pid"] for row in json.loads(told.stdout)] == ["0", "1", "2", "3", "4", "8"]
        assert (
            b'mk9p_kernel_up{kernel="odd"} 1'
            in (await trio.run_process([*ME, "-a", where, "metrics"], capture_stdout=True)).stdout
        )


async def test_a_kernel_that_goes_while_its_processes_are_read_is_away_and_ends_nothing(tmp_path: Path) -> None:
    gone = NineError(errno.EIO)

    def fails() -> str:
        raise gone

    proc = Dir({str(n): Dir({"status": Text(fails)}) for n in range(3)})
    parts = {"status": Text("cpus 3\n"), "mem": Dir({"status": Text(fails)}), "stats": Dir({"status": Text(fails)})}
    k = {"ill": Dir({**parts, "proc": proc}), "good": Dir({"status": Text("cpus 3\n"), "proc": Dir({})})}
    where = f"unix!{tmp_path}/s"
    async with serving_at(where, Dir({"k": Dir(k)})), connect(where) as client, board(client) as seen:
        await seen.complete()
        assert seen.failing == {"ill": "away"}
        told = [
            await trio.run_process([*ME, "-a", where, word], capture_stdout=True, capture_stderr=True, check=False)
            for word in ("ps", "metrics")
        ]
    assert (told[0].returncode, told[0].stderr) == (1, b"mk9p: ill: Input/output error\n")
    assert told[1].returncode == 0
    assert b'mk9p_kernel_up{kernel="good"} 1' in told[1].stdout
    assert b'mk9p_kernel_up{kernel="ill"} 0' in told[1].stdout


async def test_a_tree_that_is_one_kernels_own(tmp_path: Path) -> None:
    status = Text("name k7\nuptime 90000000000\nload 0.50 0.2 0.1\ncpus 2\n")
    where = f"unix!{tmp_path}/s"
    async with serving_at(where, Dir({"status": status})), connect(where) as client, board(client) as seen:
        await seen.complete()
        (row,) = seen.rows()
    assert (row["kernel"], row["state"], row["up"], row["load"], row["cpus"]) == ("k7", "up", 90, "0.50", 2)
    assert (row["mem"], row["ops/s"], row["cpu%"], row["age"]) == (None, None, None, None)


async def test_a_silent_kernel_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown as it was when it answered last, with the age of that."""
    monkeypatch.setattr(top_board, "PATIENCE", 0.2)
    monkeypatch.setattr(top_board, "OLD", 0.0)
    mute, looked = False, trio.Event()

    async def maybe() -> str:
        if mute:
            looked.set()
            await trio.sleep_forever()
        return "cpus 5\n"

    k = Dir({"mute": Dir({"status": Text(maybe)}), "other": Dir({"status": Text("cpus 3\n")})})
    where = f"unix!{tmp_path}/s"
    async with serving_at(where, Dir({"k": k})), connect(where) as client, board(client) as seen:
        await seen.complete()
        assert [(row["kernel"], row["state"], row["cpus"]) for row in seen.rows()] == [
            ("mute", "up", 5),
            ("other", "up", 3),
        ]
        mute = True
        await looked.wait()
        async with seen._looked:
            while "mute" not in seen.failing:
                await seen._looked.wait()
        rows = seen.rows()
    assert [(row["kernel"], row["state"], row["cpus"]) for row in rows] == [("mute", "silent", 5), ("other", "up", 3)]
    assert rows[0]["age"] is not None


async def test_a_kernel_that_never_answered_is_in_the_first_screen(tmp_path: Path) -> None:
    k = Dir({"mute": Dir({"status": Text(trio.sleep_forever)}), "other": Dir({"status": Text("cpus 3\n")})})
    async with serving_at(f"unix!{tmp_path}/s", Dir({"k": k})):
        told = json.loads(await run(f"unix!{tmp_path}/s", "--once", "--json"))
    assert [(row["kernel"], row["state"], row["cpus"]) for row in told["kernels"]] == [
        ("mute", "silent", None),
        ("other", "up", 3),
    ]


async def test_a_silent_kernel_holds_up_no_listing(tmp_path: Path) -> None:
    """`ls` asks no kernel; `ls -l` and `ps` say after their patience which one is silent, and show the others."""

    class Mute(Dir):
        async def stat(self) -> Stat:
            await trio.sleep_forever()
            raise AssertionError

    one = Dir({"1": Dir({"status": Text("init root Sleep 0 0\n")}), "2": Dir({"status": Text("\x1b[2J root Sleep\n")})})
    two = Dir({"1": Dir({"status": Text("init root Sleep 0 0\n")}), "2": Dir({"status": Text(trio.sleep_forever)})})
    k = Dir({"a": Dir({"proc": one}), "b": Mute({"proc": one}), "c": Dir({"proc": two})})
    async with serving_at(f"unix!{tmp_path}/s", Dir({"k": k})):
        done = [
            await trio.run_process(
                [*ME, "-a", f"unix!{tmp_path}/s", *words.split()], capture_stdout=True, capture_stderr=True, check=False
            )
            for words in ("ls k", "ls -l k", "ps", "tree")
        ]
    status, said, told = ([each.returncode for each in done], [each.stdout.decode() for each in done], done)
    assert status == [0, 1, 1, 0]
    assert said[0] == "a/\nb/\nc/\n"
    assert [line.split()[-1] for line in said[1].splitlines()] == ["a", "b", "c"]
    assert said[1].splitlines()[1].startswith("d?????????")
    assert told[1].stderr == b"mk9p: k/b: no answer within 2 s\n"
    assert [line.split() for line in said[2].splitlines()[1:]] == [
        ["a", "1", "root", "Sleep", "0:00", "0K", "[init]"],
        ["a", "2", "root", "Sleep", "0:00", "0K", "[\\x1b[2J]"],
        ["c", "1", "root", "Sleep", "0:00", "0K", "[init]"],
    ]
    assert told[2].stderr == b"mk9p: b: no answer within 2 s\nmk9p: c: no answer within 2 s\n"


def stats(**counts: int) -> dict[str, str]:
    return {"since": "1"} | {key: str(value) for key, value in counts.items()}


def test_figures_are_differences_by_the_time_between() -> None:
    sh, cc = Process("sh", "root", "Sleep", 100, 4), Process("cc1", "me", "Running", 1000, 2048)
    before = Look("k", "up", 10.0, stats=stats(ops=100, errors=1, in_bytes=0, out_bytes=5), processes={1: sh, 2: cc})
    now = Look(
        "k",
        "up",
        12.0,
        stats=stats(ops=300, errors=1, in_bytes=4000, out_bytes=6),
        processes={1: attrs.evolve(sh, time=200), 2: attrs.evolve(cc, time=3000), 3: sh},
    )
    row = top_board._row(before, now)
    assert [row[key] for key in ("ops/s", "err/s", "in/s", "out/s")] == [100, 0, 2000, 0]
    busy = top_board.processes({"k": before}, {"k": now})
    assert [(p["pid"], p["cpu%"], p["size"]) for p in busy] == [(2, 100.0, 2 << 20), (1, 5.0, 4096)]
    reset = attrs.evolve(now, stats=stats(ops=3) | {"since": "2"}, processes={1: attrs.evolve(sh, time=1)})
    assert top_board._row(now, reset)["ops/s"] is None
    assert top_board.processes({"k": now}, {"k": reset}) == []  # another process by this number
    assert top_board._row(None, now)["ops/s"] is None


def test_what_is_shown_is_aligned() -> None:
    rows: list[dict[str, Any]] = [
        dict.fromkeys(top_board.KERNEL) | {"kernel": "k1", "state": "up", "up": 273_900, "mem": 3 << 30, "ops/s": 12},
        dict.fromkeys(top_board.KERNEL) | {"kernel": "longname", "state": "silent", "age": 61, "up": 750, "in/s": 999},
    ]
    assert top_table.columns(top_board.KERNEL, rows) == [
        "KERNEL   STATE    AGE     UP LOAD CPUS CPU%  MEM USED% OPS/S ERR/S IN/S OUT/S",
        "k1       up         -  3d04h    -    -    - 3.0G     -    12     -    -     -",
        "longname silent 1m01s 12m30s    -    -    -    -     -     -     -  999     -",
    ]
    assert [top_table.size(n) for n in (0, 999, 1000, 10_000, 1 << 20, 25 << 30, 1 << 50)] == [
        *("0", "999", "1.0K", "9.8K", "1.0M", "25G", "1024.0T"),
    ]
    assert [top_table.duration(s) for s in (0, 750, 7500, 273_900)] == ["0m00s", "12m30s", "2h05m", "3d04h"]
