"""A new conversation in the middle of a frame, on a line that does not hang up.

Theory
* A serial line, and the port of a guest, do not report that the program that had them open is gone. If it was killed in the middle of a frame, it
  leaves half of one, and the server would take what the next program says for the rest: it would do a Twrite with those bytes.
* A client that begins anew sends Tversion, waits for the answer, and sends it again after a while (client/handshake.py, clients/v9fs.py). So a
  Tversion alone between two silences, in the middle of a frame, is a beginning and no data. A Tversion that did not come alone is lost; the next
  one works.
* Nobody makes a beginning by writing a file full of Tversions: the line would have to stop right before one of them, and right after it, without a
  reason.
* A server that has just begun may be asked things by the client of an earlier one, who cannot know. If such a request comes between two silences,
  the server answers with an Rversion that is no answer: `unknown`, with an msize that nobody has asked for. A client of mk9p begins anew then; any
  other would wait for ever, and may end its conversation for it. What is no whole request, like the words of a console, is not answered.
* Bytes that complete the frame exactly are its end. There are conversations within conversations (a Twrite to a network connection's data file),
  and in them a Tversion is all of what is written.
"""

from typing import Final

import attrs
import trio

from mk9p.wire import NOBODY, NOTAG, Dialect, FrameBuffer, codec
from mk9p.wire import messages as m
from mk9p.wire.roles import NAMED

QUIET: Final = 0.2  # s of silence, before and after; clients send Tversion again after half a second
STALE: Final = -1  # instead of a Tversion's length: a request of an earlier conversation
NONE: Final = codec(Dialect.P9, m.Rversion.type).pack(NOTAG, NOBODY, "unknown")
_LONGEST: Final = 64  # bytes; no Tversion that can be understood has more


@attrs.define(eq=False)
class Beginning:
    """What came last on a line that does not hang up, whose frames are put together in `frames`."""

    frames: FrameBuffer
    heard: int = 0  # how often something was received
    _last: float = attrs.field(factory=trio.current_time, init=False)
    _said: bytes | None = attrs.field(default=None, init=False)  # since the last silence, unless that is too much

    def came(self, data: memoryview) -> int:
        """Note what was received behind the whole frames; return the length of a Tversion that may begin anew, STALE, or 0."""
        now = trio.current_time()
        quiet = now - self._last >= QUIET
        if quiet:
            self._said = b""
        self._last = now
        self.heard += 1
        if self.frames.sought is not None:
            return STALE if quiet and _is_request(data) else 0
        if self._said is None or len(self._said) + len(data) > _LONGEST:
            self._said = None
            return 0
        self._said += data
        start, end = self.frames.ahead()
        before = end - start - len(self._said)
        if before <= 0 or not _is_version(self._said):
            return 0
        size = int.from_bytes(self.frames.buf[start : start + 4], "little")
        return len(self._said) if before < 4 or before + len(self._said) != size else 0

    async def silence(self) -> bool:
        """Wait for what may come now; return True if nothing comes."""
        heard = self.heard
        await trio.sleep(QUIET)
        return heard == self.heard

    def begin(self, size: int) -> None:
        """Forget the present frame, except the last `size` bytes."""
        _, end = self.frames.ahead()
        self.frames.head = end - size


def _is_request(data: memoryview) -> bool:
    """Tell whether bytes begin with a whole request that is no Tversion."""
    size, kind = int.from_bytes(data[:4], "little"), data[4] if len(data) > 4 else 0
    return 7 <= size <= len(data) and kind in NAMED and kind != m.Tversion.type


def _is_version(data: bytes) -> bool:
    frames = FrameBuffer(_LONGEST)
    frames.resync(m.Tversion.type)
    frames.space()[: len(data)] = data
    frames.received(len(data))
    return frames.next() == (0, len(data))
