"""Kernels that another process has mounted, and not this one: they are asked through that process's namespace, as any client would (inside.Reach)."""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol, TypeAlias

import attrs
import trio

from mk9p.errors import NineError
from mk9p.ktext import split_lines
from mk9p.tree import split

from . import inside

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager


class Entry(Protocol):
    """What a listing has."""

    @property
    def name(self) -> str: ...


class Client(Protocol):
    """Who asks the namespace (mk9p.client.Client)."""

    async def read(self, path: str) -> str: ...
    async def write(self, path: str, data: str) -> None: ...
    async def listdir(self, path: str) -> Sequence[Entry]: ...
    async def stat(self, path: str) -> Entry: ...


Way: TypeAlias = "Callable[[], AbstractAsyncContextManager[Client]]"


@attrs.define
class Afar(inside.Reach):
    """How kernels are reached through a namespace, to which `way` gives a connection. Errors and waiting are as with a tree that is mounted here."""

    way: Way = attrs.field(kw_only=True)

    async def read(self, kernel: str, path: str) -> str:
        async with self._namespace(kernel) as ns:
            return await ns.read(_at(kernel, path))

    async def write(self, kernel: str, path: str, text: str) -> None:
        async with self._namespace(kernel) as ns:
            await ns.write(_at(kernel, path), text)

    async def names(self, kernel: str, path: str) -> list[str]:
        try:
            async with self._namespace(kernel) as ns:
                return [entry.name for entry in await ns.listdir(_at(kernel, path))]
        except FileNotFoundError:
            return []

    async def answers(self, kernel: str) -> None:
        async with self._asking(kernel):
            try:
                await self._ask(kernel)
            except _NotThereError:  # who would be asked is away: nobody can tell
                return

    async def _ask(self, kernel: str) -> None:
        async with self._dialled() as ns:
            if await _is_there(ns, kernel):
                with suppress(FileNotFoundError, PermissionError):
                    await ns.stat(_at(kernel, "cpu"))

    @asynccontextmanager
    async def _namespace(self, kernel: str) -> AsyncIterator[Client]:
        async with self._asking(kernel), self._dialled() as ns:
            if kernel:
                with trio.move_on_after(inside.MOUNT_SECONDS) as scope:
                    while not await _is_there(ns, kernel):  # noqa: ASYNC110 - another process mounts it
                        await trio.sleep(inside.STEP)
                if scope.cancelled_caught:
                    raise NineError(errno.EIO, "its tree is not mounted here, so it cannot be asked")
            yield ns

    @asynccontextmanager
    async def _dialled(self) -> AsyncIterator[Client]:
        dialled = False
        try:
            async with self.way() as ns:
                dialled = True
                yield ns
        except OSError as error:
            words = error.strerror or str(error)
            if not dialled:
                raise _NotThereError(errno.EIO, f"its tree is not mounted here: {words}") from None
            raise NineError(error.errno or errno.EIO, words) from None


class _NotThereError(NineError):
    """The namespace cannot be dialled."""


async def _is_there(ns: Client, kernel: str) -> bool:
    """Say whether a kernel is mounted, without asking it."""
    lines = split_lines(await ns.read("mounts"))
    return any(split(line)[:1] == [f"/k/{kernel}"] for line in lines)


def _at(kernel: str, path: str) -> str:
    return f"k/{kernel}/{path}" if kernel else path
