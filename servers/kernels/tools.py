"""Programs that this folder runs, and the one line that says what to do when one is missing."""

from __future__ import annotations

import errno
import os
import shutil
from typing import Final

from mk9p.errors import NineError

PACKAGES: Final = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "zstd": "zstd",
    "gcc": "gcc libc6-dev",
    "mke2fs": "e2fsprogs",
    "apt-get": "apt (this way to get kernels needs Debian)",
    "apt-cache": "apt (this way to get kernels needs Debian)",
    "dpkg": "dpkg (this way to get kernels needs Debian)",
    "ip": "iproute2",
    "setpriv": "util-linux",
    "tar": "tar",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}


def path() -> str:
    """Return $PATH with the folders of administration at its end, which the path of an ordinary user often lacks."""
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def need(program: str) -> str:
    """Return the path of a program.

    Raises NineError (ENOENT) with the package to install when it is missing.
    """
    found = shutil.which(program, path=path())
    if found is None:
        raise NineError(errno.ENOENT, f"{program} is missing: apt-get install -y {PACKAGES.get(program, program)}")
    return found


def need_root(what: str) -> None:
    """Raise NineError (EPERM) saying that `what` needs root, unless this process is root."""
    if os.geteuid() != 0:
        raise NineError(errno.EPERM, f"{what}: run as root")
