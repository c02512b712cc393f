"""The calls of a program, as its machine takes them: which errors they give, and that they can be frozen."""

from collections.abc import Callable
from typing import Any

from mk9p.servers.wasm.instrument.asyncify import BLOCKING
from mk9p.servers.wasm.machine import Frozen, Machine
from mk9p.servers.wasm.wasi.numbers import FROM_LINUX, INVAL, IO, Error
from mk9p.servers.wasm.wasi.polling import Polling
from mk9p.servers.wasm.wasi.table import MODULE, TYPES
from mk9p.sync import Stopped


def link(machine: Machine, world: Polling) -> None:
    """Give a machine all calls of WASI preview 1."""
    for name, types in TYPES.items():
        method: Callable[..., Any] = getattr(world, name)
        blocks = f"{MODULE}.{name}" in BLOCKING
        machine.calls.define(
            machine.linker, MODULE, name, types, _freezable(machine, method) if blocks else _plain(method)
        )


def _plain(method: Callable[..., Any]) -> Callable[..., int]:
    def call(*arguments: int) -> int:
        try:
            method(*arguments)
        except (Error, OSError, ValueError) as error:
            return _number(error)
        return 0

    return call


def _number(error: Error | OSError | ValueError) -> int:
    """Return the error that a program gets: none that it can cause ends its process."""
    if isinstance(error, Error):
        return error.number
    return FROM_LINUX.get(error.errno or 0, IO) if isinstance(error, OSError) else INVAL


def _freezable(machine: Machine, method: Callable[..., Any]) -> Callable[..., int]:
    """Return a call that takes down the stack, instead of waiting, when the program is to be frozen; then what it returns is seen by nobody."""

    def call(*arguments: int) -> int:
        if machine.rewinding:
            machine.again()
        if machine.asked:
            machine.unwind()
            return 0
        try:
            method(*arguments)
        except (Frozen, Stopped):
            machine.unwind()
        except (Error, OSError, ValueError) as error:
            return _number(error)
        return 0

    return call
