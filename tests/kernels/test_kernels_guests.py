"""Real kernels: booted, talked to, halted, panicked, and gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import trio

from servers.kernels import backend
from tests.kernels.guests import BACKENDS, booted, processes_of, require

KINDS = pytest.mark.parametrize("kind", ["qemu", "uml"])


@KINDS
async def test_boots_runs_talks_and_halts(kind: str, home: Path) -> None:
    require(kind)
    async with booted(kind, home, cpus=2 if kind == "qemu" else 1) as guest:
        status, text = await guest.run(f"hostname; nproc; cat {__file__} | wc -c; stat -f -c %T /sys/fs/cgroup; exit 7")
        name, cpus, size, cgroup = text.split()
        assert (status, name, cgroup) == (7, "t1", "cgroup2fs")
        assert int(cpus) == (2 if kind == "qemu" else 1)
        assert int(size) == Path(__file__).stat().st_size  # the host's own files
        assert (await guest.run(f"echo x > {home}/new && cat {home}/new"))[1] == "x\n"
        assert not (home / "new").exists()  # and they are safe from it
        # the console: its history, and its keyboard
        await guest.until(b"mk9p: t1 has booted")
        await guest.running.send(b"echo it is $((6 * 7))\n")
        await guest.until(b"it is 42")
        if kind == "qemu":
            assert Path("/dev/hvc1").exists() or (await guest.run("test -c /dev/hvc0 -a -c /dev/hvc1"))[0] == 0
        pid = guest.running.pid
        assert Path(f"/proc/{pid}").exists()
        await guest.running.halt()
        await guest.over.wait()
    assert guest.reason == "halted"
    assert b"t1 is going down" in guest.said
    assert not Path(f"/proc/{pid}").exists()
    assert not (home / "t1").exists()


@KINDS
async def test_a_panic_is_noticed_at_once(kind: str, home: Path) -> None:
    require(kind)
    async with booted(kind, home, hostroot=False) as guest:
        await guest.run("true")
        before = time.monotonic()
        with pytest.raises(OSError, match="not running"):
            await guest.run("echo c > /proc/sysrq-trigger")
        await guest.over.wait()
        took = time.monotonic() - before
    assert guest.reason == "panicked"
    assert b"sysrq triggered crash" in guest.said
    assert took < 1 or os.getloadavg()[0] > 2 * (os.cpu_count() or 1), f"{took:.1f} s"


async def test_a_reboot_is_told_from_an_end(home: Path) -> None:
    require("qemu")
    async with booted("qemu", home, hostroot=False) as guest:
        with pytest.raises(OSError, match="not running"):
            await guest.run("busybox reboot -f")
        await guest.over.wait()
    assert guest.reason == "rebooted"


async def test_killed_from_outside(home: Path) -> None:
    require("qemu")
    async with booted("qemu", home) as guest:
        os.kill(guest.running.pid, signal.SIGKILL)
        await guest.over.wait()
    assert guest.reason == "killed"
    assert not (home / "t1").exists()


async def test_a_wrong_device_is_told_in_the_emulators_own_words(home: Path) -> None:
    require("qemu")
    async with booted("qemu", home, devices=("-device", "no-such-thing")) as guest:
        await guest.over.wait()
    assert "no-such-thing" in guest.reason


OWNER = """
    import sys, trio
    from pathlib import Path
    from servers.kernels import backend, qemu, uml

    async def main():
        for kind, chosen in (("qemu", qemu.Qemu()), ("uml", uml.Uml())):
            spec = backend.Spec(name=kind, kernel=chosen.kernel, serve=("cpu",))
            running = await chosen.start(spec, Path(sys.argv[1]) / kind)
            print(kind, running.pid, flush=True)
        await trio.sleep_forever()

    trio.run(main)
"""


async def test_nothing_survives_its_owner(home: Path) -> None:
    """SIGKILL in mid-boot: the guests, their helpers, namespaces and folders go too."""
    require("qemu", "uml")
    for chosen in BACKENDS.values():
        await chosen.prepare(backend.Spec(name="t1", kernel=chosen.kernel), report=print)
    owner = await trio.lowlevel.open_process(
        [sys.executable, "-c", textwrap.dedent(OWNER), str(home)], stdout=subprocess.PIPE
    )
    try:
        assert owner.stdout is not None
        said = b""
        with trio.fail_after(30):
            while said.count(b"\n") < 2:
                data = await owner.stdout.receive_some()
                assert data, "the owner ended"
                said += data
        assert len(processes_of(home)) >= 4  # two keepers, two guests
        netns = Path(f"/run/netns/mk9p-{owner.pid}-uml")
        assert netns.exists()
        assert (home / "qemu/serve").exists()
    finally:
        owner.kill()
        await owner.wait()
        await owner.stdout.aclose()
    with trio.fail_after(10):  # the keepers are nobody's children now: there is nothing to wait on but what they do
        while processes_of(home) or netns.exists() or any(home.iterdir()):
            await trio.sleep(0.02)
