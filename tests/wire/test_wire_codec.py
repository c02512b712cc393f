"""Messages through the codec and back, and what it says of frames that are wrong."""

import errno
import linecache
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mk9p.errors import NineError, ProtocolError
from mk9p.wire import (
    NOTAG,
    TABLE,
    Dialect,
    Qid,
    Rerror,
    Rgetattr,
    Rread,
    Rreaddir,
    Rreadlink,
    Rstat,
    Rwalk,
    Tattach,
    Tcreate,
    Tfsync,
    Tgetattr,
    Tlock,
    Tread,
    Tversion,
    Twalk,
    Twrite,
    Twstat,
    WireStat,
    codec,
    decode,
    encode,
    is_name,
    pack_dirents,
    pack_stat,
    unpack_dirents,
    unpack_stats,
)
from mk9p.wire.messages import MESSAGES, Message
from mk9p.wire.types import fields
from tests.wire.strategies_wire import IDS, PAIRS, messages, qids, stats, texts

P9, U, L = Dialect
QID = Qid(0x80, 3, 0x1234)
STAT = WireStat(0, 0, QID, 0o644, 1, 2, 3, "name", "uid", "gid", "muid")


def with_size(body: bytes) -> bytes:
    return (len(body) + 4).to_bytes(4, "little") + body


@contextmanager
def refusing(*numbers: int) -> Iterator[None]:
    """Let what is inside succeed, or raise NineError with one of these numbers, and nothing else."""
    try:
        yield
    except NineError as error:
        if error.errno not in numbers:
            raise


@pytest.mark.parametrize(("dialect", "cls"), PAIRS, ids=IDS)
@settings(max_examples=30)
@given(data=st.data())
def test_round_trip(dialect: Dialect, cls: type[Message], data: st.DataObject) -> None:
    message = data.draw(messages(dialect, cls))
    frame = encode(dialect, message)
    assert int.from_bytes(frame[:4], "little") == len(frame)
    assert frame[4] == cls.type
    assert int.from_bytes(frame[5:7], "little") == message.tag
    assert decode(dialect, frame) == message
    # the same in the middle of a buffer of any kind, as the server reads it
    for buffer in (bytearray, memoryview, bytes):
        around: Any = buffer(b"\xff" * 9 + frame + b"\xff" * 9)
        assert codec(dialect, cls.type).unpack(around, 14, 9 + len(frame)) == message.values()


@pytest.mark.parametrize(("dialect", "cls"), PAIRS, ids=IDS)
@settings(max_examples=20)
@given(data=st.data())
def test_a_shortened_or_lengthened_frame_is_refused(dialect: Dialect, cls: type[Message], data: st.DataObject) -> None:
    frame = encode(dialect, data.draw(messages(dialect, cls)))
    cut = data.draw(st.integers(5, len(frame) - 1))
    older_form = cls is Tfsync and cut == 11
    for body in (frame[4:cut], frame[4:] + b"\0"):
        if not (older_form and len(body) == 7):
            with pytest.raises(NineError, match=f"{cls.__name__}|stat") as caught:
                codec(dialect, cls.type).unpack(body, 1, len(body))
            assert caught.value.errno == errno.EBADMSG
    with pytest.raises(ProtocolError):
        decode(dialect, frame[:cut])


@settings(max_examples=500)
@given(st.sampled_from(Dialect), st.data())
def test_a_damaged_frame_gives_a_message_or_an_error_of_ours(dialect: Dialect, data: st.DataObject) -> None:
    frame = bytearray(encode(dialect, data.draw(messages(dialect))))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(4, len(frame) - 1), st.integers(0, 255)), max_size=4)):
        frame[at] = byte
    with refusing(errno.EBADMSG, errno.EOPNOTSUPP):
        message = decode(dialect, frame)
        if not isinstance(message, Tfsync):  # whose older form is shorter than what we send
            assert encode(dialect, message) == frame  # only one frame means one thing


