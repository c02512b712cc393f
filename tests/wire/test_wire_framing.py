"""A stream cut into frames, however it arrives."""

from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mk9p.errors import NineError, ProtocolError
from mk9p.wire import NOTAG, Dialect, FrameBuffer, Rversion, Tread, Tversion, Twrite, codec, decode, encode
from tests.wire.strategies_wire import messages

P9, U, L = Dialect
VERSION = encode(P9, Tversion(NOTAG, 8192, "9P2000.L"))
KIB = 1024


def feed(frames: FrameBuffer, chunk: bytes) -> None:
    """Receive a chunk as a socket would: in pieces as large as the room there is."""
    while chunk:
        room = frames.space()
        assert len(room) > 0
        n = min(len(room), len(chunk))
        room[:n] = chunk[:n]
        frames.received(n)
        chunk = chunk[n:]


def taken(frames: FrameBuffer) -> list[bytes]:
    found = []
    while (place := frames.next()) is not None:
        found.append(bytes(frames.view[slice(*place)]))
    return found


def through(frames: FrameBuffer, chunks: Iterable[bytes]) -> list[bytes]:
    found = []
    for chunk in chunks:
        feed(frames, chunk)
        found += taken(frames)
    return found


@given(st.lists(messages(L), max_size=8), st.data())
def test_any_chunks_give_the_frames_sent(sent: list[object], data: st.DataObject) -> None:
    frames = [encode(L, message) for message in sent]  # type: ignore[arg-type]
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert through(FrameBuffer(64 * KIB), chunks) == frames


@settings(max_examples=30)
@given(
    st.lists(st.integers(7, 300 * KIB), min_size=1, max_size=6),
    st.lists(st.integers(500, 200 * KIB), min_size=1),
    st.lists(st.booleans(), min_size=1),
)
def test_frames_of_any_size_by_chunks_of_any_size(sizes: list[int], steps: list[int], detach: list[bool]) -> None:
    """Views of a detached buffer stay as they are, whatever is received afterwards."""
    bodies = [bytes([i + 1]) * (size - 4) for i, size in enumerate(sizes)]
    stream = b"".join((len(body) + 4).to_bytes(4, "little") + body for body in bodies)
    frames = FrameBuffer(300 * KIB)
    kept: list[tuple[memoryview, bytes]] = []
    found, at, turn = [], 0, 0
    while at < len(stream):
        room = frames.space()
        n = min(len(room), steps[turn % len(steps)], len(stream) - at)
        assert n > 0
        room[:n] = stream[at : at + n]
        frames.received(n)
        at += n
        while (place := frames.next()) is not None:
            view = frames.view[slice(*place)]
            found.append(bytes(view[4:]))
            if detach[len(found) % len(detach)]:
                frames.detach()
                kept.append((view, found[-1]))
        turn += 1
    assert found == bodies
    assert all(view[4:] == body for view, body in kept)


def test_room_is_small_at_first_and_at_least_the_rest_of_the_frame() -> None:
    frames = FrameBuffer(1024 * KIB)
    assert 16 * KIB <= len(frames.space()) <= 64 * KIB  # kept for a client that is silent
    frame = encode(P9, Twrite(1, 2, 0, bytes(500 * KIB)))
    feed(frames, frame[:5])
    assert len(frames.space()) >= len(frame) - 5
    feed(frames, frame[5:])
    assert taken(frames) == [frame]
    assert len(frames.space()) >= 16 * KIB


def test_a_huge_frame_is_received_where_it_begins() -> None:
    frames = FrameBuffer(4096 * KIB)
    frame = encode(P9, Twrite(1, 2, 0, bytes(3000 * KIB)))
    feed(frames, frame[:5])
    frames.space()
    buffer = frames.buf
    feed(frames, frame[5 : 2000 * KIB])
    feed(frames, frame[2000 * KIB :])
    assert frames.buf is buffer
    assert taken(frames) == [frame]


