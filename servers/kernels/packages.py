"""Kernels from Debian packages: fetched with apt-get, unpacked into a cache, never installed.

Rules:
* A cache entry is complete or absent: it is made beside its place, under a lock that another process may hold, and renamed into it.
* A metapackage (`linux-image-amd64`) is resolved when it is fetched: packages with an ABI number in their name vanish from the mirrors.
* What was fetched once is used from then on, without a network. Only an entry of an older mk9p, which kept less, is fetched again if possible.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import subprocess
import tarfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from mk9p.errors import NineError
from mk9p.ktext import split_lines

from . import tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LISTS: Final = Path("/var/lib/apt/lists")
# The image and the modules that guests can use: a tenth of the package.
KEEP: Final = re.compile(
    r"^\./(boot/vmlinuz|usr/bin/linux\.uml|(usr/)?lib/.*/kernel/(fs|block|crypto|lib|arch/x86/crypto|"
    r"net/(9p|tls|vmw_vsock|core|802|llc|ipv4|ipv6|bridge|sched)|drivers/(virtio|block|char|acpi|input|misc|nvdimm|dax|vhost|uio|i2c|hwmon|cpufreq|"
    r"net/[a-z_]+\.ko|usb/(host|storage|common|core|serial|class)|scsi/(sd_mod|scsi_mod|scsi_common|virtio_scsi))))"
)
# A retry of apt's own takes half a minute before anybody hears of it, and helps nobody who has no network.
ONCE: Final = ("-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=10", "-o", "Acquire::https::Timeout=10")
# what apt says where it reaches no mirror
_AWAY: Final = re.compile(
    r"Temporary failure resolving '[^']*'|Could not (?:resolve|connect to) [^ ]*|Unable to connect to [^ ]*|"
    r"Network is unreachable|Connection (?:timed out|failed|refused)|connection timed out"
)
KEPT: Final = ".kept"  # in an entry: the KEEP that unpacked it


def cache() -> Path:
    """Return the cache's folder: $MK9P_CACHE, else /var/cache/mk9p for root, else ~/.cache/mk9p."""
    chosen = os.environ.get("MK9P_CACHE")
    if chosen:
        return Path(chosen).absolute()
    return Path("/var/cache/mk9p") if os.geteuid() == 0 else Path.home() / ".cache/mk9p"


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Hold a lock file against other processes and tasks. Cancellable while it waits. The lock of a dead holder is free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await trio.sleep(0.1)  # a blocking flock could not be cancelled
        yield


async def fetch(
    package: str, place: Path, *, report: Callable[[str], None], finish: Callable[[Path, str], None]
) -> None:
    """Unpack a Debian package into `place`, unless it is there.

    A thread runs `finish(folder, package)` on the unpacked folder, before the folder takes its name. `report` gets lines for people. Raises
    NineError that says what to do: a tool is missing, lists were never fetched, there is no network, there is no such package. If cancelled or
    killed, it leaves no half entry.
    """
    if _there(place):
        return
    async with locked(place.with_name(f".{place.name}.lock")):
        if _there(place):
            return
        # only the holder of the lock touches it; what is there comes from a process that was killed
        part = place.with_name(f".{place.name}.part")
        await trio.to_thread.run_sync(shutil.rmtree, part, True)
        part.mkdir()
        try:
            deb, name = await _download(package, part, report)
            report(f"unpacking {name}")
            await trio.to_thread.run_sync(_unpack, deb, part, tools.need("dpkg"))
            deb.unlink()
            await trio.to_thread.run_sync(finish, part, name)
            (part / KEPT).write_text(KEEP.pattern)
            _exchange(part, place)
        except NineError as error:
            if not _older(place):
                raise
            report(f"{place} belongs to an older mk9p, and stays: {error}")
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _exchange(part: Path, place: Path) -> None:
    """Put a finished folder in its place, and remove what an older mk9p had there."""
    if place.exists():
        old = place.with_name(f".{place.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
        part.rename(place)
        shutil.rmtree(old)
    else:
        part.rename(place)


async def _download(package: str, folder: Path, report: Callable[[str], None]) -> tuple[Path, str]:
    """Fetch the package, once more after `apt-get update` when its lists are empty or old, and return its file and real name."""
    tools.need("apt-get")
    update = not any(LISTS.glob("*Packages*"))
    for _ in range(2):
        if update:
            if os.geteuid() != 0:
                raise NineError(errno.ENOENT, f"apt knows no package {package}: run apt-get update as root")
            report("apt-get update")
            _reached((await _run("apt-get", *ONCE, "update", "-qq")).stderr, package)
        depends = (await _run("apt-cache", "depends", package)).stdout.decode()
        real = re.search(r"Depends: (linux-image-\S+)", depends)
        name = real[1] if real else package
        report(f"downloading {name}")
        got = await _run("apt-get", *ONCE, "download", "-qq", name, folder=folder)
        deb = _deb(folder)
        if got.returncode == 0 and deb is not None:
            return deb, name
        _reached(got.stderr, name)
        if update or os.geteuid() != 0:
            break
        update = True  # the lists name a version that the mirror has replaced
    why = next(
        (line.strip() for line in split_lines(got.stderr.decode(errors="replace")) if line.startswith("E:")),
        "no such package",
    )
    raise NineError(
        errno.ENOENT,
        f"apt-get download {name}: {why} (a name as in apt-cache search linux-image; apt-get update when lists are old)",
    )


def _reached(said: bytes, package: str) -> None:
    """Raise ENETUNREACH, and what to do, if apt said that it reaches no mirror."""
    if (away := _AWAY.search(said.decode(errors="replace"))) is not None:
        raise NineError(
            errno.ENETUNREACH,
            f'no network to fetch {package} with ({away[0]}): connect this machine once, or name a kernel that is here, kernel = "/boot/vmlinuz-..."',
        )


def _older(place: Path) -> bool:
    return place.exists()


def _there(place: Path) -> bool:
    try:
        return (place / KEPT).read_text() == KEEP.pattern
    except OSError:
        return False


def _deb(folder: Path) -> Path | None:
    return next(folder.glob("*.deb"), None)


async def _run(program: str, *args: str, folder: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    environ = {**os.environ, "LC_ALL": "C"}
    return await trio.run_process(
        [tools.need(program), *args], capture_stdout=True, capture_stderr=True, check=False, cwd=folder, env=environ
    )


def _unpack(deb: Path, folder: Path, dpkg: str) -> None:
    """Write the files of a package that we KEEP."""
    with subprocess.Popen([dpkg, "--fsys-tarfile", deb], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() and KEEP.match(member.name) else None
                if file is not None and ".." not in member.name:
                    path = folder / member.name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("wb") as out:
                        shutil.copyfileobj(file, out)
                    path.chmod(member.mode)
    if process.returncode != 0:
        raise NineError(errno.EIO, f"{deb.name} cannot be unpacked (is the disk full?)")
