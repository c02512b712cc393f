"""Kernels as processes: user-mode Linux, at native speed, with one CPU and no hardware.

What was learned:
* Its ttys stop receiving for good after a burst of some 4 KiB, so 9P goes over TCP: a tap in a network namespace of this guest alone, where the
  guest is 10.0.2.15 and the host is 10.0.2.2. Nothing outside that namespace can see it. Inside the guest all its users can. So the guest serves
  only the host, and the listener on the host asks for a port that only root can have (the composer does).
* It is a crowd of processes, and does not always take them along: so it lives in a PID namespace of its own.
* Whoever is root in it can make this process do anything: so it has a user of its own, and sees nothing of this machine except programs
  (emulator.py).
* linux.uml 6.1 dies on CPUs with AMX, except with the shim `umlfp.c`, which is compiled when it is first needed.
* It reboots by executing itself again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import struct
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mk9p.errors import NineError
from mk9p.itself import unique
from mk9p.ktext import split_words

from . import agent, backend, bare, channel, emulator, guest, images, initramfs, keeper, limits, packages, tools
from .brought import brought

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CMDLINE: Final = "quiet panic=-1 cryptomgr.notests con=null con0=fd:{console},fd:{console} ssl=null"
GUEST: Final = "10.0.2.15"
HOST: Final = "10.0.2.2"
PORT: Final = 564
SHIM: Final = "umlfp.c"
MCONSOLE_MAGIC: Final = 0xCAFEBABE  # arch/um/drivers/mconsole.h: struct mconsole_request { u32 magic; u32 version; u32 len; char data[512]; }
MCONSOLE_VERSION: Final = 2
OWN_MEMORY: Final = (
    512 << 20
)  # of the processes beside what is the guest's: page tables of a thousand, and files that they read
PROCESSES: Final = 8192  # each of the guest's is one of this machine


@attrs.frozen
class Uml:
    """User-mode Linux (backend.Backend)."""

    kernel: str = "uml"
    ground: None = None
    there: bool = False
    grows: bool = False

    async def prepare(self, spec: backend.Spec, *, report: Callable[[str], None]) -> None:
        """Fetch the kernel, build its initramfs, compile the shim."""
        await self._prepare(spec, report)

    async def _prepare(self, spec: backend.Spec, report: Callable[[str], None]) -> tuple[images.Image, Path, Path]:
        tools.need_root("a uml kernel needs a network namespace of its own (backend qemu does not)")
        tools.need("ip")
        if not os.path.exists("/dev/net/tun"):  # noqa: ASYNC240 - /dev is memory
            raise NineError(errno.ENODEV, "a uml kernel needs /dev/net/tun: modprobe tun")
        if spec.cpus != 1:
            raise NineError(errno.EINVAL, "a uml kernel has 1 cpu")
        if spec.devices:
            raise NineError(errno.EINVAL, "a uml kernel has no devices")
        image = await images.get(spec.kernel, report=report)
        if not image.uml:
            raise NineError(errno.EINVAL, f"kernel {spec.kernel} is not a user-mode Linux: backend qemu runs it")
        return image, spec.initrd or await initramfs.build(image, modules=spec.modules), await shim(report)

    async def start(self, spec: backend.Spec, directory: Path) -> guest.Guest:
        """Start a user-mode Linux in a keeper, with its namespaces."""
        image, initrd, preload = await self._prepare(spec, images.silent)
        netns, user, own = unique(spec.name), emulator.user(spec.name), directory / "own"
        group = unique(f"frozen-{spec.name}")
        ip, net = tools.need("ip"), [tools.need("ip"), "-n", netns]
        before = [
            [ip, "netns", "add", netns],
            [*net, "link", "set", "lo", "up"],
            [*net, "tuntap", "add", "tap0", "mode", "tap", "user", str(user)],
            [*net, "addr", "add", f"{HOST}/24", "dev", "tap0"],
            [*net, "link", "set", "tap0", "up"],
            *emulator.prepared(own, user),
            *(_exchange(own, user) if spec.agent else ()),
            # Only root can enter the namespace, and no user of the guest can come from the host's address: so the names that come from there are
            # those of the host's own peers.
            *spec.lay(own, f"tcp!{GUEST}!{PORT}", "--trust", "--from", HOST),
        ]
        with channel.Channels() as pairs:
            console = pairs.open()
            talk = pairs.open() if spec.agent else None
            given = spec.parameters(emulator.OWN)
            words = split_words(f"{CMDLINE.format(console=console.number)} mk9p.net={GUEST} {given}")
            if talk is not None:
                words += [f"ssl0=fd:{talk.number},fd:{talk.number}", "mk9p.agent=/dev/ttyS0"]
            if spec.hostroot:
                words.append("mk9p.root=hostfs")
            linux = [
                *("env", f"LD_PRELOAD={preload}", "TMPDIR=/dev/shm", str(image.file)),
                *(f"mem={spec.memory >> 20}M", f"initrd={initrd}", f"uml_dir={emulator.OWN}/run", "umid=uml"),
                *("vec0:transport=tap,ifname=tap0,depth=128,gro=1", *words),
            ]
            shown = emulator.shown(image.file, initrd, preload, *spec.shown)
            room = limits.Group.of(spec.name, memory=spec.memory + OWN_MEMORY, processes=PROCESSES)
            held = await keeper.keep(
                directory,
                [
                    *(tools.need("nsenter"), f"--net=/run/netns/{netns}", "--"),
                    *emulator.placed(own, shown, linux, number=user, needs=["tun", *(["whole"] if spec.whole else ())]),
                ],
                crowd=True,
                group=room,
                before=before,
                after=[*emulator.undone(own), [ip, "netns", "del", netns], *bare.undone(group)],
                descriptors=pairs.numbers,
            )

        async def go_down() -> None:
            ask(own / "run/uml/mconsole", "cad")

        return guest.Guest(
            held,
            console,
            None if talk is None else agent.Agent(talk, own / "agent"),
            dial=f"/run/netns/{netns}/tcp!{GUEST}!{PORT}",
            listen=f"/run/netns/{netns}/tcp!{HOST}!{PORT}",
            guest_dial=f"tcp!{HOST}!{PORT}",
            go_down=go_down,
            judge=judge,
            machine=bare.Crowd("a uml kernel", eldest=lambda: held.pid, group=group),
            channels=pairs,
        )


def _exchange(own: Path, user: int) -> list[list[str]]:
    """Return the commands that make the agent's folder. Nobody can put anything in the place of its two files, whoever writes them."""
    folder = own / "agent"
    return [
        ["install", "-d", "-m", "755", str(folder)],
        ["install", "-m", "644", "/dev/null", str(folder / "c")],
        ["install", "-m", "600", "-o", str(user), "/dev/null", str(folder / "o")],
    ]


