"""What clients/fsspec.py runs in the loop. Each is a function of the client and a path, which its errors name unless they name another."""

import errno
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from mk9p.client import Client, File, changes, requests
from mk9p.client.client import split
from mk9p.clients import copying, listing
from mk9p.clients.copying import about
from mk9p.clients.links import resolved
from mk9p.errors import NineError
from mk9p.tree import NOW, Change, Stat

NS: Final = 1_000_000_000
_KINDS: Final = {0o040000: "directory", 0o100000: "file", 0o120000: "link"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


# Status


async def there(client: Client, path: str) -> bool:
    """Tell whether a path leads somewhere; raises if the server cannot be dialled."""
    try:
        await client.stat(await resolved(client, path))
    except NineError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return False
    return True


async def followed(client: Client, path: str) -> tuple[Stat, bool]:
    """Return the status of the file that a path leads to, and whether a link led there."""
    place = await resolved(client, path, last=False)
    real = await resolved(client, place)
    return await client.stat(real), real != place


async def named(client: Client, path: str) -> list[str]:
    """Return the names in a directory; for another file only "", its own place."""
    real = await resolved(client, path)
    if not (await client.stat(real)).is_dir:
        return [""]
    return [entry.name for entry in await listing.entries(client, real)]


async def listed(client: Client, path: str) -> list[dict[str, Any]]:
    """Return what fsspec wants to know of everything in a directory, or of another file."""
    stat, link = await followed(client, path)
    if not stat.is_dir:
        return [described(path, stat, link)]
    real = await resolved(client, path)
    found = []
    for entry in await client.listdir(real):
        name, link = join(path, entry.name), entry.mode & 0o170000 == 0o120000
        if link:
            try:
                to, _ = await followed(client, join(real, entry.name))
            except OSError:  # it leads nowhere: show the link itself
                to = entry
            entry = entry if to.is_dir else to
        found.append(described(name, entry, link))
    return found


def described(path: str, stat: Stat, link: bool) -> dict[str, Any]:
    """Return what fsspec wants to know of a file, and what Linux would also tell."""
    return {
        "name": path,
        "size": stat.length,
        "type": _KINDS.get(stat.mode & 0o170000, "other"),
        "mode": stat.mode,
        "uid": stat.uid,
        "gid": stat.gid,
        "nlink": stat.nlink,
        "ino": stat.qid.path if stat.qid else 0,
        "islink": link,
        "mtime": stat.mtime / NS,
        "created": stat.ctime / NS,
    }


def moment(seconds: float) -> datetime:
    """Return a time as a datetime, or the nearest datetime if it is out of range."""
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return (datetime.min if seconds < 0 else datetime.max).replace(tzinfo=UTC)


def join(path: str, name: str) -> str:
    """Return the path of a name in a directory; no name: the directory itself."""
    return f"{path.rstrip('/')}/{name}" if name else path


# Content


async def opened(client: Client, path: str) -> tuple[File, Stat]:
    """Open a file for reading."""
    file = await client.open(await resolved(client, path))
    try:
        stat = await file.stat()
        if stat.is_dir:
            raise NineError(errno.EISDIR)
    except BaseException:
        await file.aclose()
        raise
    return file, stat


async def opened_to_write(client: Client, path: str, mode: str) -> File:
    """Open a file as Python's modes say; `x` makes no file through a link."""
    return await client.open(await resolved(client, path, last="x" not in mode), mode)


async def part(client: Client, path: str, start: int | None, end: int | None) -> bytes:
    """Return a part of a file, with the bounds of a slice."""
    file, stat = await opened(client, path)
    async with file:
        if not stat.length or (start is None and end is None):
            return (await file.read())[start:end]
        first, last, _ = slice(start, end).indices(stat.length)
        return await file.pread(last - first, first) if first < last else b""


async def replaced(client: Client, path: str, data: Any) -> None:
    """Write a whole file."""
    await client.write(await resolved(client, path), data)


async def written(client: Client, file: File, path: str, data: bytes, offset: int) -> int:
    """Write to an open file; an error has the words of the ctl that refused."""
    try:
        return await file.pwrite(data, offset)
    except NineError as error:
        raise await requests.in_words(client.connection, client.root, split(path), error) from None


async def touched(client: Client, path: str) -> None:
    """Give a file the present time."""
    fid, _ = await requests.walk(client.connection, client.root, split(await resolved(client, path)))
    try:
        await changes.change(client.connection, fid, Change(atime=NOW, mtime=NOW))
    finally:
        client.connection.clunk_nowait(fid)


# Names


async def made(client: Client, path: str) -> None:
    """Make a directory."""
    await client.mkdir(await resolved(client, path, last=False))


async def removed(client: Client, path: str, directory: bool | None) -> None:
    """Remove a file or an empty directory; `directory` says which of the two it must be. A link is a file."""
    real = await resolved(client, path, last=False)
    if directory is not None and (await client.stat(real)).is_dir != directory:
        raise NineError(errno.ENOTDIR if directory else errno.EISDIR)
    await client.remove(real)


async def moved(client: Client, old: str, new: str) -> None:
    """Give a file another path; the error names the one of the two that is missing."""
    source = await resolved(client, old, last=False)
    await client.stat(source)
    try:
        target = await resolved(client, new, last=False)
        await client.rename(source, target)
    except NineError as error:
        error.filename, error.filename2 = new, None
        raise


async def apart(client: Client, old: str, new: str) -> None:
    """Raise EINVAL if a path leads into a directory that would be copied there, or to the directory itself."""
    if await copying.inside(client, old, new):
        raise about(new, NineError(errno.EINVAL, "it is inside the directory that would be copied to it"))
