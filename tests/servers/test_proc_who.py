"""proc: which process is meant, and who may look into it and steer it: real processes of several users, and made-up ones."""

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from mk9p.errors import NineError
from mk9p.servers.proc import tree
from mk9p.tree import Dir, settle
from tests.servers.processes import (
    NOBODY,
    Start,
    Started,
    heard,
    plant_process,
    reached,
    root_only,
    stat,
)
from tests.servers.trees import ls, mode, opened, read, walk, write


async def test_a_number_used_again_is_another_process(tmp_path: Path) -> None:
    plant_process(tmp_path, 50, start=1000)
    proc = tree(root=str(tmp_path))
    old = await walk(proc, "50")
    assert old is await walk(proc, "50")
    status, ctl = await opened(old, "status"), await opened(old, "ctl", "w")
    plant_process(tmp_path, 50, start=2000)
    with pytest.raises(ProcessLookupError, match="process exited"):
        status.read(0, 100)
    with pytest.raises(ProcessLookupError, match="process exited"):
        ctl.write(0, memoryview(b"kill"))
    assert await walk(proc, "50") is not old
    assert (await read(proc, "50/status")).startswith("made_up ")


async def test_a_made_up_proc_reaches_no_real_process(tmp_path: Path, cat: Started) -> None:
    plant_process(tmp_path, cat.pid, start=1)
    proc = tree(root=str(tmp_path))
    assert await read(proc, f"{cat.pid}/ctl") == "nice 0\nwired 0-1\nsched other 0\ncgroup '/some slice'\n"
    for word in ("kill", "nice 3", "wired 0", "sched idle", "cgroup /"):
        with pytest.raises(NineError, match="is not the /proc of this server"):
            await write(proc, f"{cat.pid}/ctl", word)
    with pytest.raises(NineError, match="is not the /proc of this server"):
        await opened(proc, f"{cat.pid}/wait")
    assert cat.poll() is None


async def test_this_server_is_not_ended_through_itself(proc: Dir) -> None:
    for file, word in (("ctl", "kill"), ("ctl", "stop"), ("note", "TERM")):
        with pytest.raises(PermissionError, match="this process is the server that you speak to"):
            await write(proc, f"{os.getpid()}/{file}", word)


async def test_permission_bits(proc: Dir, cat: Started) -> None:
    bits = {name: await mode(proc, f"{cat.pid}/{name}") for name in await ls(proc, str(cat.pid))}
    assert bits == {
        **dict.fromkeys(("status", "wait", "error"), 0o444),
        **dict.fromkeys(("args", "cwd", "environ", "exe", "fd", "maps", "ns"), 0o400),
        **dict.fromkeys(("ctl", "mem"), 0o600),
        "note": 0o200,
    }


@root_only
async def test_whose_a_process_is(proc: Dir, start: Start) -> None:
    mine = start("cat", user=NOBODY.uid, group=NOBODY.uid, extra_groups=[])
    await reached(mine, proc, "Sleep")
    assert await stat(proc, str(mine.pid)) == (0o555, NOBODY.uid)
    assert await stat(proc, f"{mine.pid}/status") == (0o444, NOBODY.uid)
    assert await stat(proc, f"{mine.pid}/mem") == (0o600, NOBODY.uid)
    assert (await read(proc, f"{mine.pid}/status")).split()[1] == "nobody"
    assert await read(proc, f"{mine.pid}/cwd", NOBODY)
    ctl = f"{mine.pid}/ctl"
    nice = max(5, os.getpriority(os.PRIO_PROCESS, 0))
    await write(proc, ctl, f"nice {nice}\nsched idle\nwired 0", NOBODY)
    for word in (f"nice {nice - 1}", "sched other", "sched fifo 1", "cgroup /"):
        with pytest.raises(PermissionError):
            await write(proc, ctl, word, NOBODY)
    assert os.getpriority(os.PRIO_PROCESS, mine.pid) == nice
    await write(proc, ctl, "kill", NOBODY)
    assert await trio.to_thread.run_sync(mine.wait) == -signal.SIGKILL


