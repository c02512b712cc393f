"""`mk9p apply` and `mk9p diff` on made-up kernels."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mk9p.client import connect
from mk9p.clients.lab import start_kernel
from mk9p.errors import NineError
from mk9p.testing import serving_at
from mk9p.tree import Dir, Lazy
from tests.clients.test_looking import run
from tests.kernels.moving import boots_itself, moving
from tests.kernels.test_kernels_desired import Names

if TYPE_CHECKING:
    from pathlib import Path

LAB = """
[pool]
cpus = "4"
[namespace]
lines = ["bind /k/k1 /mine"]
[k1]
cpus = 2
isolated = "1"
"""

WORDS = """\
echo cpu add 4 > kernels/pool/ctl
echo create k1 > kernels/ctl
echo cpus 2 > kernels/k1/ctl
echo load > kernels/k1/ctl
echo start > kernels/k1/ctl
echo isolate 1 > k/k1/cpu/ctl
echo bind /k/k1 /mine > ctl
"""


async def test_a_lab_file_is_shown_applied_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(LAB)
    async with moving(tmp_path) as here:
        await here.say("ctl", "delete k1")
        boots_itself(here)
        names, trees = Names(), here.lab.backend.trees
        outside = names.tree()
        trees[""] = outside

        branches = Dir(Lazy(lambda: list(here.inner), trees.__getitem__))
        root = Dir({"kernels": here.lab.top, "k": branches}, *outside.children)
        async with serving_at(f"unix!{tmp_path}/s", root) as host:
            assert await run(host.address, "diff", str(file)) == (1, WORDS)
            assert await run(host.address, "apply", "--dry-run", str(file)) == (0, WORDS)
            assert await here.read("status") == ""
            assert await run(host.address, "apply", str(file)) == (0, WORDS)
            assert await run(host.address, "diff", str(file)) == (0, "")
            assert await run(host.address, "apply", str(file)) == (0, "")
            assert await here.read("desired") == LAB.removesuffix("\n")
            assert (here.inner["k1"].isolated, names.lines) == ({1}, ["bind /k/k1 /mine"])
            file.write_text(LAB.replace("cpus = 2", "cpus = 3\nmemory = '1G'"))
            said = f"mk9p: at its next start, k1: memory {1 << 30} (or now, with --restart)\n"
            assert await run(host.address, "apply", "--once", str(file)) == (
                0,
                f"echo cpu add 4 > kernels/k1/ctl\n{said}",
            )
            assert await here.read("desired") == ""
            file.write_text(LAB.replace("cpus = 2", "cpuz = 2"))
            status, said = await run(host.address, "apply", str(file))
            assert (status, said.partition("unknown key")[0]) == (1, f"mk9p apply: {file}: k1: ")
            file.write_text(LAB.replace("cpus = 2", "cpus = 9"))
            status, said = await run(host.address, "apply", str(file))
            assert (status, said) == (1, "mk9p apply: k1 lacks 6 CPUs, and the pool has 0\n")
            file.write_text(LAB)
            await run(host.address, "apply", str(file))
            assert await here.read("desired") == LAB.removesuffix("\n")
            async with connect(host.address) as ns:  # as `mk9p up` does
                await start_kernel(ns, "k8", {"cmdline": "quiet"})
                assert "load made-up cmdline quiet\n" in await here.read("k8/config")
            file.write_text("[k9]\n")
            here.lab.backend.refuse = NineError(errno.ENOENT, "zstd is missing")
            assert (await run(host.address, "apply", str(file)))[0] == 1
            assert await here.read("desired") == LAB.removesuffix("\n")
