"""What the commands share: running against the namespace, and reading whatever a file gives."""

import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from mk9p import places
from mk9p.errors import NineError, wording
from mk9p.stdio import complain, put

if TYPE_CHECKING:
    from mk9p.client import Client, File

Work = Callable[["Client"], Awaitable[int]]


def in_namespace(work: Work) -> int:
    """Do the work in the namespace as `with_namespace` does, but without trio: for work that waits for its connection alone."""
    from mk9p.dial import parse
    from mk9p.sync import address_of, connect

    if parse(address_of(None)).transport.function("dial_now") is None:
        return with_namespace(work)
    with _hinting(None):
        ns = connect()
    ns.inner.connection.tell = say
    with ns:
        return ns.run(_helped(ns.inner, work))


def with_namespace(work: Work, address: str | None = None) -> int:
    """Connect to the namespace (or `address`), do the work, and return its exit status."""
    import logging

    from mk9p.client import connect
    from mk9p.serving import one_error

    logging.basicConfig(format="mk9p: %(message)s")
    status = 0

    async def run() -> None:
        nonlocal status
        async with AsyncExitStack() as stack:
            with _hinting(address):
                ns = await stack.enter_async_context(connect(address))
            status = await _helped(ns, work)

    one_error(run)
    return status


async def _helped(ns: "Client", work: Work) -> int:
    """Do the work; an error that it raises says what to do, where the tree knows it."""
    try:
        return await work(ns)
    except NineError as error:
        from mk9p.clients.hints import hinted

        raise await hinted(ns, error) from None


@contextmanager
def _hinting(address: str | None) -> Iterator[None]:
    """Say what to do where there is no namespace. Who said where it is needs no hint how to say it."""
    try:
        yield
    except (ConnectionRefusedError, FileNotFoundError) as error:
        if not isinstance(error, ConnectionRefusedError) and _RUNNING not in str(error):
            raise  # of another file: a capability, a key
        if not (address or os.environ.get("MK9P") or places.context_in_use()):
            raise NineError(error.errno or errno.EIO, f"{error}; {_HINT}") from None
        if str(error).endswith(wording(errno.ECONNREFUSED)):
            raise NineError(errno.ECONNREFUSED, f"{error}: {_RUNNING}") from None
        raise


SILENCE: Final = 4.0  # seconds after which somebody at a terminal wonders
_RUNNING: Final = "is its server running?"
_HINT: Final = "start a namespace with `mk9p up`, or say where yours is with -a DIAL or $MK9P"


async def kernel(ns: "Client", name: str) -> str:
    """Return the path of a kernel's tree; raises ENOENT that names the existing kernels.

    The tree of a single kernel, as `mk9p serve` serves it, is at its top: its name is the kernel's own, or `.`.
    """
    if "/" in name:
        return name
    try:
        await ns.walk(f"k/{name}")
    except FileNotFoundError:
        if (own := await own_name(ns)) is None:
            names = [entry.name for entry in await ns.listdir("k")]
        elif name in (".", own):
            return "."
        else:
            names = [own]
        from mk9p.clients.hints import no_kernel

        raise no_kernel(name, names) from None
    return f"k/{name}"


async def own_name(ns: "Client") -> str | None:
    """Return the name of the kernel whose tree this is; None for a namespace of kernels. Raises ENOENT where neither is."""
    try:
        await ns.walk("k")
    except FileNotFoundError as error:
        try:
            status = await ns.read("status")
        except FileNotFoundError:
            raise NineError(
                error.errno or errno.ENOENT,
                "no directory k, and no status: this tree is of no kernel, and no namespace of kernels",
            ) from None
        return dict(line.partition(" ")[::2] for line in status.split("\n")).get("name", "-")
    return None


async def pieces(file: "File") -> AsyncIterator[bytes]:
    """Give the content of a file as it comes."""
    while data := await piece(file):
        yield data


async def piece(file: "File") -> bytes:
    """Return what comes next in a file, whether it is stored, synthetic, or a stream that waits: two empty reads in a row are its end, b""."""
    return await file.read(file.iounit) or await file.read(file.iounit)


async def number_of(ctl: "File") -> str:
    """Return the number of a conversation whose ctl is open. Raises EIO where it says none: a path is made of it, and it is a kernel that says it."""
    text = (await ctl.pread(99, 0)).decode(errors="replace").strip()
    if not text.isascii() or not text.isdecimal():
        raise NineError(errno.EIO, f"{ctl.name}: it has no number")
    return text


async def say_to(ns: "Client", ctl: "File", path: str, line: str) -> str:
    """Write a line to an open ctl, the file at `path`, and return its answer. Raises what it says, in its words."""
    from mk9p.client.client import split
    from mk9p.client.requests import in_words

    data = f"{line}\n".encode()
    try:
        await ctl.pwrite(data, 0)
    except NineError as error:
        raise await in_words(ns.connection, ns.root, split(path), error) from None
    return (await ctl.pread(ctl.iounit, len(data))).decode()


def out(data: bytes) -> None:
    """Write bytes to the standard output at once, as a filter in a pipe must. Raises OSError as write(2)."""
    put(1, data)


def say(words: str) -> None:
    """Print an error on stderr, as this command."""
    complain(f"mk9p: {words}")