def test_a_stream_of_large_frames_gets_a_large_buffer() -> None:
    frames = FrameBuffer(1024 * KIB)
    frame = encode(P9, Twrite(1, 2, 0, bytes(64 * KIB)))
    stream = memoryview(frame * 100)
    while stream:
        space = frames.space()
        count = min(len(space), len(stream), 50_000)
        space[:count] = stream[:count]
        frames.received(count)
        stream = stream[count:]
        taken(frames)
    assert 256 * KIB <= len(frames.buf) <= 2048 * KIB


def test_room_is_there_even_if_no_frame_is_taken() -> None:
    frames = FrameBuffer(8 * KIB)
    frame = encode(P9, Tread(1, 2, 3, 4))
    feed(frames, frame * 50_000)
    assert taken(frames) == [frame] * 50_000


def test_a_buffer_is_used_again_from_the_start() -> None:
    frames = FrameBuffer(8 * KIB)
    before = frames.buf
    frame = encode(P9, Twrite(1, 2, 0, bytes(8000)))
    assert through(frames, [frame[:100]] + [frame[100:] + frame[:100]] * 100 + [frame[100:]]) == [frame] * 101
    assert frames.buf is before


def test_a_limit_does_not_let_a_peer_ask_for_memory() -> None:
    frames = FrameBuffer(8 * KIB)
    feed(frames, b"\xff\xff\xff\xff")
    assert len(frames.space()) < 256 * KIB


@pytest.mark.parametrize("size", [0, 6, 8 * KIB + 1, 0xFFFFFFFF])
def test_an_impossible_size_ends_the_conversation(size: int) -> None:
    frames = FrameBuffer(8 * KIB)
    good = encode(P9, Tread(1, 2, 3, 4))
    feed(frames, good + size.to_bytes(4, "little"))
    assert frames.next() == (0, len(good))
    with pytest.raises(ProtocolError, match=str(size)):
        frames.next()


def test_whoever_speaks_tls_is_told_apart() -> None:
    frames = FrameBuffer(8 * KIB)
    feed(frames, b"\x16\x03\x01\x02\x00\x01")
    with pytest.raises(ProtocolError, match="it speaks TLS, and this end does not"):
        frames.next()
    frames = FrameBuffer(1024 * KIB)
    assert not frames.speaks_tls
    feed(frames, b"\x15\x03\x03\x00\x02\x02\x46")
    assert frames.next() is None
    assert frames.speaks_tls


def test_there_is_always_room_for_16_kib() -> None:
    frames = FrameBuffer(1024 * KIB, most=32 * KIB)
    size = 25 * KIB
    feed(frames, size.to_bytes(4, "little") + bytes(20 * KIB - 4))
    assert len(frames.space()) >= 16 * KIB


def test_the_limit_can_be_moved() -> None:
    frames = FrameBuffer(8 * KIB)
    frames.limit = 16 * KIB
    frame = encode(P9, Twrite(1, 2, 0, bytes(16 * KIB - 23)))
    assert through(frames, [frame]) == [frame]
    frames.limit = 8 * KIB
    with pytest.raises(ProtocolError):
        through(frames, [frame])


def test_detach_keeps_what_is_not_handed_out() -> None:
    frames = FrameBuffer(8 * KIB)
    first, second = encode(P9, Twrite(1, 2, 0, b"first")), encode(P9, Twrite(2, 2, 0, b"second"))
    feed(frames, first + second + first[:10])
    place = frames.next()
    assert place is not None
    data = codec(P9, Twrite.type).unpack(frames.view, place[0] + 5, place[1])[3]
    frames.detach()
    assert taken(frames) == [second]
    assert through(frames, [first[10:], second * 1000]) == [first, *[second] * 1000]
    assert data == b"first"


def test_a_stream_of_many_does_not_grow_beyond_what_it_is_allowed() -> None:
    """`most` bounds how long a buffer grows; a frame that the limit allows is received whatever it says."""
    small, large = FrameBuffer(1024 * KIB, 32 * KIB), FrameBuffer(1024 * KIB)
    stream = encode(P9, Twrite(1, 2, 0, bytes(10 * KIB))) * 200
    for frames in (small, large):
        rest = stream
        while rest:
            n = min(len(frames.space()), len(rest))
            through(frames, [rest[:n]])
            rest = rest[n:]
    assert len(small.buf) <= 32 * KIB < len(large.buf)
    frame = encode(P9, Twrite(1, 2, 0, bytes(500 * KIB)))
    assert through(small, [frame]) == [frame]


