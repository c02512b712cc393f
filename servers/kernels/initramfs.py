"""The guest's first file system: busybox, our scripts of `guest/`, and the modules of its kernel.

It is the same for every guest of a kernel: what differs is on the kernel's command line and in the run directory. So it is built once and kept in
the cache, under the hash of everything in it.
"""

from __future__ import annotations

import errno
import hashlib
import io
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from mk9p.errors import NineError

from . import images, packages, tools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GUEST: Final = files(__package__) / "guest"
SCRIPTS: Final = ("root", "boot", "agent", "load")
# Loaded at boot, where the kernel has them as modules. pvpanic: the host learns of a panic at once. vsock and fuse: for programs in the guest. The
# last line: for memory and devices that come later (hardware.py).
LOAD: Final = (
    *("virtio_pci", "virtio_console", "9pnet_virtio", "9pnet_fd", "9p", "overlay"),
    *("pvpanic_pci", "vsock_loopback", "fuse"),
    *("virtio_mem", "virtio_blk", "virtio_net", "xhci_pci", "usb_storage", "sd_mod"),
)
FOLDERS: Final = ("bin", "dev", "proc", "sys", "run", "tmp", "mnt", "root", "etc", "n", "guest", "guest/modules")

Node = tuple[int, int, int]
"""A device: mode, major, minor; a folder has no numbers."""


async def build(image: images.Image, *, modules: Sequence[str] = ()) -> Path:
    """Return the cached initramfs of a kernel, and first build it if necessary; `modules` are put in but not loaded (`sh /run/guest/load NAME`).

    Raises NineError when busybox is missing or not static.
    """
    return await trio.to_thread.run_sync(_build, image, tuple(modules))


def _build(image: images.Image, modules: Sequence[str]) -> Path:
    busybox = Path(tools.need("busybox")).resolve()
    parts = [(GUEST / f"{name}.sh").read_bytes() for name in ("init", *SCRIPTS)]
    made_of = [
        image.identity,
        image.uml,
        LOAD,
        FOLDERS,
        modules,
        parts,
        str(busybox),
        busybox.stat().st_mtime_ns,
        busybox.stat().st_size,
    ]
    path = packages.cache() / f"initramfs-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}.cpio"
    if path.exists():
        return path
    binary = busybox.read_bytes()
    if b"/ld-linux" in binary[:4096]:  # it names an interpreter, which the guest does not have
        raise NineError(errno.ENOENT, f"{busybox} is not static: apt-get install -y busybox-static")
    first = image.closure(LOAD)
    more = {name: blob for name, blob in image.closure(modules).items() if name not in first}
    files: dict[str, bytes | Node] = dict.fromkeys(FOLDERS, (16877, 0, 0))
    files |= {"dev/console": (0o20600, 5, 1), "dev/null": (0o20600, 1, 3), "bin/busybox": binary, "init": parts[0]}
    files |= {f"guest/{name}": part for name, part in zip(SCRIPTS, parts[1:], strict=True)}
    files |= {"guest/modules/order": "\n".join(first).encode(), "guest/modules/more": "\n".join(more).encode()}
    files |= {f"guest/modules/{name}.ko": blob for name, blob in (first | more).items()}
    images.write_whole(path, cpio(files))
    return path


def cpio(files: Mapping[str, bytes | Node]) -> bytes:
    """Return an archive in the kernel's newc format (Documentation/driver-api/early-userspace/buffer-format.rst); everything belongs to root,
    files are 0755."""
    out = io.BytesIO()
    for inode, (name, value) in enumerate([*files.items(), ("TRAILER!!!", b"")], 1):
        mode, major, minor = (0o100755, 0, 0) if isinstance(value, bytes) else value
        data = value if isinstance(value, bytes) else b""
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name) + 1, 0)
        for block in (b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0", data):
            out.write(block)
            out.write(b"\0" * (-out.tell() % 4))
    return out.getvalue()