@given(st.sampled_from(Dialect), st.binary(max_size=80))
def test_noise_gives_an_error_of_ours(dialect: Dialect, noise: bytes) -> None:
    with refusing(errno.EBADMSG, errno.EOPNOTSUPP):
        decode(dialect, with_size(b"\0" * 3 + noise))
    with pytest.raises(ProtocolError):
        decode(dialect, noise[:4] + b"\xff" + noise[4:])
    with refusing(errno.EBADMSG):
        unpack_stats(dialect, noise)
    with refusing(errno.EBADMSG):
        unpack_dirents(noise)


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_the_docstring_is_the_manuals_line_for_the_fields(cls: type[Message]) -> None:
    described = " ".join(field.kind.manual.format(field.name.rstrip("_")) for field in cls.fields)
    tag, rest = described.split("]", 1)
    assert " ".join((cls.__doc__ or "").split()) == f"size[4] {cls.__name__} {tag}]{rest}"


def test_every_dialect_knows_its_messages() -> None:
    known = [{codec.type for codec in table if codec} for table in TABLE]
    assert known[P9] == known[U] == set(range(100, 128)) - {106}
    assert known[L] - known[P9] == {cls.type for cls in MESSAGES if cls.type < 100}
    assert known[P9] - known[L] == {Rerror.type}
    assert len(MESSAGES) == len({cls.type for cls in MESSAGES}) == 27 + 39
    for dialect, cls in PAIRS:
        found = codec(dialect, cls.type)
        assert (found.cls, found.type, found.name) == (cls, cls.type, cls.__name__)
        assert (cls.type % 2 == 0) == cls.__name__.startswith("T")


def test_frames_that_are_the_same_share_a_codec() -> None:
    assert TABLE[P9][Tread.type] is TABLE[U][Tread.type] is TABLE[L][Tread.type]
    assert TABLE[P9][Tattach.type] is not TABLE[U][Tattach.type]
    assert TABLE[P9][Twstat.type] is not TABLE[U][Twstat.type]
    assert TABLE[U][Twstat.type] is TABLE[L][Twstat.type]


def test_code_is_made_when_looked_at_and_kept() -> None:
    found = codec(L, Tgetattr.type)
    assert found.unpack is found.unpack
    assert found.pack is found.pack
    with pytest.raises(AttributeError, match="unpacked"):
        found.unpacked  # noqa: B018


def test_a_traceback_shows_the_generated_source() -> None:
    with pytest.raises(NineError) as caught:
        codec(U, Tattach.type).unpack(b"\0" * 12, 0, 12)
    frames = traceback.extract_tb(caught.value.__traceback__)
    generated = next(frame for frame in frames if frame.filename == "<wire Tattach 9P2000.u unpack>")
    linecache.checkcache()
    assert "misfit" in (generated.line or "")


def test_what_a_dialect_lacks_reads_as_its_default_and_is_not_sent() -> None:
    attach = Tattach(1, 2, 3, "u", "a", 1000)
    assert codec(P9, Tattach.type).unpack(encode(P9, attach), 5, 21) == (1, 2, 3, "u", "a", 0xFFFFFFFF)
    assert encode(U, attach) == encode(L, attach) == with_size(encode(P9, attach)[4:] + b"\xe8\3\0\0")
    assert encode(U, Rerror(1, "no", 5)) == with_size(encode(P9, Rerror(1, "no", 5))[4:] + b"\5\0\0\0")
    assert encode(L, Tcreate(1, 2, "n", 0, 0, "x")) == with_size(encode(P9, Tcreate(1, 2, "n", 0, 0))[4:] + b"\1\0x")
    assert len(pack_stat(U, STAT)) == len(pack_stat(P9, STAT)) + 2 + 12
    assert pack_stat(U, STAT) == pack_stat(L, STAT)


def test_tfsync_is_read_without_datasync_too() -> None:
    frame = encode(L, Tfsync(1, 2, 1))
    assert len(frame) == 15
    assert decode(L, with_size(frame[4:11])) == Tfsync(1, 2) == Tfsync(1, 2, 0)