def grown() -> FrameBuffer:
    frames = FrameBuffer(1024 * KIB)
    frame = encode(P9, Twrite(1, 2, 0, bytes(500 * KIB)))
    assert through(frames, [frame]) == [frame]
    assert len(frames.buf) > 500 * KIB
    return frames


def test_a_buffer_that_has_grown_shrinks_when_nothing_is_in_it() -> None:
    fresh = len(FrameBuffer(8 * KIB).buf)
    frames = grown()
    assert frames.can_shrink
    frames.shrink()
    assert len(frames.buf) == fresh
    assert not frames.can_shrink
    kept = frames.buf
    frames.shrink()
    assert frames.buf is kept, "it is as short as it began"
    assert through(frames, [VERSION]) == [VERSION]


def test_a_buffer_that_has_something_in_it_does_not_shrink() -> None:
    frames = grown()
    feed(frames, VERSION[:9])
    length = len(frames.buf)
    assert not frames.can_shrink
    frames.shrink()
    assert len(frames.buf) == length
    assert through(frames, [VERSION[9:]]) == [VERSION]


def test_detach_tells_how_much_is_left_to_others() -> None:
    frames = grown()
    length = len(frames.buf)
    assert frames.detach() == length
    assert frames.detach() == len(FrameBuffer(8 * KIB).buf)


@pytest.mark.parametrize("have", [4, 7, 5000, 400 * KIB])
@pytest.mark.parametrize("step", [1000, 64 * KIB])
def test_a_frame_that_is_passed_over_is_received_and_forgotten(have: int, step: int) -> None:
    """What comes behind it is handed out, and the buffer is as short as it began meanwhile."""
    frames = FrameBuffer(1024 * KIB)
    large = encode(P9, Twrite(1, 2, 0, bytes(500 * KIB)))
    assert through(frames, [VERSION, large[:have]]) == [VERSION]
    frames.pass_over(len(large))
    assert not frames.pending
    assert len(frames.buf) == len(FrameBuffer(8 * KIB).buf)
    rest = large[have:] + VERSION + VERSION
    assert through(frames, [rest[at : at + step] for at in range(0, len(rest), step)]) == [VERSION, VERSION]
    assert len(frames.buf) <= 64 * KIB


def test_a_buffer_that_is_put_away_goes_to_the_next_that_receives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mk9p.wire.framing._spare", [])
    one, other = FrameBuffer(8192), FrameBuffer(8192)
    other.put_away()
    buf = one.buf
    one.put_away()
    assert not one.buf
    assert one.next() is None
    assert through(other, [VERSION]) == [VERSION]
    assert other.buf is buf
    other.put_away()
    others = [FrameBuffer(8192) for _ in range(64)]
    for frames in others:
        frames.put_away()
    fresh = [frames for frames in others if frames.space() is not None]
    assert len({id(frames.buf) for frames in fresh}) == 64
    assert through(one, [VERSION[:5], VERSION[5:]]) == [VERSION]


def test_a_buffer_is_not_put_away_with_something_in_it_or_when_it_has_grown() -> None:
    frames = FrameBuffer(1 << 20)
    feed(frames, VERSION[:5])
    buf = frames.buf
    frames.put_away()
    assert frames.buf is buf
    assert through(frames, [VERSION[5:]]) == [VERSION]
    large = encode(P9, Twrite(1, 1, 0, bytes(1 << 17)))
    assert through(frames, [large]) == [large]
    grown = frames.buf
    frames.put_away()
    assert frames.buf is grown


def test_a_frame_that_is_passed_over_may_end_where_the_bytes_end() -> None:
    frames = FrameBuffer(64 * KIB)
    frame = encode(P9, Twrite(1, 2, 0, bytes(100)))
    feed(frames, frame[:20])
    frames.pass_over(len(frame))
    assert through(frames, [frame[20:]]) == []
    assert not frames.pending
    assert through(frames, [VERSION]) == [VERSION]


