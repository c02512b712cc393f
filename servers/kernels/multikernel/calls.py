"""The system calls of a multikernel, as kerf makes them: kexec_file_load(2) and reboot(2) with a number of an instance. They block."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from mk9p.errors import NineError

from .trees import library

if TYPE_CHECKING:
    from pathlib import Path


def load(number: int, kernel: Path, initrd: Path | None, cmdline: str) -> None:
    """Load a kernel into an instance. Raises the OSError of a file, and of that kernel."""
    calls = library("kerf.load.main")
    flags = calls.KEXEC_MULTIKERNEL | calls.KEXEC_MK_ID(number)
    with ExitStack() as stack:
        image = library("kerf.vmlinuz").open_kernel_fd(kernel)
        stack.callback(os.close, image)
        if initrd is None:
            ram, flags = -1, flags | calls.KEXEC_FILE_NO_INITRAMFS
        else:
            ram = os.open(initrd, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, ram)
        calls.kexec_file_load(image, ram, cmdline, flags)


def unload(number: int) -> None:
    """Unload what an instance has loaded."""
    calls = library("kerf.unload.main")
    calls.kexec_file_unload(calls.KEXEC_FILE_UNLOAD | calls.KEXEC_MULTIKERNEL | calls.KEXEC_MK_ID(number))


def boot(number: int) -> None:
    """Boot what an instance has loaded."""
    library("kerf.start.main").boot_multikernel(number)


def halt(number: int, *, force: bool) -> None:
    """Ask an instance to halt, or stop its CPUs. Raises ETIMEDOUT if it does not answer."""
    library("kerf.kill.main").halt_multikernel(number, force=force)


def told(error: OSError, what: str) -> NineError:
    """Return the error of a call with what was tried."""
    hints = {errno.EPERM: " (only root may; a locked-down kernel wants signed images)", errno.EINVAL: ""}
    number = error.errno or errno.EIO
    return NineError(number, f"multikernel: {what}: {os.strerror(number)}{hints.get(number, '')}")