def test_data_is_a_view_into_the_buffer() -> None:
    buffer = bytearray(encode(P9, Twrite(1, 2, 3, b"before")))
    for given_buffer in (buffer, memoryview(buffer)):
        buffer[-6:] = b"before"
        data = codec(P9, Twrite.type).unpack(given_buffer, 5, len(buffer))[3]
        buffer[-6:] = b"after."
        assert isinstance(data, memoryview)
        assert bytes(data) == b"after."


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_data_is_packed_from_anything_like_bytes(kind: Any) -> None:
    frame = codec(P9, Rread.type).pack(1, kind(b"abc"))
    assert type(frame) is bytes
    assert frame == bytes.fromhex("0e000000 75 0100 03000000") + b"abc"


@pytest.mark.parametrize(
    ("type_", "body", "words"),
    [
        (Tread, "0100 02000000 0000", "Tread: ends within offset"),
        (Tread, "0100", "Tread: ends within fid"),
        (Tread, "0100" + 16 * "00" + "0000", "Tread: 2 bytes too many"),
        (Tversion, "ffff 00200000 0600 39503230", "Tversion: ends within version"),
        (Tversion, "ffff 00200000 06", "Tversion: ends within the length of version"),
        (Tversion, "ffff 00200000 0200 39 ff", "Tversion: version is not UTF-8 without NUL"),
        (Tversion, "ffff 00200000 0200 39 00", "Tversion: version is not UTF-8 without NUL"),
        (Tversion, "ffff 00200000 0200 39 50 00", "Tversion: 1 bytes too many"),
        (Twalk, "0100 02000000 03000000 1100", "Twalk: 17 names, at most 16"),
        (Twalk, "0100 02000000 03000000 0100 01", "Twalk: ends within the length of a name"),
        (Twalk, "0100 02000000 03000000 0100 0200 41", "Twalk: ends within a name"),
        (Twalk, "0100 02000000 03000000 0100 0100 80", "Twalk: a name is not UTF-8 without NUL"),
        (Twalk, "0100 02000000 03000000 0100 0100 00", "Twalk: a name is not UTF-8 without NUL"),
        (Twalk, "0100 02000000 03000000 0000 00", "Twalk: 1 bytes too many"),
        (Rwalk, "0100 1100" + 17 * 13 * "00", "Rwalk: 17 qids, at most 16"),
        (Rwalk, "0100 0100" + 12 * "00", "Rwalk: ends within qids"),
        (Rread, "0100 05000000 41424344", "Rread: ends within data"),
        (Rread, "0100 ffffffff 41424344", "Rread: ends within data"),
        (Rstat, "0100 0100 00", "Rstat: the size of stat is wrong"),
        (Rstat, "0100 0400 01000000", "Rstat: the size of stat is wrong"),
        (Rstat, "0100 0400 02000000", "stat: ends within dev"),
        (Rstat, "0100 0500 02000000", "Rstat: ends within stat"),
    ],
)
def test_an_error_names_message_and_field(type_: type[Message], body: str, words: str) -> None:
    with pytest.raises(NineError) as caught:
        decode(P9, with_size(bytes((type_.type,)) + bytes.fromhex(body)))
    assert (caught.value.errno, caught.value.ename) == (errno.EBADMSG, words)


@pytest.mark.parametrize(
    ("message", "number", "words"),
    [
        (Tversion(NOTAG, 8192, "x" * 65536), errno.ENAMETOOLONG, "Tversion: version has 65536 bytes"),
        (Twalk(1, 2, 3, ("x" * 65536,)), errno.ENAMETOOLONG, "Twalk: a name has 65536 bytes"),
        (Twalk(1, 2, 3, ("x",) * 17), errno.E2BIG, "Twalk: 17 names"),
        (Rwalk(1, (QID,) * 17), errno.E2BIG, "Rwalk: 17 qids"),
        (Rstat(1, WireStat(0, 0, QID, 0, 0, 0, 0, "x" * 40000, "u" * 40000, "", "")), errno.ENAMETOOLONG, "the entry"),
        (Twalk(1, 2, 3, ("caf\ud8e9",)), errno.EILSEQ, r"Twalk: 'caf\\ud8e9'"),
        (Tversion(NOTAG, 8192, "\ud800"), errno.EILSEQ, "Tversion"),
    ],
)
def test_what_cannot_be_sent(message: Message, number: int, words: str) -> None:
    with pytest.raises(NineError, match=words) as caught:
        encode(U, message)
    assert caught.value.errno == number


