"""9P2000 byte for byte against a stranger: py9p, which is plan9port's lib9 `convM2S` and `convS2M`."""

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mk9p.errors import NineError
from mk9p.wire import Dialect, Qid, WireStat, decode, encode, pack_stat, unpack_stats
from mk9p.wire.messages import MESSAGES, Message
from tests.wire.strategies_wire import messages, stats

py9p = pytest.importorskip("py9p", reason="needs python-9p")

P9 = Dialect.P9
CLASSES = [cls for cls in MESSAGES if P9 in cls.dialects]
NAMES = {"names": "wname", "qids": "wqid"}


def theirs(value: Any) -> Any:
    """Our value as py9p has it: its offset and length are Plan 9's vlong, which is signed, and its strings C's, which end at a NUL."""
    assume(getattr(value, "offset", 0) < 2**63 and getattr(value, "length", 0) < 2**63)
    match value:
        case Qid():
            return py9p.Qid(*value)
        case WireStat():
            names = ("type", "dev", "qid", "mode", "atime", "mtime", "length", "name", "uid", "gid", "muid")
            return py9p.Dir(**{name: theirs(getattr(value, name)) for name in names})
        case tuple():
            return tuple(map(theirs, value))
        case str():
            return value.partition("\0")[0]
        case Message():
            shown = {
                NAMES.get(f.name, f.name): theirs(getattr(value, f.name)) for f in value.fields if P9 in f.dialects
            }
            return getattr(py9p, value.__class__.__name__)(**shown)
    return value


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@settings(max_examples=50)
@given(data=st.data())
def test_same_bytes(cls: type[Message], data: st.DataObject) -> None:
    message = data.draw(messages(P9, cls))
    frame = encode(P9, message)
    assert frame == theirs(message).to_bytes()
    assert py9p.decode_message(frame) == theirs(message)
    assert decode(P9, frame) == message


@settings(max_examples=500)
@given(st.data())
def test_what_we_accept_of_damaged_frames_they_understand_alike(data: st.DataObject) -> None:
    frame = bytearray(encode(P9, data.draw(messages(P9))))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(4, len(frame) - 1), st.integers(0, 255)), max_size=4)):
        frame[at] = byte
    try:
        ours = decode(P9, frame)
    except NineError:
        assume(False)
    try:
        assert py9p.decode_message(bytes(frame)) == theirs(ours)
    except UnicodeDecodeError:
        assert r"\udc" in repr(ours), "a name that is not UTF-8 is kept, if a server tells it"


@given(stats(P9))
def test_same_stat_entry(stat: WireStat) -> None:
    packed = pack_stat(P9, stat)
    assert packed == theirs(stat).to_bytes()
    assert py9p.Dir.from_bytes(packed) == theirs(stat)
    assert unpack_stats(P9, packed) == [stat]
