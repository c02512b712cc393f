"""Use a resource server's tree in this process, without the wire: walk a path, read all, write, list; and its names and refusals by a client."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from mk9p.auth import ROOT, Principal
from mk9p.client import Client
from mk9p.compose.namespace import Namespace
from mk9p.testing import SOON
from mk9p.tree import Handle, Node, Open, settle


async def walk(tree: Node | Namespace, path: str, who: Principal = ROOT) -> Node:
    node = tree.root if isinstance(tree, Namespace) else tree
    for name in filter(None, path.split("/")):
        node = await settle(node.walk(name, who))
    return node


async def opened(tree: Node | Namespace, path: str, how: str = "r", who: Principal = ROOT) -> Handle:
    """Open a file for `r`, `w` or `rw`; the caller closes it. Streams end no record, as for clients that are not Linux."""
    node = await walk(tree, path, who)
    return await settle(node.open(Open(who, read="r" in how, write="w" in how)))


async def read(tree: Node | Namespace, path: str, who: Principal = ROOT) -> str:
    """Read a text file until its end, in pieces."""
    handle, content = await opened(tree, path, who=who), b""
    while piece := bytes(await settle(handle.read(len(content), 4096))):
        content += piece
    await settle(handle.close())
    return content.decode()


async def write(tree: Node | Namespace, path: str, text: str, who: Principal = ROOT) -> None:
    """Write a text in one write, as `echo` does with its newline."""
    await send(tree, path, f"{text}\n", who)


async def send(tree: Node | Namespace, path: str, text: str, who: Principal = ROOT) -> None:
    """Write a text in one write, as it is."""
    handle, data = await opened(tree, path, "w", who), text.encode()
    try:
        assert await settle(handle.write(0, memoryview(data))) == len(data)
    finally:
        await settle(handle.close())


async def ls(tree: Node | Namespace, path: str = "", who: Principal = ROOT) -> list[str]:
    node = await walk(tree, path, who)
    return [name for name, _ in await settle(node.entries(who))]


async def mode(tree: Node | Namespace, path: str, who: Principal = ROOT) -> int:
    """Return a file's permission bits."""
    return (await settle((await walk(tree, path, who)).stat())).mode & 0o777


async def refusal(node: Node, path: str, text: str) -> tuple[int, str]:
    """Write what must be refused and return errno and words; `error` beside the file must say the same."""
    with pytest.raises(OSError) as caught:  # noqa: PT011  # the caller looks at the errno
        await write(node, path, text)
    assert await read(node, path.removesuffix("ctl") + "error") == f"{caught.value}\n"
    return caught.value.errno or 0, str(caught.value)


async def names(client: Client, path: str = "") -> list[str]:
    """Return the names in a directory, as it lists them."""
    return [entry.name for entry in await client.listdir(path)]


async def arrived(fd: int, count: int) -> bytes:
    """Return the next bytes that come at the far end of a terminal."""
    got = b""
    with trio.fail_after(SOON):
        while len(got) < count:
            await trio.lowlevel.wait_readable(fd)
            got += os.read(fd, count - len(got))
    return got


def plant(root: Path, files: dict[str, str]) -> None:
    """Write files (path: content, without its last newline) below a directory, as a made-up /sys, /proc or /dev."""
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content + "\n")


@contextmanager
def fails(*numbers: int) -> Iterator[None]:
    """Expect one of these errnos."""
    with pytest.raises(OSError) as caught:  # noqa: PT011
        yield
    assert caught.value.errno in numbers, caught.value
