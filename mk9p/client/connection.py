"""One connection to a 9P server: tags, fids, frames, and what becomes of a call that is cancelled.

Rules
* Many calls are under way at once. A request is sent at once, without waiting, by whoever makes it, and what the kernel does not take is queued for
  the one writer task; so a cancelled caller never leaves half a frame. One reader task hands the replies out, all that came with one wake-up.
* A tag is the lowest free one. A cancelled call leaves at once and sends Tflush; its tag stays taken until Rflush (flush(5)), also when its reply
  comes first. A request that was not sent yet is taken back instead.
* A fid that a request makes (Tattach, Tauth, Twalk, Txattrwalk) is the caller's once its call has returned. When the call raises instead, the number
  is put back here: at once, or, if the call was cancelled, when it is known whether the fid was made, and then it is clunked first.
* A fid is not clunked while a cancelled request that names it may still be at work: a server need not order the two.
* When the connection ends, for whatever reason, every call under way and every later one raises EIO with the reason.
* A serial line or a port does not tell that nobody is at its other end any more. There, when an answer is due and nothing came for a while, a flush
  of a tag that is not used is sent, which every server answers at once (flush(5)); if that is not answered either, the connection ends.

Pipelining: `call` sends and `Call.reply` waits, so that one task may have several requests under way. That is safe for requests that do not depend on
each other (reads at offsets). Twalk, Topen and Tread of one fid in one go are safe only with servers that keep them in order, as mk9p's own does and
diod does not: so all of client/ waits for each reply that the next request needs.
"""

import errno
import heapq
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import outcome
import trio

from mk9p.client.calls import Call, Reply, Result, said
from mk9p.dial import Link
from mk9p.errors import NineError, ProtocolError
from mk9p.wire import IOHDRSZ, NOFID, NOTAG, TABLE, Dialect, FrameBuffer, codec
from mk9p.wire import messages as m
from mk9p.wire.roles import DATA, ENDS

log = logging.getLogger("mk9p.client")

LEAVING: Final = 1.0  # seconds that closing waits for the server
SILENCE: Final = 15.0  # seconds, twice, before a silent line is given up: an emulated kernel on a busy machine was seen to say nothing for five


