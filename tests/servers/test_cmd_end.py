"""cmd: signals to commands, and how they end: killed, hung up, with their conversation, with the server; and nothing is left of them."""

import os
import time
from pathlib import Path

import pytest
import trio

from mk9p.servers.cmd import tree
from mk9p.tree import Dir, settle, split
from tests.servers.talks import children, ended, gone, nothing_left, opened, talk, written
from tests.servers.trees import ls, read


@pytest.mark.parametrize(
    ("word", "name"),
    [("kill", "SIGKILL"), ("kill TERM", "SIGTERM"), ("kill interrupt", "SIGINT"), ("kill 12", "SIGUSR2")],
)
async def test_kill(cmd: Dir, word: str, name: str) -> None:
    async with talk(cmd, "exec sleep 1000") as t:
        await t.ctl.write(word)
        assert await t.ending() == f"signal {name}"
        with pytest.raises(ProcessLookupError):
            await t.ctl.write("kill")


async def test_kill_takes_the_whole_group(cmd: Dir) -> None:
    async with talk(cmd, "exec sh -c 'sleep 1000 & echo $!; wait'") as t:
        child = int(await (await t.open("data")).read())
        await t.ctl.write("kill")
        await ended(child)


async def test_nice_of_a_running_command(cmd: Dir) -> None:
    async with talk(cmd, "exec cat") as t:
        pid = int(split(await t.read("status"))[5])
        await t.ctl.write("nice 9")
        assert os.getpriority(os.PRIO_PROCESS, pid) == 9


async def test_the_last_close_ends_the_command(cmd: Dir, tmp_path: Path) -> None:
    async with nothing_left():
        async with talk(
            cmd, f"exec sh -c 'trap \"echo hup >{tmp_path}/hup; exit\" HUP; echo; while :; do sleep 0.01; done'"
        ) as t:
            assert await (await t.open("data")).read() == b"\n"
            pid = int(split(await t.read("status"))[5])
        await written(tmp_path / "hup", "hup\n")
        await gone(pid)


async def test_a_command_that_ignores_the_hang_up_is_killed_and_its_group_too(cmd: Dir) -> None:
    async with nothing_left():
        async with talk(cmd, "exec sh -c 'trap \"\" HUP; sleep 1000 & echo $!; while :; do sleep 1000; done'") as t:
            child = int(await (await t.open("data")).read())
            pid = int(split(await t.read("status"))[5])
            start = time.monotonic()
        await gone(pid)
        assert time.monotonic() - start >= 0.2
        await ended(child)


async def test_killonclose_ends_it_with_the_last_ctl(cmd: Dir) -> None:
    ctl = await opened(cmd, "clone", "rw")
    await ctl.write("killonclose\nexec sleep 1000\n")
    wait = await opened(cmd, "0/wait")
    await ctl.close()
    assert split((await wait.all()).decode())[4] == "signal SIGHUP"
    await wait.close()
    assert await ls(cmd) == ["clone"]


async def test_without_killonclose_any_open_file_holds_it(cmd: Dir) -> None:
    ctl = await opened(cmd, "clone", "rw")
    await ctl.write("exec cat\n")
    data = await opened(cmd, "0/data", "rw")
    await ctl.close()
    await data.write("still here")
    assert await data.read() == b"still here"
    await data.close()


async def test_keep_lets_it_go_on(cmd: Dir, tmp_path: Path) -> None:
    await (ctl := await opened(cmd, "clone", "w")).write(f"keep\nexec sh -c 'sleep 0.3; echo x >{tmp_path}/kept'\n")
    await ctl.close()
    await written(tmp_path / "kept", "x\n")
    wait = await opened(cmd, "0/wait")
    assert split((await wait.all()).decode())[4] == ""
    await wait.close()


async def test_a_kept_one_can_be_ended(cmd: Dir) -> None:
    async with nothing_left():
        await (ctl := await opened(cmd, "clone", "w")).write("keep\nexec sleep 1000\n")
        await ctl.close()
        pid = int(split(await read(cmd, "0/status"))[5])
        await (ctl := await opened(cmd, "0/ctl", "w")).write("unkeep")
        await ctl.close()
        await gone(pid)
        assert await ls(cmd) == ["clone"]


async def test_nothing_stays_when_the_server_ends(nursery: trio.Nursery) -> None:
    async with nothing_left(), tree(grace=0.2) as cmd:
        await (await opened(cmd, "clone", "w")).write("keep\nexec sleep 1000\n")
        await (await opened(cmd, "clone", "w")).write("exec sh -c 'trap \"\" HUP; while :; do sleep 1000; done'\n")
        await (await opened(cmd, "clone", "w")).write("size 24 80\nexec cat\n")
        assert len(children()) >= 3
    async with nothing_left():
        with trio.CancelScope() as scope:
            async with tree(grace=0.2) as cmd:
                await (await opened(cmd, "clone", "w")).write("keep\nexec sleep 1000\n")
                scope.cancel()
                await trio.lowlevel.checkpoint()


async def test_a_cancelled_exec_leaves_nothing(cmd: Dir) -> None:
    async with nothing_left(), talk(cmd) as t:
        with trio.CancelScope() as scope:
            scope.cancel()
            await settle(t.ctl.handle.write(0, memoryview(b"exec sleep 1000")))
        assert scope.cancelled_caught
        assert split(await t.read("status"))[2] == "Open"
