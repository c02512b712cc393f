"""A fresh Debian in a directory, made once and kept in the cache as an archive, and programs that run in it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import attrs
import pytest

from mk9p.servers.kernels import packages

SUITE = "bookworm"
# what a small server has beside the base: an init, a way in, a network
MORE = "python3,systemd-sysv,udev,kmod,openssh-server,openssh-client,iproute2,fuse3"


def archive(suite: str = SUITE) -> Path:
    """Return the archive of a fresh Debian, and first make it if it is not in the cache. Skips where it cannot be had."""
    path = packages.cache() / f"debian-{suite}-{MORE.count(',')}.tar"
    if os.geteuid() != 0:
        pytest.skip("a Debian in a directory needs root")
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}.tar")
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={MORE}", suite, str(part)]
        path.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            part.unlink(missing_ok=True)
            pytest.skip(f"a fresh Debian is not to be had: {done.stderr.strip()[-200:]}")
        part.rename(path)
    return path


@attrs.frozen
class Tree:
    """A Debian in a directory. What runs in it sees this machine's /proc, and no other process's files."""

    path: Path

    def run(self, *command: str, status: int | None = 0) -> str:
        """Run a command in it, in namespaces of its own, and return its output and errors. `status` None: any is fine."""
        here = 'mount -t proc proc "$0/proc" && mount -t tmpfs run "$0/run" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
        done = subprocess.run(
            [
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--net",
                "sh",
                "-c",
                here,
                str(self.path),
                *command,
            ],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=120,
            check=False,
        )
        assert status is None or done.returncode == status, done.stdout
        return done.stdout


@contextmanager
def fresh(suite: str = SUITE) -> Iterator[Tree]:
    """Unpack a fresh Debian, and remove it at the end."""
    packed = archive(suite)
    path = Path(mkdtemp(prefix="mk9p-debian-", dir="/var/tmp"))
    try:
        # in memory: to remove ten thousand files from a disk takes longer than all else here
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g,mode=755", "debian", path], check=True)
        try:
            subprocess.run(["tar", "-xf", packed, "-C", path], check=True)
            yield Tree(path)
        finally:
            subprocess.run(["umount", path], check=True)
    finally:
        path.rmdir()
