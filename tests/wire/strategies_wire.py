"""Strategies for wire values, derived from the same description as the codec: a message has no second one here to disagree with."""

from typing import Any

from hypothesis import strategies as st

from mk9p.wire import Dialect, Qid, WireStat
from mk9p.wire.messages import MESSAGES, Message
from mk9p.wire.types import Field, fields

PAIRS = [(dialect, cls) for cls in MESSAGES for dialect in cls.dialects]
IDS = [f"{cls.__name__}-{dialect.name}" for dialect, cls in PAIRS]

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
qids = st.builds(Qid, *(st.integers(0, 2**bits - 1) for bits in (8, 32, 64)))


def values(field: Field, dialect: Dialect) -> st.SearchStrategy[Any]:
    """Anything that the field can hold in the dialect: only its default, where the dialect does not have it."""
    if dialect not in field.dialects:
        return st.just(field.default)
    match field.kind.name:
        case "string":
            return texts
        case "names":
            return st.lists(texts, max_size=16).map(tuple)
        case "qid":
            return qids
        case "qids":
            return st.lists(qids, max_size=16).map(tuple)
        case "data":
            return st.binary(max_size=200)
        case "wstat":
            return stats(dialect)
        case number:
            return st.integers(0, 2 ** int(number[1:]) - 1)


def stats(dialect: Dialect) -> st.SearchStrategy[WireStat]:
    defaults = {"extension": "", "n_uid": 0xFFFFFFFF, "n_gid": 0xFFFFFFFF, "n_muid": 0xFFFFFFFF}
    described = fields(WireStat.__annotations__, defaults)
    return st.builds(WireStat, **{field.name: values(field, dialect) for field in described})


def messages(dialect: Dialect, cls: type[Message] | None = None) -> st.SearchStrategy[Message]:
    if cls is None:
        return st.one_of([messages(dialect, each) for each in MESSAGES if dialect in each.dialects])
    return st.builds(cls, **{field.name: values(field, dialect) for field in cls.fields})