class Connection:
    """A link on which a dialect and an msize were agreed. Nothing works before `start`."""

    def __init__(self, link: Link, address: str, *, dialect: Dialect, msize: int, frames: FrameBuffer) -> None:
        self.link, self.address, self.dialect, self.msize = link, address, dialect, msize
        self.iounit = msize - IOHDRSZ  # the most that one read or write carries
        self.gone: str | None = None  # why the connection ended
        self.closed = trio.Event()
        self.on_end: list[Callable[[str], None]] = []  # called once with the reason; they may neither wait nor raise
        self._frames = frames
        self._codecs = TABLE[dialect]
        self._calls: dict[int, Call] = {}  # by tag
        self._flushes: dict[int, Call] = {}  # the tag of a Tflush -> the call that it flushes
        self._left: dict[int, Call] = {}  # of `_calls`, those that were abandoned and may still be at work
        self._tags: list[int] = []  # a heap of those below `_next_tag` that are free
        self._next_tag = 0
        self._fids: list[int] = []
        self._next_fid = 0
        self._out: deque[tuple[int, memoryview]] = deque()  # (tag, what is still to be sent)
        self._halfway = False  # part of the first of `_out` has been sent
        self._stalled = trio.lowlevel.ParkingLot()
        self._leaving = trio.lowlevel.ParkingLot()
        self._garbage: deque[int] = deque()
        self._token = trio.lowlevel.current_trio_token()
        self._heard = 0  # how often something was received
        self._odd = False  # an odd name was told of

    def start(self, nursery: trio.Nursery) -> None:
        """Let the reader and the writer run in a nursery; they end with the connection, and never raise but for our own bugs."""
        nursery.start_soon(self._reader)
        nursery.start_soon(self._writer)
        if self.link.lossy:
            nursery.start_soon(self._listener)

    # Calls

    def call(self, message: type[m.Message], *fields: Any) -> Call:
        """Send a request at once and return the call under way. Raises NineError: EIO when the connection is gone, EAGAIN when no tag is free."""
        if self.gone is not None:
            raise self.error()
        call = Call(self, message, fields)
        self._enter(call, codec(self.dialect, call.type).pack, fields)
        return call

    async def rpc(self, message: type[m.Message], *fields: Any) -> Reply:
        """Send a request, wait, and return the reply's fields after the tag. Raises and is cancelled as `Call.reply`.

        Read data is bytes. A request that makes a fid and raises has put its number back.
        """
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            call = self.call(message, *fields)
        except BaseException:
            self._over(Call(self, message, fields), None)
            raise
        return await call.reply()

    def _enter(self, call: Call, pack: Callable[..., bytes], fields: Reply) -> None:
        if self._tags:
            tag = heapq.heappop(self._tags)
        elif self._next_tag < NOTAG:
            tag = self._next_tag
            self._next_tag += 1
        else:
            raise NineError(errno.EAGAIN, f"all tags of the connection to {self.address} are in use")
        try:
            frame = pack(tag, *fields)
        except BaseException:
            heapq.heappush(self._tags, tag)
            raise
        call.tag = tag
        self._calls[tag] = call
        self._transmit(tag, frame)

    def _free_tag(self, tag: int) -> None:
        del self._calls[tag]
        heapq.heappush(self._tags, tag)

    def _abandon(self, call: Call) -> None:
        if call.result is not None or self.gone is not None:  # the reply is there, or will never come
            self._over(call, call.result)
            return
        for at, (tag, _) in enumerate(self._out):
            if tag == call.tag and not (at == 0 and self._halfway) and call.type != m.Tclunk.type:
                del self._out[at]
                self._free_tag(tag)
                self._over(call, None)
                return
        self._left[call.tag] = call
        if call.type != m.Tclunk.type:  # flushing a clunk would leave it open whether the fid is there
            flush = Call(self, m.Tflush, (call.tag,))
            with suppress(NineError):  # no tag is left for it: then its reply is the end of the call
                self._enter(flush, codec(self.dialect, flush.type).pack, (call.tag,))
                self._flushes[flush.tag] = call

    def _over(self, call: Call, result: Result | None) -> None:
        """Put back what an abandoned call made or held, now that its fate is known; a result of None means that nothing was done."""
        if call.made is not None:
            if isinstance(result, outcome.Value):
                self.clunk_nowait(call.made)
            else:
                self.free_fid(call.made)
        if call.type in ENDS and result is None:
            self.clunk_nowait(call.fids[0])
        for fid in call.clunks:
            self.clunk_nowait(fid)
        call.clunks.clear()

    # Fids

    def new_fid(self) -> int:
        """Return the lowest number that no fid has. Raises NineError(EMFILE) when there is none."""
        if self._fids:
            return heapq.heappop(self._fids)
        if self._next_fid == NOFID:
            raise NineError(errno.EMFILE, "no free fids")
        self._next_fid += 1
        return self._next_fid - 1

    def free_fid(self, fid: int) -> None:
        """Put back a number that stands for no fid (any more); `clunk` and Tremove do so by themselves."""
        heapq.heappush(self._fids, fid)

    async def clunk(self, fid: int) -> None:
        """Clunk a fid and wait until it is done. Raises no NineError: clunk(5) ends the fid whatever happens. Cancelled, it is clunked still."""
        call = self._clunk(fid)
        if call is not None:
            with suppress(NineError):
                await call.reply()

    def clunk_nowait(self, fid: int) -> None:
        """Clunk a fid and wait for nothing. Only for trio's own thread."""
        call = self._clunk(fid)
        if call is not None:
            call.left = True
            self._left[call.tag] = call

    def clunk_later(self, fid: int) -> None:
        """Clunk a fid soon. May be called from any thread, from `__del__`, in the middle of anything, and after trio has ended."""
        self._garbage.append(fid)
        if self.gone is None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._clunk_garbage, idempotent=True)

    def _clunk_garbage(self) -> None:
        while self._garbage:
            self.clunk_nowait(self._garbage.popleft())

    def _clunk(self, fid: int) -> Call | None:
        if self.gone is not None:
            return None
        for left in self._left.values():
            if fid in left.fids and not left.answered and left.type != m.Tclunk.type:
                left.clunks.append(fid)
                return None
        with suppress(NineError):
            call = self.call(m.Tclunk, fid)
            return call if self.gone is None else None
        return None

    # Sending

    def _transmit(self, tag: int, frame: bytes) -> None:
        sent = 0
        if not self._out:
            try:
                sent = self.link.send(frame)
            except BlockingIOError:
                pass
            except OSError as error:
                self.end(error.strerror or str(error))
                return
            if sent == len(frame):
                return
            self._halfway = sent > 0
        self._out.append((tag, memoryview(frame)[sent:]))
        self._stalled.unpark_all()

    async def _writer(self) -> None:
        with suppress(trio.ClosedResourceError):
            while self.gone is None:
                if not self._out:
                    await self._stalled.park()
                    continue
                await self.link.wait_writable()
                self._drain()

    def _drain(self) -> None:
        while self._out and self.gone is None:
            tag, rest = self._out[0]
            try:
                sent = self.link.send(rest)
            except BlockingIOError:
                return
            except OSError as error:
                self.end(error.strerror or str(error))
                return
            if sent < len(rest):
                self._out[0] = tag, rest[sent:]
                self._halfway = self._halfway or sent > 0
            else:
                self._out.popleft()
                self._halfway = False

    # Receiving

    async def _reader(self) -> None:
        frames, link = self._frames, self.link
        try:
            while self.gone is None:
                while (span := frames.next()) is not None:
                    self._reply(frames.buf, *span)
                    if self.gone is not None:
                        return
                # Let those whose replies came go on: what they send next is often answered before the line would have to be waited for.
                await trio.lowlevel.checkpoint()
                count = -1
                while count < 0:
                    try:
                        count = link.recv_into(frames.space())
                    except BlockingIOError:
                        await link.wait_readable()
                if not count:
                    self.end("it was closed by the other side")
                    return
                frames.received(count)
                self._heard += 1
        except ProtocolError as error:
            self.end(f"it broke the protocol: {error}")
        except trio.ClosedResourceError:
            self.end("it was closed here")
        except OSError as error:
            self.end(error.strerror or str(error))
        except Exception:
            # What a peer may send is judged where it enters; this is a bug of ours there, and no reason to end others in the same nursery.
            log.exception("internal error: the connection to %s ends", self.address)
            self.end("internal error")
        finally:
            self.end("it was given up here")

    async def _listener(self) -> None:
        """End the connection when its line has gone silent."""
        while self.gone is None:
            heard = self._heard
            with trio.move_on_after(SILENCE):
                await self.closed.wait()
            if not self._calls or self._heard != heard:
                continue
            with trio.move_on_after(SILENCE), suppress(NineError):
                await self.rpc(m.Tflush, NOTAG)
            if self._heard == heard:
                self.end(f"nothing came from it for {2 * SILENCE:g} s")

    def _reply(self, buf: bytearray, start: int, end: int) -> None:
        number = buf[start + 4]
        tag = buf[start + 5] | buf[start + 6] << 8
        call = self._calls.get(tag)
        if call is None:
            if tag == NOTAG and number == m.Rversion.type and self.link.lossy:
                return  # the answer to a Tversion that was repeated
            raise ProtocolError(f"reply of type {number} to tag {tag}, which nothing was asked with")
        known = self._codecs[number]
        result: Result
        try:
            if known is None or (number != call.type + 1 and number not in (m.Rlerror.type, m.Rerror.type)):
                raise ProtocolError(f"reply of type {number} to a request of type {call.type}")
            _, *fields = known.unpack(buf, start + 5, end)
            if number == call.type + 1:
                call.check(fields)
                if number in DATA:
                    fields[0] = bytes(fields[0])
                result = outcome.Value(tuple(fields))
            else:
                result = outcome.Error(said(number, fields))
        except NineError as error:
            result = outcome.Error(error)
        self._answer(call, result)

    def _answer(self, call: Call, result: Result) -> None:
        if call.type in ENDS:
            self.free_fid(call.fids[0])
        flushed = self._flushes.pop(call.tag, None)
        if flushed is not None:
            self._free_tag(call.tag)  # first: what is clunked now may find out that the line is broken, and end all
            self._flushed(flushed, isinstance(result, outcome.Value))
        elif call.left:
            call.answered = True
            if not any(flushed is call for flushed in self._flushes.values()):
                self._free_tag(call.tag)
                del self._left[call.tag]
            self._over(call, result)
        else:
            self._free_tag(call.tag)
            if isinstance(result, outcome.Error) and call.made is not None:
                self.free_fid(call.made)
                call.made = None
            call.settle(result)
        if self._leaving and not self._left:
            self._leaving.unpark_all()

    def _flushed(self, call: Call, done: bool) -> None:
        """Take an Rflush: the old tag is free. A server that refuses to flush will answer the old request in its own time."""
        if done or call.answered:
            self._free_tag(call.tag)
            del self._left[call.tag]
            if not call.answered:
                self._over(call, None)

    def left_out(self, name: str) -> None:
        """Take note that a directory lists a name that no file can have; the first is told of."""
        if not self._odd:
            self._odd = True
            log.warning("%s lists a file that no file can be called, and is left out: %.99a", self.address, name)

    # The end

    async def aclose(self) -> None:
        """Close the connection when clunks and flushes that nobody waits for have been answered, at most a second later, shielded.

        To hang up with replies on their way, or with fids left, is allowed; but diod 1.0.24 dies of the one by SIGPIPE, with all its clients, and
        now and then of the other by a null pointer.
        """
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVING):
            self._clunk_garbage()
            while self.gone is None and self._left:
                await self._leaving.park()
        self.end("it was closed here")

    def error(self) -> NineError:
        return NineError(errno.EIO, f"connection to {self.address} is gone: {self.gone}")

    def end(self, reason: str) -> None:
        """Close the connection, now and without waiting; every call under way raises EIO. A second call does nothing."""
        if self.gone is not None:
            return
        self.gone = reason
        self.link.close()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if not call.left:
                call.settle(outcome.Error(self.error()))
        self._left.clear()
        self._flushes.clear()
        self._out.clear()
        self._stalled.unpark_all()
        self._leaving.unpark_all()
        self.closed.set()
        for tell in self.on_end:
            tell(reason)
