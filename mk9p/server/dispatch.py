"""Which op answers which message: the one of its name. Tversion and Tflush concern the conversation, and have none (engine.py, answers.py)."""

from typing import Final

from mk9p.server import ops, ops_auth, ops_create, ops_linux, ops_stored, ops_wstat
from mk9p.server.connection import Call
from mk9p.wire import Dialect, codec
from mk9p.wire.messages import MESSAGES

_OPS: Final = {
    name.rstrip("_"): op
    for module in (ops, ops_auth, ops_create, ops_linux, ops_stored, ops_wstat)
    for name, op in vars(module).items()
    if name[0] != "_" and getattr(op, "__module__", "") == module.__name__
}
_TABLES: Final[dict[Dialect, list[Call | None]]] = {}


def calls(dialect: Dialect) -> list[Call | None]:
    """Return for each message type of a dialect the function that unpacks it and the op that answers it; None for what is not served."""
    table = _TABLES.get(dialect)
    if table is None:
        table = _TABLES[dialect] = [None] * 256
        for cls in MESSAGES:
            op = _OPS.get(cls.__name__[1:].lower()) if cls.__name__[0] == "T" and dialect in cls.dialects else None
            if op is not None:
                table[cls.type] = (codec(dialect, cls.type).unpack, op)
    return table