def test_frames_may_be_taken_by_hand() -> None:
    frames = FrameBuffer(64 * KIB)
    assert not frames.pending
    assert frames.ahead() == (0, 0)
    first, second = encode(L, Tread(1, 2, 0, 10)), encode(L, Tread(2, 2, 0, 10))
    feed(frames, first + second + first[:5])
    start, end = frames.ahead()
    assert bytes(frames.view[start:end]) == first + second + first[:5]
    frames.head = start + len(first)
    assert taken(frames) == [second]
    assert frames.pending, "a part of a frame"
    feed(frames, first[5:])
    assert taken(frames) == [first]
    assert not frames.pending


def test_nothing_lies_ahead_while_a_version_is_sought() -> None:
    frames = FrameBuffer(64 * KIB)
    frames.resync(Tversion.type)
    feed(frames, encode(L, Tread(1, 2, 0, 10)))
    start, end = frames.ahead()
    assert start == end
    version = encode(L, Tversion(NOTAG, 8192, "9P2000.L"))
    feed(frames, version[:9])
    start, end = frames.ahead()
    assert start == end
    feed(frames, version[9:])
    start, end = frames.ahead()
    assert bytes(frames.view[start:end]) == version


def test_drop_partial() -> None:
    frames = FrameBuffer(8 * KIB)
    frame = encode(P9, Tread(1, 2, 3, 4))
    assert through(frames, [frame + frame[:10]]) == [frame]
    frames.drop_partial()
    assert through(frames, [frame]) == [frame]


@given(
    st.binary(max_size=40), st.lists(st.integers(1, 9), min_size=1), st.sampled_from(["9P2000.L", "9P2000", "unknown"])
)
def test_resync_finds_the_version_behind_stale_bytes(stale: bytes, steps: list[int], version: str) -> None:
    wanted = encode(P9, Rversion(NOTAG, 8192, version))
    frames = FrameBuffer(8 * KIB)
    frames.resync(Rversion.type)
    stream = stale + wanted + b"\7\0\0\0\x78\1\0"
    chunks: list[bytes] = []
    at = 0
    while at < len(stream):
        chunks.append(stream[at : at + steps[len(chunks) % len(steps)]])
        at += len(chunks[-1])
    assert through(frames, chunks) == [wanted, b"\7\0\0\0\x78\1\0"]


@pytest.mark.parametrize(
    "stale",
    [
        encode(P9, Rversion(NOTAG, 8192, "9P2000")),  # the other direction's
        encode(P9, Tversion(NOTAG, 8192, "8P2000")),
        encode(P9, Tversion(NOTAG, 8192, "9P" + "x" * 40)),
        encode(P9, Tversion(1, 8192, "9P2000")),
        VERSION[:-1],  # a lost byte: the next message's first takes its place
        VERSION[:12],
        VERSION[:5] + VERSION[6:],
        VERSION[:11] + b"\1\0" + VERSION[13:],
        b"\x64\xff\xff" * 30,
        bytes(100 * KIB),
    ],
)
def test_resync_is_not_taken_in(stale: bytes) -> None:
    frames = FrameBuffer(8 * KIB)
    frames.resync(Tversion.type)
    for _ in range(2):
        assert through(frames, [stale]) == []
    assert through(frames, [VERSION, VERSION]) == [VERSION, VERSION]


def test_resync_after_the_framing_was_lost() -> None:
    frames = FrameBuffer(8 * KIB)
    feed(frames, b"\xff\xff\xff\xff and more")
    with pytest.raises(ProtocolError):
        frames.next()
    frames.resync(Tversion.type)
    assert frames.next() is None
    frames.drop_partial()
    assert through(frames, [VERSION]) == [VERSION]


@settings(max_examples=300)
@given(st.lists(messages(L), min_size=1, max_size=4), st.data())
def test_a_damaged_stream_gives_frames_or_errors_of_ours(sent: list[object], data: st.DataObject) -> None:
    stream = bytearray(b"".join(encode(L, message) for message in sent))  # type: ignore[arg-type]
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(stream) - 1), st.integers(0, 255)), max_size=4)):
        stream[at] = byte
    frames = FrameBuffer(8 * KIB)
    feed(frames, bytes(stream))
    with suppress(ProtocolError):
        for frame in taken(frames):
            with suppress(NineError):
                decode(L, frame)
