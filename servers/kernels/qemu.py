"""Kernels under QEMU, emulated (TCG): any x86-64 kernel, with several CPUs, PCI, hotplug; it needs neither KVM nor root.

What was learned (each was measured over tens of boots):
* `-accel tcg` always: a /dev/kvm may be there and not run ordinary guests. `thread=single`: with one thread for each CPU, kernels panic now and
  then while they patch their own text. Machine `pc`: `microvm` often hangs in its clock calibration.
* A virtserialport waits when the socket behind it is full. A virtconsole (a tty, /dev/hvcN) does not: QEMU drops what the guest says
  (hw/char/virtio-console.c, flush_buf), and then the conversation stands still, after megabytes. So a port carries the tree, and another port the
  namespace. v9fs itself takes a tty and refuses a port, which has no read_iter: `mk9p mount` puts a relay between.
* The device pvpanic reports a panic at once. `-no-reboot` turns a reboot into an end, after which whoever started the kernel starts it again.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final

import attrs

from mk9p.errors import NineError

from . import agent, backend, channel, emulator, guest, hardware, images, initramfs, keeper, limits, qmp, tools

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# without crypto self-tests, which take 0.3 s of a boot
CMDLINE: Final = "quiet panic=-1 cryptomgr.notests no_timer_check console=ttyS0"
SERVE_PORT: Final = 1  # 0 is a console's
SERVE: Final = f"/dev/vport0p{SERVE_PORT}"
NAMESPACE_PORT: Final = 2
NAMESPACE: Final = f"/dev/vport0p{NAMESPACE_PORT}"
MAX_CPUS: Final = 255
OWN_MEMORY: Final = 1536 << 20  # of QEMU beside what is the guest's: 1 GiB of translated code, and its devices
THREADS: Final = 512  # one computes, and at most 64 for each disk wait for it
SPARE_CPUS: Final = (
    8  # CPUs that it may have in all when nobody says how many: those that are never online cost nothing
)
REASONS: Final = {
    "guest-shutdown": "halted",
    "guest-reset": "rebooted",
    "host-qmp-system-reset": "rebooted",
    "guest-panic": "panicked",
    "host-qmp-quit": "killed",
    "host-signal": "killed",
}


@attrs.define(eq=False)
class Monitor:
    """What QEMU tells of its end, and how it is asked for one."""

    qmp: qmp.Qmp
    machine: hardware.Hardware
    reason: str = ""

    @classmethod
    def of(cls, line: channel.Channel, most: int) -> Monitor:
        talk = qmp.Qmp(line)
        monitor = cls(talk, hardware.Hardware(talk, most))
        monitor.qmp.happens = monitor.happens
        return monitor

    def happens(self, name: str, data: dict[str, Any]) -> None:
        """Take an event."""
        if name == "GUEST_PANICKED":
            self.reason = "panicked"
        elif name == "SHUTDOWN" and not self.reason:
            self.reason = REASONS.get(str(data.get("reason")), "")
        self.machine.happens(name, data)

    async def go_down(self) -> None:
        """Press the three keys, which the guest's PID 1 takes for an orderly end (guest/boot.sh)."""
        await self.qmp.order("send-key", keys=[{"type": "qcode", "data": key} for key in ("ctrl", "alt", "delete")])


