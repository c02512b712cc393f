"""Start processes for tests of `proc`, and make up others on disk."""

import os
import pwd
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import trio

from mk9p.auth import Principal
from mk9p.testing import SOON
from mk9p.tree import Dir, Node, settle
from tests.servers.trees import plant, read, walk

NOBODY = Principal("nobody", pwd.getpwnam("nobody").pw_uid)
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of other users")

Started: TypeAlias = "subprocess.Popen[bytes]"
Start = Callable[..., Started]


def heard(made: Started) -> str:
    """Return the next line that a program says: it runs then, and is no mere fork of the tests."""
    assert made.stdout is not None
    return made.stdout.readline().decode()


def tell(made: Started, text: str = "\n") -> None:
    assert made.stdin is not None
    made.stdin.write(text.encode())
    made.stdin.flush()


async def stat(tree: Node, path: str) -> tuple[int, int]:
    found = await settle((await walk(tree, path)).stat())
    return found.mode & 0o777, found.uid


async def reached(process: subprocess.Popen[bytes], proc: Dir, state: str) -> None:
    with trio.fail_after(SOON):
        while (await read(proc, f"{process.pid}/status")).split()[2] != state:
            await trio.lowlevel.checkpoint()


def plant_process(root: Path, n: int, *, start: int, uid: int = 0, uids: str = "") -> None:
    """Make up a process with what the server reads of one."""
    fields = ["S", "1"] + ["0"] * 17 + [str(start)] + ["0"] * 30
    at = f"proc/{n}"
    plant(
        root,
        {
            f"{at}/stat": f"{n} (made up) {' '.join(fields)}",
            f"{at}/status": f"Uid:\t{uids or ' '.join([str(uid)] * 4)}\nCpus_allowed_list:\t0-1",
            f"{at}/environ": "",
            f"{at}/cgroup": "1:cpu:/old\n0::/some slice",
        },
    )
    (root / at / "environ").write_text("A=1\0B=2\0")
    os.chown(root / at, uid, uid)
    os.chown(root / f"{at}/environ", uid, uid)
