"""A kernel that may have parts of the machine itself: CPUs, memory and devices that are taken at its `load`, and given back at its deletion.

One on an emulator has none; then this adds only `unload`.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import attrs

from mk9p.errors import NineError

from . import life
from .device import Device

if TYPE_CHECKING:
    from pathlib import Path

    from .backend import Ground


@attrs.define(eq=False)
class Kernel(life.Kernel):
    """One kernel, and whether it has such parts."""

    held: bool = False

    @property
    def ground(self) -> Ground | None:
        """Return what its kind of kernel has of the machine itself, None if that is emulated."""
        return self.backends[self.backend].ground

    def set(self, **values: object) -> None:
        """Change settings. Raises EBUSY also for those that it has of the machine."""
        self.idle()
        if self.held and values.keys() & {"cpus", "memory"}:
            raise NineError(errno.EBUSY, f"kernel {self.name} has its CPUs and memory: cpu add, mem add, or delete it")
        super().set(**values)

    def use(self, name: str) -> None:
        """Choose the backend. Raises EBUSY also for one that has parts of the machine."""
        if self.held and name != self.backend:
            raise NineError(errno.EBUSY, f"kernel {self.name} has parts of the machine: delete it first")
        super().use(name)

    async def load(self, kernel: str = "", *, initrd: Path | None = None, cmdline: str = "") -> None:
        """Get a kernel, and what it needs of the machine."""
        await super().load(kernel, initrd=initrd, cmdline=cmdline)
        self.held = self.ground is not None
        await self.see()

    async def unload(self) -> None:
        """Forget the kernel that was loaded. What it has of the machine stays its own. Raises EBUSY if it runs, EINVAL if nothing is loaded."""
        self.idle()
        if not self.spec.kernel:
            raise NineError(errno.EINVAL, f"kernel {self.name}: nothing is loaded")
        self._starts.stop()
        self._busy = True
        try:
            if self.ground is not None:
                await self.ground.unload(self.name)
        finally:
            self._busy = False
        self.spec = attrs.evolve(self.spec, kernel="")
        self._enter("ready", "unloaded")

    async def see(self) -> None:
        """Note what it has of the machine, which others may have changed. Raises ENOENT if that is gone."""
        if self.ground is not None and self.held:
            parts = await self.ground.parts(self.name)
            self.spec = attrs.evolve(self.spec, cpus=parts.cpus, memory=parts.memory)
            self.devices = {name: Device(name, "pci") for name in parts.devices}

    async def give_back(self) -> None:
        """Give back what it has of the machine."""
        if self.ground is not None and self.held:
            await self.ground.remove(self.name)
        self.held, self.devices = False, {}
