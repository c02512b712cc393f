"""Kernel images: the file to start, and its modules.

The name of a kernel is a short name of `NAMES`, a Debian package (`linux-image-6.12-amd64`), or a path: of a bzImage (`/boot/vmlinuz-…`), of an
ELF vmlinux, or of a user-mode Linux. For a bzImage, this module extracts the ELF kernel: QEMU starts it through its PVH entry, so an emulated CPU
need not run the decompressor (1 to 3 s).
"""

from __future__ import annotations

import errno
import hashlib
import lzma
import re
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mk9p.errors import NineError

from . import packages, tools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# The metapackages: the real ones have an ABI number in their name.
NAMES: Final = {"6.1": "linux-image-amd64", "6.12": "linux-image-6.12-amd64", "uml": "user-mode-linux"}


def silent(line: str) -> None:
    """Say nothing: the default for a `report`."""


@attrs.frozen
class Image:
    """A kernel that can be started: `file`, `modules` by their name with `_`, and `identity`, which changes with its content."""

    name: str
    file: Path
    uml: bool
    identity: str
    modules: Mapping[str, Path]

    def closure(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the modules and everything that they depend on, in load order. It leaves out modules that do not exist: they are built in. Blocks
        on files."""
        found: dict[str, bytes] = {}

        def add(name: str) -> None:
            name = name.replace("-", "_")
            if name in found or name not in self.modules:
                return
            path = self.modules[name]
            blob = path.read_bytes()
            if path.suffix == ".xz":
                blob = lzma.decompress(blob)
            elif path.suffix == ".zst":
                blob = subprocess.run(
                    [tools.need("zstd"), "-dcq"], input=blob, stdout=subprocess.PIPE, check=True
                ).stdout
            depends = re.search(rb"[\0\n]depends=([^\0]*)\0", b"\n" + blob)  # from .modinfo, so this needs no depmod
            for other in depends[1].decode().split(",") if depends else ():
                add(other)
            found[name] = blob

        for name in names:
            add(name)
        return found


async def get(kernel: str, *, report: Callable[[str], None] = silent) -> Image:
    """Return the image for a kernel's name, package or path, and first fetch it into the cache if necessary.

    `report` gets lines for people (downloading, unpacking), in this task or a thread. Raises NineError with one line that says what to do.
    """
    if "/" in kernel:
        return await trio.to_thread.run_sync(_from_path, Path(kernel))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", kernel):
        raise NineError(
            errno.EINVAL, f"no such kernel: {kernel} (a name of {' '.join(NAMES)}, a Debian package, or a path)"
        )
    place = packages.cache() / kernel
    await packages.fetch(NAMES.get(kernel, kernel), place, report=report, finish=_finish)
    uml = place / "usr/bin/linux.uml"
    return Image(
        kernel,
        uml if uml.exists() else place / "vmlinux",
        uml.exists(),
        (place / "package").read_text(),
        await trio.to_thread.run_sync(_modules, place),
    )


def vmlinux(bzimage: bytes) -> bytes:
    """Return the ELF kernel inside a bzImage (Documentation/arch/x86/boot.rst: payload_offset). Raises NineError (ENOEXEC) if there is none."""
    if bzimage[0x202:0x206] != b"HdrS":
        raise NineError(errno.ENOEXEC, "not a Linux bzImage")
    offset, size = struct.unpack_from("<II", bzimage, 0x248)
    start = ((bzimage[0x1F1] or 4) + 1) * 512 + offset
    payload = bzimage[start : start + size]
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        # its status says nothing: four bytes, the size of the result, follow the frame
        elf = subprocess.run(
            [tools.need("zstd"), "-dcq"], input=payload, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        ).stdout
        if elf.startswith(b"\x7fELF"):
            return elf
    raise NineError(errno.ENOEXEC, "the kernel's compression is neither xz nor zstd")


def _finish(folder: Path, package: str) -> None:
    """Complete an unpacked package: add its vmlinux, and the name that says what it is."""
    for bzimage in folder.glob("boot/vmlinuz-*"):
        (folder / "vmlinux").write_bytes(vmlinux(bzimage.read_bytes()))
        bzimage.unlink()
    if not (folder / "vmlinux").exists() and not (folder / "usr/bin/linux.uml").exists():
        raise NineError(errno.ENOEXEC, f"no kernel in the package {package}")
    (folder / "package").write_text(package)


def _modules(folder: Path) -> dict[str, Path]:
    return {file.name.split(".")[0].replace("-", "_"): file for file in folder.rglob("*.ko*")}


def _from_path(path: Path) -> Image:
    """Return a kernel that is somebody's file, with the modules of its version from beside it or from /lib/modules."""
    blob = path.read_bytes()  # its OSError says what is wrong with the path
    digest = hashlib.sha256(blob).hexdigest()[:16]
    if blob.startswith(b"\x7fELF"):
        banner = re.search(rb"Linux version (\S+)", blob)
        uml, file = b"uml_dir=" in blob, path
    else:
        elf = vmlinux(blob)
        banner = re.match(rb"(\S+)", blob[struct.unpack_from("<H", blob, 0x20E)[0] + 0x200 :][:256])
        uml, file = False, packages.cache() / f"vmlinux-{digest}"
        if not file.exists():
            write_whole(file, elf)
    version = banner[1].decode() if banner else ""
    folders = [path.parent.parent / "lib/modules" / version, Path("/lib/modules") / version]
    modules = next((_modules(folder) for folder in folders if version and folder.is_dir()), {})
    return Image(str(path), file.absolute(), uml, digest, modules)


def write_whole(path: Path, blob: bytes, *, mode: int = 0o644) -> None:
    """Write a file of the cache so that others see it whole or not at all."""
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with open(descriptor, "wb") as file:
            file.write(blob)
        Path(part).chmod(mode)
        Path(part).rename(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
