"""The receive buffer: bytes from a stream in, whole frames out, nothing copied.

One bytearray holds, from left to right: frames already handed out, frames not yet handed out (the last may be incomplete), and room to receive into.
`next()` hands out a frame as (start, end) in `buf`; it and every view into it stay good until the next `space()`, which may move the unread tail to
the front, over them. Whoever wants to keep views longer (a handler that waits with Twrite's data) first says `detach()`: the buffer is then theirs,
and reception goes on in a fresh one. So in the usual case, where all frames of a batch are answered before the next is received, a payload is
copied once: by the kernel.

A bytearray with views into it cannot be resized, so it never is: a frame that does not fit gets a new, larger buffer, and the old one lives as
long as its views.
"""

from struct import Struct

import attrs

from mk9p.errors import ProtocolError
from mk9p.wire.const import NOTAG

_SIZE = Struct("<I").unpack_from
_VERSION = Struct("<IBHIH")  # size[4] type[1] tag[2] msize[4] and the length of version[s]
_SMALLEST = 7  # size[4] type[1] tag[2]
_ROOM = 16 * 1024  # to receive into, at least: a hundred small requests, and little to keep for a client that is silent
CAPACITY = 2 * _ROOM  # to begin with; a stream that keeps it full gets more
MOST = 64 * _ROOM  # what a stream of large frames may come to: then a window of 8 at 64 KiB is received at once
_LITTLE = 4096  # bytes that cost nothing to move
_LONGEST_VERSION = 32
_SPARES = 16  # buffers kept for whoever receives next: more are only in use while more streams than these are in the middle of a frame
_spare: list[tuple[bytearray, memoryview]] = []


@attrs.define(eq=False)
class FrameBuffer:
    """Hold what was received of one stream.

    `limit` is the largest frame accepted, in bytes: msize. `most` is how long the buffer grows for a stream of many. Both may be set at any time.
    """

    limit: int
    most: int = MOST
    buf: bytearray = attrs.field(init=False, repr=False)
    view: memoryview = attrs.field(init=False, repr=False)
    head: int = attrs.field(init=False, default=0)  # the first byte not handed out
    tail: int = attrs.field(init=False, default=0)  # the first byte not received
    _wanted: int = attrs.field(init=False, default=CAPACITY)  # how large the next buffer has to be at least
    _passing: int = attrs.field(init=False, default=0)  # bytes still to come of a frame that is passed over
    _sought: int | None = attrs.field(init=False, default=None)  # by resync

    def __attrs_post_init__(self) -> None:
        self._move(0)

    def space(self) -> memoryview:
        """Return where to receive: at least the rest of the frame in progress, and half of the buffer. Ends the life of earlier frames."""
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
            if len(self.buf) - have < max(rest, 1) or len(self.buf) < self._wanted:
                self._move(rest)
            elif self.head:
                self.view[:have] = self.view[self.head : self.tail]
                self.head, self.tail = 0, have
        return self.view[self.tail :]

    def received(self, n: int) -> None:
        """Take note that the first `n` bytes of the last `space()` were filled."""
        self.tail += n
        if self._passing:
            passed = min(self._passing, n)
            self._passing -= passed
            self.head += passed
        if self.tail == len(self.buf) < self.most:
            self._wanted = 2 * self.tail  # more was there than there was room for

    def next(self) -> tuple[int, int] | None:
        """Return (start, end) in `buf` of the next whole frame, size[4] included, or None. Raises ProtocolError for an impossible size."""
        if self._sought is not None and not self._find(self._sought):
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
        """Whether anything was received that is not handed out, be it a part of a frame."""
        return self.head < self.tail

    def impossible(self, size: int) -> ProtocolError:
        """Return the error of a frame of a size that none can have."""
        return ProtocolError(f"a frame of {size} bytes, where {_SMALLEST} to {self.limit} are allowed")

    def ahead(self) -> tuple[int, int]:
        """Return where in `buf` lies what was received and not handed out, the last frame maybe in part.

        For one who takes frames apart himself, and sets `head` to behind each that he took.
        """
        if self._sought is not None and not self._find(self._sought):
            return self.head, self.head
        return self.head, self.tail

    def detach(self) -> int:
        """Leave the present buffer to those who hold views into it, and go on in a fresh one that has the unread tail. Return its length."""
        held = len(self.buf)
        self._wanted = CAPACITY
        self._move(0)
        return held

    @property
    def can_shrink(self) -> bool:
        """Tell whether the buffer has grown, and nothing is in it."""
        return self.head == self.tail and len(self.buf) > CAPACITY

    def shrink(self) -> None:
        """Go on in a buffer of the length that it began with, if nothing is in it."""
        if self.can_shrink:
            self._wanted = CAPACITY
            self._move(0)

    def put_away(self) -> None:
        """Leave the buffer to whoever receives next, if nothing is in it: a stream that waits then keeps none. No view into it may be held.

        One that has grown is kept: it belongs to a stream of large frames.
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
        """Forget the frame in progress, of `size` bytes, and what is still to come of it; go on in a buffer of the length that it began with."""
        self._passing = size - (self.tail - self.head)
        self.head = self.tail
        self.shrink()

    def drop_partial(self) -> None:
        """Forget what `next()` has not handed out: after it said None, the frame whose rest will not come."""
        self.tail = self.head

    def resync(self, type: int) -> None:  # noqa: A002
        """Discard bytes until a version message of this type number (100 or 101) begins, which `next()` then hands out.

        For links that lose bytes or keep stale ones, such as serial lines: version(5) starts a conversation anew whatever went before. The message
        is known by its type, NOTAG, a size that fits its string's, and a printable string that starts with `9P`, or is `unknown`.
        """
        self._sought = type

    def _move(self, rest: int) -> None:
        """Go on in a new buffer that has the unread tail, and room for `rest` more and 16 KiB."""
        have = self.tail - self.head
        fresh = bytearray(max(self._wanted, have + rest + _ROOM))
        if have:
            fresh[:have] = self.view[self.head : self.tail]
        self.buf, self.view = fresh, memoryview(fresh)
        self.head, self.tail = 0, have

    def _find(self, sought: int) -> bool:
        """Skip to what may be the version message; True, and the search is over, when it is there as a whole."""
        mark = bytes((sought, *NOTAG.to_bytes(2, "little")))
        at = self.head + 4
        while (at := self.buf.find(mark, at, self.tail)) >= 0:
            plausible = self._is_version(at - 4)
            if plausible is not False:
                self.head = at - 4
                self._sought = None if plausible else sought
                return plausible is True
            at += 1
        self.head = max(self.head, self.tail - _SMALLEST + 1)
        return False

    def _is_version(self, start: int) -> bool | None:
        """Tell whether a version message starts here; None while too little of it is there to tell."""
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
