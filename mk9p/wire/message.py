"""What every message is: a value described by its annotations.

The docstring of a class is the manual's line. Its fields, in wire order and under the manual's names, are annotated with wire types. The codec,
the trace line and test strategies follow from the annotations, and a test compares them with the docstring. A fid's type says what the message
does with it: server, relay and client derive their tables from that (roles.py). A manual's `type` is `type_` here, because `type` is the message's
number.

attrs completes a class when its first object is made, not at import: seventy generated `__init__`s cost more than the rest of this room, and the
server's hot path, which works on positional values, never makes one.
"""

from typing import Any, ClassVar, Final, dataclass_transform

from mk9p.wire import types as t
from mk9p.wire.types import Dialect, Field, L


@dataclass_transform(frozen_default=True)
class Message:
    """One message: a value, equal to another of the same class and fields, whose `repr` is a line of trace."""

    type: ClassVar[int]
    dialects: ClassVar[tuple[Dialect, ...]]
    fields: ClassVar[tuple[Field, ...]]
    # The server does it whatever limit its client has reached: afterwards the client has less.
    makes_room: ClassVar[bool] = False
    # A server that may have done it may be asked again: doing it twice is doing it once. Of a write that holds only for bytes at a place in a file.
    repeatable: ClassVar[bool] = True
    tag: t.u16

    def __init_subclass__(cls) -> None:
        cls.fields = t.fields(cls.__annotations__, vars(cls))
        if "dialects" not in vars(cls):
            cls.dialects = (L,) if cls.type < 100 else tuple(Dialect)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        import attrs

        cls = self.__class__
        attrs.frozen(cls, slots=False, repr=False)  # attrs works in place, and puts its own __init__ before this one
        cls.__init__(self, *args, **kwargs)

    def values(self) -> tuple[Any, ...]:
        """Return the fields in wire order, `tag` first: the codec's `pack` takes them so, and `unpack` gives them so."""
        return tuple([getattr(self, field.name) for field in self.fields])

    def __repr__(self) -> str:
        shown = (f"{field.name}={_show(field, value)}" for field, value in zip(self.fields, self.values(), strict=True))
        return f"{self.__class__.__name__} {' '.join(shown)}"


_BITS: Final = {"valid", "request_mask", "flags"}
_SHOWN = 32  # bytes of data in a line of trace


def _show(field: Field, value: Any) -> str:
    """Write one value: all ones is the manual's ~0 (NOFID, NOTAG, don't touch), permissions are octal, masks hexadecimal, data short."""
    match field.kind.name:
        case "u16" | "u32" | "u64" if value == (1 << int(field.kind.name[1:])) - 1:
            return "~0"
        case "u32" if field.name in ("mode", "perm"):
            return f"{value:#o}"
        case "u32" | "u64" if field.name in _BITS:
            return f"{value:#x}"
        case "qid":
            return str(value)
        case "qids":
            return f"[{' '.join(map(str, value))}]"
        case "data":
            more = "" if len(value) <= _SHOWN else f"+{len(value) - _SHOWN}"
            return f"{bytes(value[:_SHOWN])!r}{more}"
    return repr(value)
