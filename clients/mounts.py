"""What is mounted here, as the kernel tells it. This module finds and detaches a mount without asking the mounted file system, which may not
answer."""

import errno
import os
from contextlib import suppress
from typing import Final

import attrs

from mk9p import ktext
from mk9p.errors import NineError

TYPE: Final = "mk9p"  # /proc/mounts shows fuse.mk9p
_MNT_DETACH: Final = 2  # <sys/mount.h>
_UMOUNT_NOFOLLOW: Final = 8
_LINKS: Final = 40  # on one path, as in Linux (MAXSYMLINKS)


@attrs.frozen
class Mounted:
    """A line of /proc/self/mountinfo (proc(5)): device number, directory, type, source, options."""

    device: str
    directory: str
    type: str
    source: str
    options: tuple[str, ...]

    @property
    def owner(self) -> int:
        """Return the user who made a FUSE mount."""
        words = (option.partition("=") for option in self.options)
        return next((int(value) for key, _, value in words if key == "user_id"), 0)

    @property
    def ours(self) -> bool:
        return self.type in ("9p", f"fuse.{TYPE}")


def mounts() -> list[Mounted]:
    """Return everything that is mounted in this namespace, later mounts last."""
    with open("/proc/self/mountinfo", "rb") as file:
        return [
            Mounted(m.device, m.target, m.kind, m.source, (*m.options.split(","), *m.inner.split(",")))
            for m in ktext.mounts(file.read())
        ]


def mounted_at(path: str) -> Mounted | None:
    """Return what is mounted on a full path, the last if there are several."""
    return next((mount for mount in reversed(mounts()) if mount.directory == path), None)


def elsewhere(device: str) -> int:
    """Return a process in whose mount namespace a device is mounted; 0 if none is, or none that this user may look at."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            # it has ended, or is somebody else's
            with suppress(OSError), open(f"/proc/{name}/mountinfo", "rb") as file:
                if any(mount.device == device for mount in ktext.mounts(file.read())):
                    return int(name)
    return 0


def full_path(directory: str) -> str:
    """Return the full path of a directory, as in mountinfo. For a mount point, follow the path to it, and do not ask it itself.

    Raises ELOOP for links without an end, ENOENT for an empty name.
    """
    if not directory:
        raise NineError(errno.ENOENT, "'': no such directory")
    for _ in range(_LINKS):
        directory = directory.rstrip("/") or "/"
        parent, name = os.path.split(directory)
        if name in ("", "."):
            path = os.path.realpath(parent) if parent else os.getcwd()  # the kernel knows this by itself
        elif name == "..":
            return os.path.realpath(directory)
        else:
            path = os.path.join(os.path.realpath(parent), name)
        if mounted_at(path) is not None:
            return path
        try:
            directory = os.path.join(os.path.dirname(path), os.readlink(path))
        except OSError:  # it is no link, or does not exist
            return path
    raise NineError(errno.ELOOP, f"{directory}: too many links")


def detach(path: str) -> None:
    """Remove a mount from the tree of names at once, as umount2(2) does; it ends when nobody uses it any more. Only root may."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(path), _MNT_DETACH | _UMOUNT_NOFOLLOW):
        number = ctypes.get_errno()
        raise NineError(number, f"{path}: {os.strerror(number)}")
