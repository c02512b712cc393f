"""tf: real commands in kernels that are in this process: started together or not at all, ended together, each job of a farm answered once."""

import errno
import sys
from collections import Counter
from pathlib import Path

import pytest
import trio

from mk9p.auth import ROOT, Principal
from mk9p.clients.common import pieces
from mk9p.errors import NineError
from mk9p.testing import until
from mk9p.tree import Node, Open, settle, split
from tests.servers.forces import Lab, lab

ASK = "import os; [print(n, flush=True) for n in range(300)]; os.close(1)"
MASTER = f"""
import sys, threading
asking = threading.Thread(target=lambda: exec({ASK!r}))
asking.start()
with open(sys.argv[1], "w") as file:
    file.writelines(sys.stdin)
asking.join()
"""
ANSWER = "import sys\nfor line in sys.stdin: print(int(line), int(line) ** 2, flush=True)"


def python(program: str, *arguments: str) -> str:
    quoted = program.replace("'", "''")
    return " ".join([sys.executable, "-c", f"'{quoted}'", *arguments])


def squares(path: Path) -> Counter[str]:
    return Counter(path.read_text().split("\n"))


ALL = Counter(f"{n} {n * n}" for n in range(300)) + Counter([""])


async def test_what_one_prints_is_what_the_next_reads_in_another_kernel(tmp_path: Path) -> None:
    async with lab(tmp_path) as made:
        lines = ("a k1 seq 1 50000", "b k2 sort -rn", "c k3 tail -n 2", "a | b | c")
        async with made.force(*lines, start=False) as force:
            data = await force.data()
            await force.say("start")
            assert b"".join([piece async for piece in pieces(data)]) == b"2\n1\n"
            assert await force.ended() == ""
            assert [split(line)[:3] for line in (await force.read("status")).strip().split("\n")] == [
                ["a", "k1", "done"],
                ["b", "k2", "done"],
                ["c", "k3", "done"],
            ]
            assert sorted((await force.events("started"))[0:3])[0][:2] == ["a", "k1"]


async def test_two_tasks_talk_in_both_directions(tmp_path: Path) -> None:
    async with lab(tmp_path, ("k1", "k2")) as made:
        ask = "ask k1 sh -c 'echo hello; read answer; echo got $answer >&2'"
        async with made.force(
            ask, "answer k2 sh -c 'while read x; do echo $x | tr a-z A-Z; done'", "ask <> answer"
        ) as force:
            assert await force.ended() == ""
            assert await force.events("err") == [["ask", "got HELLO"]]


async def test_a_task_whose_reader_has_enough_has_not_failed(tmp_path: Path) -> None:
    async with lab(tmp_path, ("k1", "k2")) as made, made.force("a k1 yes", "b k2 head -n 1", "a | b") as force:
        assert await force.ended() == ""
        assert await force.events("out") == [["b", "y"]]


@pytest.mark.parametrize(
    ("line", "number", "said"),
    [
        ("b k2 no-such-program", errno.ENOENT, "b in k2: no program no-such-program"),
        ("b k9 true", errno.ENOENT, "b: no kernel k9 that answers; there are: k1 k2"),
        ("b {arch riscv} true", errno.ENODEV, "b: no kernel that answers has {arch riscv}"),
        ("b k2 wasm /k/k1/a.wasm", errno.ENOENT, "b in k2: No such file or directory"),
    ],
)
async def test_all_are_started_or_none(tmp_path: Path, line: str, number: int, said: str) -> None:
    async with lab(tmp_path, ("k1", "k2")) as made:
        async with made.force(f"a k1 touch {tmp_path}/ran", line, start=False) as force:
            with pytest.raises(NineError) as caught:
                await force.say("start")
            assert (caught.value.errno, caught.value.ename[: len(said)]) == (number, said)
            assert split(await force.read("status"))[2] == "open"
        assert await made.client.read("tf/status") == ""
        async with trio.open_nursery() as nursery:  # nothing of it is left in its kernel
            nursery.start_soon(idle, made, "k1")
            nursery.start_soon(idle, made, "k2")
    assert not (tmp_path / "ran").exists()


