"""A kernel's console in the browser: what it says, as it comes, and what is typed."""

import errno
import re
from collections.abc import AsyncGenerator
from typing import Final

import trio

from mk9p.client import Client
from mk9p.clients.common import pieces
from mk9p.errors import NineError

MOST: Final = 4096  # characters that are typed, or pasted, at once
PATIENCE: Final = 5.0  # seconds for the guest to take them
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")


def path_of(kernel: str) -> str:
    """Return the path of a kernel's console. Raises EINVAL for what is no name of a kernel."""
    if not _NAME.fullmatch(kernel):
        raise NineError(errno.EINVAL, f"{kernel!r} is no name of a kernel")
    return f"kernels/{kernel}/console"


async def said(client: Client, kernel: str) -> AsyncGenerator[bytes, None]:
    """Yield what a console has said and says, until it ends. Raises NineError if it does not exist, or this user may not read it."""
    async with await client.open(path_of(kernel)) as file:
        async for data in pieces(file):
            yield data


async def type_(client: Client, kernel: str, text: str) -> None:
    """Type on a console. Raises NineError; ETIMEDOUT if the guest takes nothing."""
    if len(text) > MOST:
        raise NineError(errno.EFBIG, f"at most {MOST} characters at once")
    with trio.move_on_after(PATIENCE):
        await client.write(path_of(kernel), text)
        return
    raise NineError(errno.ETIMEDOUT, f"{kernel} takes nothing from its keyboard")