def judge(status: int) -> str:
    """Return why a user-mode Linux ended: a panic sets its exit code to 1, or aborts it (arch/um/kernel/um_arch.c: panic_exit)."""
    return {0: "halted", 1: "panicked", 134: "panicked"}.get(status, "")


def ask(mconsole: Path, command: str) -> None:
    """Send an order to a user-mode Linux's management console; nobody needs its answer. Raises NineError (EIO) when it is gone."""
    data = command.encode()
    request = struct.pack("<III512s", MCONSOLE_MAGIC, MCONSOLE_VERSION, len(data), data)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as end:
        end.bind("")  # the host chooses the name: UML complains when it cannot answer
        try:
            end.sendto(request, str(mconsole))
        except OSError:
            raise NineError(errno.EIO, "the kernel is not running") from None


async def shim(report: Callable[[str], None]) -> Path:
    """Return the shim that linux.uml needs on some CPUs, and first compile it into the cache if it is missing."""
    source = brought(SHIM).read_bytes()
    path = packages.cache() / f"umlfp-{hashlib.sha256(source).hexdigest()[:16]}.so"
    if not path.exists():
        report("compiling umlfp.c")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(unique(path.name))
        gcc = [tools.need("gcc"), "-O2", "-Wall", "-shared", "-fPIC", "-o", str(part), str(brought(SHIM))]
        made = await trio.run_process(gcc, capture_stderr=True, check=False)
        if made.returncode != 0:
            words = re.search(r"error: .*", made.stderr.decode(errors="replace"))
            raise NineError(
                errno.ENOEXEC,
                f"umlfp.c cannot be compiled ({words[0] if words else 'gcc failed'}): apt-get install -y gcc libc6-dev",
            )
        part.rename(path)
    return path
