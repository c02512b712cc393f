"""A machine or a container without FUSE or v9fs: one line that says what to do, and the errno of it."""

import os
import sys
from pathlib import Path

import pytest
import trio

from mk9p.testing import serving_at
from mk9p.tree import Dir

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes mount namespaces")

# a /dev that has no FUSE, one whose file system has no devices (as in a container that was given none), one that is another device
DEVICES = {
    "absent": ("rm fuse", "no /dev/fuse: `modprobe fuse`, or use a kernel with FUSE or 9p"),
    "not ours": (
        "mount -o remount,nodev .",
        "/dev/fuse is closed to this user: a container needs `--device /dev/fuse`",
    ),
    "no driver": ("rm fuse; mknod fuse c 250 3", "/dev/fuse is no way to FUSE here: No such device or address"),
}


async def mount(folder: Path, prepare: str, *words: str) -> tuple[int, str]:
    """Say `mk9p mount` where /dev was prepared; return its status, and what it says."""
    script = f"""
        mount -t tmpfs none "$1/dev"; cd "$1/dev"; mknod fuse c 10 229; mknod -m 666 null c 1 3; {prepare}; cd /
        mount --rbind "$1/dev" /dev; shift; exec "$@"
    """
    (folder / "dev").mkdir()
    (folder / "here").mkdir()
    async with serving_at(f"unix!{folder}/socket", Dir({})) as host:
        command = ["unshare", "--mount", "sh", "-ec", script, "sh", str(folder)]
        mk9p = [sys.executable, "-m", "mk9p", "mount", *words, host.address, str(folder / "here")]
        done = await trio.run_process([*command, *mk9p], capture_stdout=True, capture_stderr=True, check=False)
        return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize(("prepare", "words"), DEVICES.values(), ids=DEVICES)
async def test_without_fuse(tmp_path: Path, prepare: str, words: str) -> None:
    assert await mount(tmp_path, prepare, "--fuse") == (1, f"mk9p mount: {words}\n")