@attrs.frozen
class Qemu:
    """QEMU with its TCG (backend.Backend)."""

    kernel: str = "6.1"
    ground: None = None
    there: bool = False
    grows: bool = True

    async def prepare(self, spec: backend.Spec, *, report: Callable[[str], None]) -> None:
        """Find QEMU, fetch the kernel, build its initramfs."""
        await self._prepare(spec, report)

    async def _prepare(self, spec: backend.Spec, report: Callable[[str], None]) -> tuple[images.Image, Path]:
        tools.need("qemu-system-x86_64")
        if not 1 <= spec.cpus <= MAX_CPUS:
            raise NineError(errno.EINVAL, f"a qemu kernel has 1 to {MAX_CPUS} cpus")
        image = await images.get(spec.kernel, report=report)
        if image.uml:
            raise NineError(errno.EINVAL, f"kernel {spec.kernel} is a user-mode Linux: backend uml runs it")
        return image, spec.initrd or await initramfs.build(image, modules=spec.modules)

    async def start(self, spec: backend.Spec, directory: Path) -> guest.Guest:
        """Start QEMU in a keeper."""
        image, initrd = await self._prepare(spec, images.silent)
        most = max(spec.cpus, spec.most_cpus or SPARE_CPUS)
        own, serve, namespace = directory / "own", "run/serve", "line/namespace"
        placed = os.geteuid() == 0  # else the guest sees what the user who started it sees
        user = emulator.user(spec.name) if placed else None
        seen = emulator.OWN if user is not None else str(own)  # its own place as QEMU sees it
        with channel.Channels() as pairs:
            console, line = pairs.open(), pairs.open()
            talk = pairs.open() if spec.agent else None
            words = [
                f"{CMDLINE} maxcpus={spec.cpus}",
                "mk9p.root=9p" if spec.hostroot else "",
                "mk9p.agent=virtio" if talk else "",
                spec.parameters(emulator.OWN if placed else str(own)),
            ]
            argv = [
                *(
                    tools.need("qemu-system-x86_64"),
                    "-name",
                    spec.name,
                    "-accel",
                    "tcg,thread=single",
                    "-cpu",
                    "max",
                    "-M",
                    "pc",
                ),
                *(
                    "-m",
                    f"size={spec.memory >> 20}M,slots=1,maxmem={(spec.memory + hardware.room()) >> 20}M",
                    "-smp",
                    f"{most}",
                    "-nodefaults",
                    "-no-user-config",
                    "-sandbox",
                    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
                    "-display",
                    "none",
                    "-no-reboot",
                ),
                *(
                    "-kernel",
                    f"{image.file}",
                    "-initrd",
                    f"{initrd}",
                    "-append",
                    " ".join(words),
                    "-device",
                    "pvpanic-pci",
                ),
                *("-chardev", f"socket,id=console,fd={console.number}", "-serial", "chardev:console"),
                *("-chardev", f"socket,id=qmp,fd={line.number}", "-mon", "chardev=qmp,mode=control"),
                *("-device", "virtio-serial-pci"),
                *(
                    "-chardev",
                    f"socket,id=serve,path={seen}/{serve},server=on,wait=off",
                    "-device",
                    f"virtserialport,chardev=serve,nr={SERVE_PORT},name=mk9p",
                ),
                # the composer may come and go: QEMU dials again every second
                *(
                    "-chardev",
                    f"socket,id=namespace,path={seen}/{namespace},reconnect=1",
                    "-device",
                    f"virtserialport,chardev=namespace,nr={NAMESPACE_PORT},name=namespace",
                ),
            ]
            if talk is not None:
                argv += [
                    "-chardev",
                    f"socket,id=agent,fd={talk.number}",
                    "-device",
                    "virtserialport,chardev=agent,name=agent",
                ]
            if spec.hostroot:
                root = emulator.SEEN if placed else "/"
                argv += [
                    "-virtfs",
                    f"local,path={root},mount_tag=hostroot,security_model=none,multidevs=remap,readonly=on",
                ]
            before, after = emulator.prepared(own, user), list[list[str]]()
            room: limits.Group | None = None
            if user is None:
                argv += spec.devices
            else:
                devices = emulator.Devices.of(spec.devices, f"{seen}/run")
                links, unlinks = emulator.linked(devices.made, own)
                before, after = [*before, *links], [*unlinks, *emulator.undone(own)]
                room = limits.Group.of(spec.name, memory=spec.memory + hardware.room() + OWN_MEMORY, processes=THREADS)
                argv = emulator.placed(
                    own,
                    emulator.shown(image.file, initrd, *spec.shown),
                    [*argv, *devices.words],
                    number=user,
                    needs=["sockets", *(["locked"] if devices.vfio else ()), *(["whole"] if spec.whole else ())],
                    given=devices.given,
                    network=devices.network,
                )
            held = await keeper.keep(
                directory,
                argv,
                crowd=user is not None,
                group=room,
                after=after,
                before=[*before, *spec.lay(own, f"char!{SERVE}")],
                descriptors=pairs.numbers,
            )
        monitor = Monitor.of(line, most)
        await monitor.qmp.begin()
        return guest.Guest(
            held,
            console,
            None if talk is None else agent.Agent(talk),
            dial=f"char!{own}/{serve}",
            listen=f"unix!{own}/{namespace}",
            guest_dial=f"char!{NAMESPACE}",
            go_down=monitor.go_down,
            judge=lambda status: monitor.reason,
            follow=monitor.qmp.follow,
            machine=monitor.machine,
            channels=pairs,
        )
