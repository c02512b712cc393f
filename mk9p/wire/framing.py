"""The receive buffer: bytes from a stream in, whole frames out, nothing copied.

One bytearray holds, from left to right: frames already handed out, frames not yet handed out (the last may be incomplete), and room to receive
into. `next()` hands out a frame as (start, end) in `buf`. The frame and every view into it stay valid until the next `space()`, which may move the
unread tail to the front, over them. A caller who wants to keep views longer (a handler that waits with Twrite's data) first calls `detach()`: the
buffer then belongs to the caller, and reception goes on in a fresh one. So in the usual case, where all frames of a batch are answered before the
next is received, a payload is copied once: by the kernel.

Python cannot resize a bytearray with views into it, so this module never does: a frame that does not fit gets a new, larger buffer, and the old
one lives as long as its views.
"""

from struct import Struct

from mk9p.errors import ProtocolError
from mk9p.wire.const import NOTAG

_SIZE = Struct("<I").unpack_from
_VERSION = Struct("<IBHIH")  # size[4] type[1] tag[2] msize[4] and the length of version[s]
_SMALLEST = 7  # size[4] type[1] tag[2]
_ROOM = 16 * 1024  # room to receive into, at least: a hundred small requests, and little memory for a silent client
CAPACITY = 2 * _ROOM  # at first; a stream that keeps it full gets more
MOST = 64 * _ROOM  # the most for a stream of large frames: it receives a window of 8 at 64 KiB at once
_LITTLE = 4096  # bytes that cost nothing to move
_LONGEST_VERSION = 32
# how TLS begins (RFC 8446, 5.1): a client's hello, and the answer to who does not say one
_TLS_HELLO, _TLS_ALERT, _TLS_MINOR = 0x0316, 0x0315, (1, 2, 3)
# buffers kept for the next stream that receives: more are in use only while more streams are in the middle of a frame
_SPARES = 16
_spare: list[tuple[bytearray, memoryview]] = []


