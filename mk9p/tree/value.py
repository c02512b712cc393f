"""`Value`: one value as a file, which is read as text and written as text of its kind."""

import enum
import errno
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from mk9p.errors import NineError
from mk9p.tree.files import Text
from mk9p.tree.kinds import Kind, kind
from mk9p.tree.node import Maybe


class Value(Text):
    """A file with one value: `Value(self.enabled, self.enable)` where `def enable(self, on: bool) -> None`.

    `read()` returns it: a bool is shown as `on` or `off`, an Enum by its name or text, other values by `str`, on one line. `write(value)` gets it by
    the kind that its signature says, as a ctl word does (tree/kinds.py); what is written must be of that kind: EINVAL says what is wanted. Raises
    TypeError for a signature that no text can be checked against.
    """

    def __init__(
        self,
        read: Callable[[], Maybe[Any]] | None = None,
        write: Callable[[Any], Maybe[None]] | None = None,
        *,
        mode: int | None = None,
        exclusive: bool = False,
    ) -> None:
        def shown() -> Maybe[str]:
            assert read is not None
            value = read()
            return _later(value) if isinstance(value, Awaitable) else _text(value)

        accept = None if write is None else _accepting(write)
        super().__init__(None if read is None else shown, accept, mode=mode, exclusive=exclusive)


async def _later(value: Awaitable[Any]) -> str:
    return _text(await value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        value = "on" if value else "off"
    elif isinstance(value, enum.Enum):
        value = value.value if isinstance(value.value, str) else value.name
    return f"{value}\n"


def _accepting(write: Callable[[Any], Maybe[None]]) -> Callable[[str], Maybe[None]]:
    parameters = list(inspect.signature(write, eval_str=True).parameters.values())
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(needed) > 1 or not parameters:
        raise TypeError(f"{write!r} takes one value")
    takes = kind(parameters[0].annotation)
    wanted = _wanted(takes, parameters[0].name)

    def accept(text: str) -> Maybe[None]:
        try:
            value = takes.convert(text.strip(" \t"))
        except (ValueError, ArithmeticError):
            raise NineError(errno.EINVAL, f"want {wanted}") from None
        return write(value)

    return accept


def _wanted(takes: Kind, name: str) -> str:
    return takes.shown or name.rstrip("_").upper() + takes.unit