def test_longest_strings_pass() -> None:
    for message in (Twalk(1, 2, 3, ("x" * 65535, "é" * 32767)), Tversion(NOTAG, 8192, "x" * 65535)):
        assert decode(P9, encode(P9, message)) == message
    assert unpack_dirents(pack_dirents([(QID, 1, 4, "x" * 65535)])) == [(QID, 1, 4, "x" * 65535)]


def test_a_message_that_the_dialect_lacks() -> None:
    for work in (lambda: encode(P9, Tgetattr(1, 2, 3)), lambda: decode(U, encode(L, Tgetattr(1, 2, 3)))):
        with pytest.raises(NineError, match="has no message of type 24") as caught:
            work()
        assert caught.value.errno == errno.EOPNOTSUPP
    with pytest.raises(NineError, match=r"9P2000\.L has no message of type 107"):
        encode(L, Rerror(1, "x"))


@given(st.sampled_from(Dialect), st.data())
def test_directories_of_9p2000(dialect: Dialect, data: st.DataObject) -> None:
    entries = data.draw(st.lists(stats(dialect), max_size=4))
    packed = b"".join(pack_stat(dialect, entry) for entry in entries)
    assert unpack_stats(dialect, packed) == unpack_stats(dialect, memoryview(packed)) == entries
    if entries:
        with pytest.raises(NineError, match="stat"):
            unpack_stats(dialect, packed[:-1])
        with pytest.raises(NineError, match="stat: ends within size"):
            unpack_stats(dialect, packed + b"\0")


@given(st.lists(st.tuples(qids, st.integers(0, 2**64 - 1), st.integers(0, 255), texts), max_size=5))
def test_directories_of_linux(entries: list[tuple[Qid, int, int, str]]) -> None:
    packed = pack_dirents(entries)
    assert len(packed) == sum(24 + len(name.encode()) for *_, name in entries)
    assert unpack_dirents(packed) == unpack_dirents(memoryview(packed)) == entries
    assert decode(L, encode(L, Rreaddir(1, packed))) == Rreaddir(1, packed)
    if entries:
        with pytest.raises(NineError, match="Rreaddir: ends within"):
            unpack_dirents(packed[:-1])


def test_directories_of_linux_that_are_wrong() -> None:
    entry = pack_dirents([(QID, 1, 4, "ab")])
    with pytest.raises(NineError, match="ends within an entry"):
        unpack_dirents(entry[:20])
    with pytest.raises(NineError, match="name has 65536 bytes"):
        pack_dirents([(QID, 1, 4, "x" * 65536)])
    with pytest.raises(NineError, match="is not UTF-8"):
        pack_dirents([(QID, 1, 4, "\ud8ff")])


ODD = "caf\udce9"  # b"caf\xe9", in Latin-1, as PEP 383 has it


@pytest.mark.parametrize("dialect", Dialect)
def test_a_name_that_is_not_utf_8_is_told_in_replies_and_entries(dialect: Dialect) -> None:
    entry = STAT._replace(name=ODD)
    for message in (Rstat(1, entry), *([Rreadlink(1, ODD)] if dialect is L else [Rerror(1, ODD)])):
        frame = encode(dialect, message)
        assert b"caf\xe9" in frame
        assert decode(dialect, frame) == message
    assert unpack_stats(dialect, pack_stat(dialect, entry)) == [entry]
    assert unpack_dirents(pack_dirents([(QID, 1, 4, ODD)])) == [(QID, 1, 4, ODD)]


@pytest.mark.parametrize("dialect", Dialect)
def test_a_request_may_be_sent_with_a_name_that_is_not_utf_8_and_is_not_taken(dialect: Dialect) -> None:
    for message in (Twalk(1, 2, 3, (ODD,)), Tcreate(1, 2, ODD, 0, 0), Twstat(1, 2, STAT._replace(name=ODD))):
        frame = encode(dialect, message)
        assert b"caf\xe9" in frame
        with pytest.raises(NineError, match="is not UTF-8 without NUL"):
            decode(dialect, frame)