@root_only
async def test_somebody_elses_process_is_closed_at_each_use(proc: Dir, cat: Started) -> None:
    n = cat.pid
    for word in ("kill", "stop", "start", "nice 9", "wired 0", "sched idle"):
        with pytest.raises(PermissionError):
            await write(proc, f"{n}/ctl", word, NOBODY)
    with pytest.raises(PermissionError):
        await write(proc, f"{n}/note", "INT", NOBODY)
    for name in ("cwd", "environ", "exe", "fd", "maps", "mem", "ns"):
        with pytest.raises(PermissionError):
            await read(proc, f"{n}/{name}", NOBODY)
    assert cat.poll() is None


SWITCH = """
import os, sys
def uids(*u):
    os.setresuid(*u); print(flush=True); sys.stdin.readline()
nobody = int(sys.argv[1])
uids(nobody, nobody, nobody)
"""


@root_only
async def test_a_process_that_changed_its_user_or_can_go_back_is_roots(proc: Dir, start: Start) -> None:
    back = start(
        sys.executable, "-c", SWITCH.replace("uids(nobody, nobody, nobody)", "uids(-1, nobody, 0)"), str(NOBODY.uid)
    )
    assert heard(back) == "\n"
    assert await stat(proc, str(back.pid)) == (0o555, NOBODY.uid)  # so ps shows it
    assert await stat(proc, f"{back.pid}/mem") == (0o600, 0)
    for_good = start(sys.executable, "-c", SWITCH, str(NOBODY.uid))
    assert heard(for_good) == "\n"
    assert await stat(proc, f"{for_good.pid}/mem") == (
        0o600,
        0,
    )  # not dumpable: what it read as root may still be in it
    with pytest.raises(PermissionError):
        await write(proc, f"{for_good.pid}/ctl", "kill", NOBODY)


@root_only
async def test_the_guard_of_a_made_up_process(tmp_path: Path) -> None:
    uid = NOBODY.uid
    plant_process(tmp_path, 50, start=1, uid=uid)
    plant_process(tmp_path, 51, start=1, uid=uid, uids=f"{uid} {uid} 0 {uid}")
    proc = tree(root=str(tmp_path))
    assert await stat(proc, "50/environ") == (0o400, uid)
    assert await stat(proc, "51/environ") == (0o400, 0)
    handle = await opened(proc, "50/environ", who=NOBODY)
    assert bytes(await settle(handle.read(0, 100))) == b"A=1\nB=2\n"
    plant_process(tmp_path, 50, start=1, uid=0)  # a set-uid program runs in it now
    with pytest.raises(PermissionError):
        await settle(handle.read(0, 100))


NAMED = """
import ctypes, os, sys
nobody, name = int(sys.argv[1]), sys.argv[2]
os.setresgid(nobody, nobody, nobody)
os.setresuid(nobody, nobody, 0)
libc = ctypes.CDLL(None)
PR_SET_DUMPABLE, PR_SET_NAME = 4, 15
assert libc.prctl(PR_SET_DUMPABLE, 1) == 0
assert libc.prctl(PR_SET_NAME, name.encode()) == 0
print(flush=True)
sys.stdin.readline()
"""


@root_only
@pytest.mark.parametrize("odd", ["\r", "\v", "\f", "\x85", "\u2028"], ids=ascii)
async def test_no_name_of_a_process_says_whose_it_is(proc: Dir, start: Start, odd: str) -> None:
    uid = str(NOBODY.uid)
    named = start(sys.executable, "-c", NAMED, uid, f"x{odd}Uid:{uid}")
    assert heard(named) == "\n"
    assert await stat(proc, f"{named.pid}/environ") == (0o400, 0)
    with pytest.raises(PermissionError):
        await read(proc, f"{named.pid}/environ", NOBODY)
    with pytest.raises(PermissionError):
        await write(proc, f"{named.pid}/ctl", "stop", NOBODY)