async def idle(made: Lab, kernel: str) -> None:
    """Return when a kernel has no command."""

    async def none() -> bool:
        cmd = await settle(made.hosts[kernel].tree.walk("cmd", ROOT))
        return [name for name, _ in await settle(cmd.entries(ROOT))] == ["clone"]

    await until(none)


async def test_when_one_fails_all_are_ended(tmp_path: Path) -> None:
    async with lab(tmp_path, ("k1", "k2")) as made, made.force("a k1 sleep 1000", "b k2 sh -c 'exit 3'") as force:
        assert await force.ended() == "b: exit 3"
        await idle(made, "k1")
        assert [split(line)[2] for line in (await force.read("status")).strip().split("\n")] == ["failed", "failed"]


async def test_kill_and_the_last_close_end_all(tmp_path: Path) -> None:
    async with lab(tmp_path, ("k1", "k2")) as made:
        async with made.force("a k1 sleep 1000", "b k2 sleep 1000") as force:
            assert await made.client.read("tf/status") == "0 running 2 root\n"
            await force.say("kill")
            assert await force.ended() == "killed"
        async with made.force("a k1 sleep 1000", "b k2 sleep 1000"):
            pass
        for kernel in ("k1", "k2"):
            await idle(made, kernel)
        assert await made.client.read("tf/status") == ""


async def test_each_job_of_a_farm_is_answered_once_though_a_kernel_is_lost(tmp_path: Path) -> None:
    async with lab(tmp_path) as made:
        lines = (f"all k1 {python(MASTER, str(tmp_path / 'out'))}", f"one {{}} {python(ANSWER)}", "[6] one ||| all")
        async with made.force(*lines) as force:

            async def busy() -> bool:
                return sum(int(split(line)[4]) for line in (await force.read("status")).strip().split("\n")[1:]) > 20

            await until(busy)
            await made.hosts["k3"].stop()
            assert await force.ended() == ""
            status = [split(line) for line in (await force.read("status")).strip().split("\n")]
            assert {line[1] for line in status} == {"k1", "k2"}
    assert squares(tmp_path / "out") == ALL


async def test_a_worker_that_ends_is_started_again(tmp_path: Path) -> None:
    weak = "import sys\nfor n, line in zip(range(50), sys.stdin): print(int(line), int(line) ** 2, flush=True)\nsys.exit(1)"
    async with lab(tmp_path, ("k1", "k2")) as made:
        lines = (f"all k1 {python(MASTER, str(tmp_path / 'out'))}", f"one k2 {python(weak)}", "[2] one ||| all")
        async with made.force(*lines) as force:
            assert await force.ended() == ""
            assert len(await force.events("lost")) >= 4
    assert squares(tmp_path / "out") == ALL


@pytest.mark.parametrize(
    ("worker", "said"),
    [
        ("sh -c 'read x; read y; exit 7'", "one: 3 workers ended with the job '0': one."),
        ("yes", "one: one.0 answered what it was not asked"),
        ("no-such", "one.0 in k2: no program no-such"),
    ],
)
async def test_a_farm_that_cannot_go_on_ends_and_says_why(tmp_path: Path, worker: str, said: str) -> None:
    async with lab(tmp_path, ("k1", "k2")) as made:
        lines = (f"all k1 {python(MASTER, str(tmp_path / 'out'))}", f"one k2 {worker}", "[1] one ||| all")
        async with made.force(*lines, start=False) as force:
            why = ""
            try:
                await force.say("start")
            except NineError as error:
                why = error.ename
            assert (why or await force.ended()).startswith(said)
        await idle(made, "k1")