def test_a_nul_spoils_a_message_and_no_other_entry() -> None:
    with pytest.raises(NineError, match="Rreadlink: target is not UTF-8 without NUL"):
        decode(L, encode(L, Rreadlink(1, "a\0b")))
    entries = [(QID, 1, 4, "a\0b"), (QID, 2, 4, "good")]
    assert unpack_dirents(pack_dirents(entries)) == entries
    stats_ = [STAT._replace(name="a\0b"), STAT]
    assert unpack_stats(P9, b"".join(pack_stat(P9, each) for each in stats_)) == stats_


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/b", "../x", "a\0", "x" * 256, "é" * 128, "\udcff" * 256])
def test_what_is_no_name(name: str) -> None:
    assert not is_name(name)


@pytest.mark.parametrize("name", ["a", "...", " ", "\n", "\x1b[2J", ODD, "x" * 255, "é" * 127 + "x", "\udcff" * 255])
def test_what_is_a_name(name: str) -> None:
    assert is_name(name)


def test_messages_are_values() -> None:
    assert Twalk(1, 2, 3, ("a",)) == Twalk(tag=1, fid=2, newfid=3, names=("a",))
    assert Twalk(1, 2, 3, ()) != Twalk(1, 2, 4, ())
    assert len({Tread(1, 2, 3, 4), Tread(1, 2, 3, 4), Tread(1, 2, 3, 5)}) == 2
    with pytest.raises(AttributeError):
        Tread(1, 2, 3, 4).fid = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        Tread(1, 2, 3)  # type: ignore[call-arg]
    match Tread(1, 2, 3, 4):
        case Tread(tag, fid):
            assert (tag, fid) == (1, 2)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (Tversion(NOTAG, 8192, "9P2000"), "Tversion tag=~0 msize=8192 version='9P2000'"),
        (Twalk(1, 2, 3, ("a", "b")), "Twalk tag=1 fid=2 newfid=3 names=('a', 'b')"),
        (Rwalk(1, (QID, Qid(0, 0, 15))), "Rwalk tag=1 qids=[(1234 3 d) (f 0 )]"),
        (Tcreate(1, 2, "n", 0x800001ED, 1), "Tcreate tag=1 fid=2 name='n' perm=0o20000000755 mode=1 extension=''"),
        (Rread(1, b"abc"), "Rread tag=1 data=b'abc'"),
        (Rread(1, memoryview(bytes(1000))), f"Rread tag=1 data={bytes(32)!r}+968"),
        (Tgetattr(1, 2, 0x17FF), "Tgetattr tag=1 fid=2 request_mask=0x17ff"),
        (
            Tlock(1, 2, 1, 1, 0, 0, 7, "x"),
            "Tlock tag=1 fid=2 type_=1 flags=0x1 start=0 length=0 proc_id=7 client_id='x'",
        ),
    ],
)
def test_a_message_prints_as_a_line_of_trace(message: Message, line: str) -> None:
    assert repr(message) == line


def test_rgetattr_prints() -> None:
    line = repr(Rgetattr(1, 0x7FF, QID, 0o100644, *range(17)))
    assert line.startswith("Rgetattr tag=1 valid=0x7ff qid=(1234 3 d) mode=0o100644 uid=0 ")


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("9P2000", P9),
        ("9P2000.u", U),
        ("9P2000.L", L),
        ("9P2000.e", P9),
        ("9P2000.", P9),
        ("9P2010", P9),
        ("9P2010.x", P9),
        ("9P002000", P9),
        ("9P0001999", None),
        ("9P" + "9" * 65000, P9),
        ("9P1999", None),
        ("9P", None),
        ("9Pfoo", None),
        ("9P²000", None),
        ("", None),
        ("2000", None),
        ("unknown", None),
        ("9p2000", None),
    ],
)
def test_the_version_agreed_is_the_highest_not_above_the_one_asked(asked: str, got: Dialect | None) -> None:
    assert Dialect.of(asked) == got


def test_versions() -> None:
    assert [Dialect.of(dialect.version) for dialect in Dialect] == list(Dialect)


def test_what_has_no_kind_is_no_field() -> None:
    assert [field.name for field in fields({"type": "ClassVar", **Tread.__annotations__}, {})] == [
        "tag",
        "fid",
        "offset",
        "count",
    ]