class FrameBuffer:
    """What was received of one stream.

    `limit` is the largest frame accepted, in bytes: msize. `most` is how long the buffer grows for a stream of many. A caller may set both at any
    time.
    """

    __slots__ = ("_passing", "_wanted", "buf", "head", "limit", "most", "sought", "tail", "view")

    buf: bytearray
    view: memoryview

    def __init__(self, limit: int, most: int = MOST) -> None:
        self.limit, self.most = limit, most
        self.head = 0  # the first byte not handed out
        self.tail = 0  # the first byte not received
        self._wanted = CAPACITY  # how large the next buffer must be at least
        self._passing = 0  # bytes still to come of a frame that is skipped
        self.sought: int | None = None  # the type that resync looks for
        self._move(0)

    def space(self) -> memoryview:
        """Return where to receive: at least the rest of the present frame, and 16 KiB. Earlier frames become invalid."""
        have = self.tail - self.head
        if have == 0:
            self.head = self.tail = 0
            if not self.buf:
                self._take()
            return self.view
        rest = max(0, min(_SIZE(self.buf, self.head)[0], self.limit) - have) if have >= 4 else 0
        if len(self.buf) - self.tail < max(rest, len(self.buf) // 2):
            if have > _LITTLE and len(self.buf) < self.most:
                # Large frames come one after the other: a larger buffer moves their beginnings less often.
                self._wanted = 2 * len(self.buf)
            if len(self.buf) - have < max(rest, _ROOM) or len(self.buf) < self._wanted:
                self._move(rest)
            elif self.head:
                self.view[:have] = self.view[self.head : self.tail]
                self.head, self.tail = 0, have
        return self.view[self.tail :]

    def received(self, n: int) -> None:
        """Note that the first `n` bytes of the last `space()` were filled."""
        self.tail += n
        if self._passing:
            passed = min(self._passing, n)
            self._passing -= passed
            self.head += passed
        if self.tail == len(self.buf) < self.most:
            self._wanted = 2 * self.tail  # there was more than the buffer had room for

    def next(self) -> tuple[int, int] | None:
        """Return (start, end) in `buf` of the next whole frame, size[4] included, or None. Raises ProtocolError for an impossible size."""
        if self.sought is not None and not self._find(self.sought):
            return None
        head = self.head
        if self.tail - head < 4:
            return None
        size: int = _SIZE(self.buf, head)[0]
        if size < _SMALLEST or size > self.limit:
            raise self.impossible(size)
        end = head + size
        if end > self.tail:
            return None
        self.head = end
        return head, end

    @property
    def pending(self) -> bool:
        """Whether anything was received that is not handed out, also a part of a frame."""
        return self.head < self.tail

    @property
    def speaks_tls(self) -> bool:
        """Whether what was received, and not handed out, is how TLS refuses somebody who does not speak it."""
        return self.tail - self.head >= 4 and _SIZE(self.buf, self.head)[0] & 0xFFFF == _TLS_ALERT

    def impossible(self, size: int) -> ProtocolError:
        """Return the error for a frame with an impossible size."""
        if size & 0xFFFF == _TLS_HELLO and size >> 16 & 0xFF in _TLS_MINOR:
            return ProtocolError("it speaks TLS, and this end does not")
        return ProtocolError(f"a frame of {size} bytes, where {_SMALLEST} to {self.limit} are allowed")

    def ahead(self) -> tuple[int, int]:
        """Return where in `buf` the received bytes are that were not handed out; the last frame may be incomplete.

        For a caller that splits frames itself, and sets `head` to the end of each that it took.
        """
        if self.sought is not None and not self._find(self.sought):
            return self.head, self.head
        return self.head, self.tail

    def detach(self) -> int:
        """Leave the present buffer to the holders of views into it, and go on in a fresh one with the unread tail. Return its length."""
        held = len(self.buf)
        self._wanted = CAPACITY
        self._move(0)
        return held

    @property
    def can_shrink(self) -> bool:
        """Tell whether the buffer has grown, and nothing is in it."""
        return self.head == self.tail and len(self.buf) > CAPACITY

    def shrink(self) -> None:
        """Go on in a buffer of the first length, if nothing is in it."""
        if self.can_shrink:
            self._wanted = CAPACITY
            self._move(0)

    def put_away(self) -> None:
        """Leave the buffer to the next stream that receives, if nothing is in it: a stream that waits then keeps none. Nobody may hold a view into
        it.

        A buffer that has grown is kept: it belongs to a stream of large frames.
        """
        if self.head == self.tail and len(self.buf) == CAPACITY:
            if len(_spare) < _SPARES:
                _spare.append((self.buf, self.view))
            self.buf, self.view = bytearray(), memoryview(b"")
            self.head = self.tail = 0

    def _take(self) -> None:
        """Take a buffer that was put away, or a new one."""
        if _spare and self._wanted == CAPACITY:
            self.buf, self.view = _spare.pop()
        else:
            self._move(0)

    def pass_over(self, size: int) -> None:
        """Forget the present frame, of `size` bytes, and the rest of it that is still to come; go on in a buffer of the first length."""
        self._passing = size - (self.tail - self.head)
        self.head = self.tail
        self.shrink()

    def drop_partial(self) -> None:
        """Forget what `next()` has not handed out: after it returned None, the frame whose rest will not come."""
        self.tail = self.head

    def resync(self, type: int) -> None:  # noqa: A002
        """Discard bytes until a version message of this type number (100 or 101) begins, which `next()` then hands out.

        For links that lose bytes or keep stale ones, such as serial lines: version(5) starts a conversation anew whatever went before. The message
        is recognised by its type, NOTAG, a size that fits its string's, and a printable string that starts with `9P`, or is `unknown`.
        """
        self.sought = type

    def _move(self, rest: int) -> None:
        """Go on in a new buffer with the unread tail, and room for `rest` more bytes and 16 KiB."""
        have = self.tail - self.head
        fresh = bytearray(max(self._wanted, have + rest + _ROOM))
        if have:
            fresh[:have] = self.view[self.head : self.tail]
        self.buf, self.view = fresh, memoryview(fresh)
        self.head, self.tail = 0, have

    def _find(self, sought: int) -> bool:
        """Skip to what may be the version message. Return True, and end the search, when it is there as a whole."""
        mark = bytes((sought, *NOTAG.to_bytes(2, "little")))
        at = self.head + 4
        while (at := self.buf.find(mark, at, self.tail)) >= 0:
            plausible = self._is_version(at - 4)
            if plausible is not False:
                self.head = at - 4
                self.sought = None if plausible else sought
                return plausible is True
            at += 1
        self.head = max(self.head, self.tail - _SMALLEST + 1)
        return False

    def _is_version(self, start: int) -> bool | None:
        """Tell whether a version message starts here; None while too few bytes are there to tell."""
        have = self.tail - start
        size: int = _SIZE(self.buf, start)[0]
        if not _VERSION.size < size <= _VERSION.size + _LONGEST_VERSION:
            return False
        if have < _VERSION.size:
            return None
        text = bytes(self.view[start + _VERSION.size : start + min(size, have)])
        if _VERSION.unpack_from(self.buf, start)[4] != size - _VERSION.size or not all(32 <= c < 127 for c in text):
            return False
        if not any(text[: len(word)] == word[: len(text)] for word in (b"9P", b"unknown")):
            return False
        return True if have >= size else None