async def test_a_farm_whose_kernel_with_a_name_is_lost_ends(tmp_path: Path) -> None:
    async with lab(tmp_path, ("k1", "k2")) as made:
        lines = ("all k1 sh -c 'echo 1; exec sleep 1000'", "one k2 sleep 1000", "[2] one ||| all")
        async with made.force(*lines) as force:
            await made.hosts["k2"].stop()
            assert (await force.ended()).startswith("one: no worker is left: one.")
        await idle(made, "k1")


async def test_a_task_whose_kernel_is_lost_ends_the_force(tmp_path: Path) -> None:
    async with lab(tmp_path, ("k1", "k2")) as made, made.force("a k1 sleep 1000", "b k2 sleep 1000") as force:
        await made.hosts["k2"].stop()
        assert (await force.ended()).startswith("b: ")
        await idle(made, "k1")


async def test_tasks_go_where_they_fit_and_where_there_are_fewest(tmp_path: Path) -> None:
    async with lab(tmp_path) as made:
        lines = (
            "a {arch aarch64} true",
            "b {release 6.12.*} true",
            "c {cpus >1} true",
            "d {cpus >1} true",
            "e {name k2} true",
        )
        async with made.force(*lines) as force:
            assert await force.ended() == ""
            places = [split(line)[1] for line in (await force.read("status")).strip().split("\n")]
            assert places == ["k3", "k3", "k1", "k2", "k2"]


async def test_words_that_cannot_be_done_say_why(tmp_path: Path) -> None:
    async with lab(tmp_path, ("k1", "k2")) as made, made.force("a k1 sleep 1000") as force:
        for words, number, said in (
            ("move a k2", errno.EOPNOTSUPP, "a: a command: only a program of wasm moves to k2 while it runs"),
            ("move b k2", errno.ENOENT, "no task b; there are: a"),
            ("start", errno.EBUSY, "the force has been started already"),
        ):
            with pytest.raises(NineError) as caught:
                await force.say(words)
            assert (caught.value.errno, caught.value.ename) == (number, said)
        with pytest.raises(NineError) as caught:
            await made.client.write(f"tf/{force.number}/graph", "b k1 true")
        assert caught.value.errno == errno.EBUSY
        assert await force.read("error") == "the force has been started already\n"
    async with lab(tmp_path, ("k1",)) as made, made.force(start=False) as force:
        for words, said in (
            ("start", "no tasks"),
            ("kill", "the force has not been started"),
            ("move a k1", "the force does"),
        ):
            with pytest.raises(NineError, match=said):
                await force.say(words)


async def test_a_force_has_the_rights_of_its_user(tmp_path: Path) -> None:
    async with lab(tmp_path, ("k1",)) as made:
        who = Principal("somebody", 4321)
        clone = await settle((await settle(made.tf.walk("clone", who))).open(Open(who, write=True)))
        number = bytes(await settle(clone.read(0, 99))).decode().strip()
        graph = await settle((await walked(made.tf, f"{number}/graph", who)).open(Open(who, write=True)))
        await settle(graph.write(0, memoryview(b"a k1 true")))
        with pytest.raises(NineError) as caught:
            await settle(clone.write(0, memoryview(b"start")))
        assert (caught.value.errno, caught.value.ename) == (errno.EACCES, "a in k1: permission denied")
        await settle(clone.close())


async def test_what_somebody_else_has_leased_is_not_written_to(tmp_path: Path) -> None:
    def permit(node: Node, path: str, who: Principal) -> None:
        if path.startswith("/k/k2/"):
            raise NineError(errno.EBUSY, f"{path} is leased")

    async with (
        lab(tmp_path, ("k1", "k2"), permit=permit) as made,
        made.force("a k1 true", "b k2 true", start=False) as force,
    ):
        with pytest.raises(NineError, match="b in k2: /k/k2/cmd/clone is leased"):
            await force.say("start")


async def walked(node: Node, path: str, who: Principal) -> Node:
    for name in path.split("/"):
        node = await settle(node.walk(name, who))
    return node
