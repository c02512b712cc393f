"""An exported directory of the host, mounted with v9fs in a guest: POSIX's cases after pjdfstest's, an exerciser after fsx, and dbench.

What fails is in lists here, with its reason in docs/fs.md; a case that is in a list and does not fail is an error, too.
"""

import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from mk9p.server import Limits
from mk9p.servers.fs import tree
from mk9p.testing import serving_at
from tests.kernels.guests import Guest, booted, require
from tests.vm.lab_vm import Believed

TOP = Path(__file__).parents[2]
PATIENCE = 600
# What a mount cannot do, or does otherwise; docs/fs.md says why.
OTHERWISE = {
    "open/O_TMPFILE",
    "mknod/device",
    "chown/own-group",
    "access/group",
    "utime/ns",
    "utime/before-1970",
    "names/not-utf-8",
    "flock/exclusive-of-read-only",
    "lock/one-process-two-fds",
}
CACHES = ("none", "mmap", "loose")
MORE = {
    ("uml", "none"): {"mmap/shared-write"},
    ("uml", "loose"): {"lseek/data-of-sparse"},
    ("6.12", "none"): {"mmap/shared-write"},
}  # by the kernel and the mount's cache option


@attrs.define
class Mounted:
    """A guest, and where it has the directory mounted."""

    guest: Guest
    where: str = "/mnt/fs"

    async def sh(self, script: str) -> str:
        assert self.guest.running.agent is not None
        with trio.fail_after(PATIENCE):
            status, output = await self.guest.running.agent.run(script, seconds=PATIENCE - 10)
        assert status == 0, output
        return output

    async def mount(self, cache: str) -> None:
        await self.sh(
            f"mkdir -p {self.where}; cd /; umount {self.where} 2>/dev/null;"
            f"{sys.executable} -m mk9p mount --v9fs --xattr --cache {cache} '{self.guest.running.guest_dial}' {self.where}"
        )


@asynccontextmanager
async def exported(
    host: Path, home: Path, kind: str, kernel: str, limits: Limits | None = None
) -> AsyncIterator[Mounted]:
    """Boot a guest, and serve it a directory on the host's end of its line."""
    async with (
        booted(kind, home, seconds=PATIENCE, kernel=kernel, memory=512 << 20) as guest,
        tree(str(host)) as root,
        serving_at(guest.running.listen, root, Believed(), limits=limits),
    ):
        yield Mounted(guest)


def judge(output: str) -> dict[str, str]:
    """Return what failed, with what came instead."""
    lines = [line for line in output.splitlines() if line.startswith(("ok ", "FAIL "))]
    assert len(lines) > 700, output
    return {
        name: what
        for name, _, what in (line.removeprefix("FAIL ").partition(": ") for line in lines if line.startswith("FAIL"))
    }


@pytest.mark.parametrize(("kind", "kernel"), [("uml", "uml"), pytest.param("qemu", "6.12", marks=pytest.mark.minutes)])
async def test_posix_fsx_and_dbench_on_a_mount(host: Path, home: Path, kind: str, kernel: str, long: bool) -> None:
    """On 6.1 over tcp, on 6.12 over a virtio port and a relay; that one is emulated. Without much time: one cache, and little of fsx and dbench."""
    require(kind)
    seeds, steps, seconds = (3, 400, 5) if long else (1, 100, 1)
    async with exported(host, home, kind, kernel) as mounted:
        for cache in CACHES if long else CACHES[:1]:
            await mounted.mount(cache)
            output = await mounted.sh(
                f"mkdir {mounted.where}/p; cd {TOP}; python3 -B -m tests.vm.posix_cases {mounted.where}/p 2>&1; rm -rf {mounted.where}/p"
            )
            failed = judge(output)
            print(cache, failed)
            for seed in range(seeds):
                said = await mounted.sh(f"python3 {TOP}/tests/vm/exerciser.py {mounted.where}/fsx {seed} {steps}")
                assert said == "ok\n"
            if shutil.which("dbench"):
                said = await mounted.sh(
                    f"mkdir -p {mounted.where}/db; dbench -D {mounted.where}/db -c /usr/share/dbench/client.txt -t {seconds} 2 2>&1 | tail -3"
                )
                assert "Throughput" in said, said
                print(said)
            assert set(failed) == OTHERWISE | MORE.get((kernel, cache), set()), (cache, failed)
        await mounted.sh(f"rm -rf {mounted.where}/*; umount {mounted.where}")
        assert os.listdir(host) == []
