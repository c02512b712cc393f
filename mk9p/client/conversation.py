"""A conversation with a 9P server, whoever waits in it and how: tags, fids, frames, and what happens to a call that is given up. No trio.

Rules
* Many calls run at once. The caller sends a request at once, without waiting, and what the kernel does not take is queued; so a caller that gives
  a call up never leaves half a frame.
* A tag is the lowest free one. A caller that gives a call up leaves at once and sends Tflush; the tag of the call stays in use until Rflush
  (flush(5)), also when its reply comes first. A request that was not sent yet is taken back instead.
* A fid that a request makes (Tattach, Tauth, Twalk, Txattrwalk) belongs to the caller after its call has returned. When the call raises instead,
  this module frees the number: at once, or, if the call was given up, when it knows whether the fid was made; then it first clunks the fid.
* It does not clunk a fid while a request that was given up and names it may still be running: a server need not order the two.
* When the connection ends, for whatever reason, every running call and every later one raises EIO with the reason.

How one waits is said in waiting.py: `Connection` (connection.py) waits as trio does, `Blocking` (blocking.py) blocks its thread.

`call` sends and `Call.reply` waits, so that one task may have several requests under way. What needs what another makes waits, or goes by flights.py.
"""

import errno
import heapq
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Final

from mk9p.client.calls import Call, Lost, Reply, Result, said
from mk9p.client.waiting import Waiting
from mk9p.dial import Link
from mk9p.errors import NineError, ProtocolError
from mk9p.wire import IOHDRSZ, NOBODY, NOFID, NOTAG, TABLE, Dialect, FrameBuffer, codec
from mk9p.wire import messages as m
from mk9p.wire.roles import DATA, ENDS

if TYPE_CHECKING:
    import logging

LEAVING: Final = 1.0  # seconds that closing waits for the server
ASK: Final = 2.0  # seconds of silence after which a line is asked whether it lives, again and again: a new server says then that it is new
SILENCE: Final = (
    30.0  # seconds until it is given up: an emulated kernel on a busy machine was seen to say nothing for five
)


def log() -> "logging.Logger":
    """Return the logger; few programs log anything here."""
    import logging

    return logging.getLogger("mk9p.client")


def _warn(words: str) -> None:
    log().warning("%s", words)


class Conversation(Waiting):
    """A link with an agreed dialect and msize."""

    kind: ClassVar[type[Call]]
    closing: ClassVar[type[Exception] | tuple[()]] = ()  # what a wait raises when the link is closed here

    def __init__(self, link: Link, address: str, *, dialect: Dialect, msize: int, frames: FrameBuffer) -> None:
        self.link, self.address, self.dialect, self.msize = link, address, dialect, msize
        self.iounit = msize - IOHDRSZ  # the most that one read or write carries
        self.gone: str | None = None  # why the connection ended
        # called once with the reason; these functions may neither wait nor raise
        self.on_end: list[Callable[[str], None]] = []
        self._frames = frames
        self._codecs = TABLE[dialect]
        self._calls: dict[int, Call] = {}  # by tag
        self._flushes: dict[int, Call] = {}  # the tag of a Tflush -> the call that it flushes
        self._left: dict[int, Call] = {}  # of `_calls`, those that were abandoned and may still be running
        self._tags: list[int] = []  # a heap of the free tags below `_next_tag`
        self._next_tag = 0
        self._fids: list[int] = []
        self._next_fid = 0
        self._out: deque[tuple[int, memoryview]] = deque()  # (tag, what is still to be sent)
        self._halfway = False  # part of the first of `_out` has been sent
        self._corked = False
        self.ordered: bool | None = (
            None  # whether requests are answered in the order that they are sent in (flights.py); None: not known
        )
        self.garbage: deque[int] = deque()  # fids to clunk with the next flight, or when `tidy` is called
        self._heard = 0  # how often something was received
        self._asked = 0  # how often a silent line was asked whether it lives
        self.tell: Callable[[str], None] = _warn  # a function that takes a line for people
        self._odd = False  # an odd name was reported

    # Calls

    def call(self, message: type[m.Message], *fields: Any) -> Call:
        """Send a request at once and return the running call. Raises NineError: EIO when the connection is gone, EAGAIN when no tag is free."""
        if self.gone is not None:
            raise self.error()
        call = self.kind(self, message, fields)
        self._enter(call, codec(self.dialect, call.type).pack, fields)
        return call

    async def rpc(self, message: type[m.Message], *fields: Any) -> Reply:
        """Send a request, wait, and return the reply's fields after the tag. Raises and is cancelled as `Call.reply`.

        Read data is bytes. A request that makes a fid and raises has freed its number.
        """
        try:
            await self.checkpoint()
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

    def abandon(self, call: Call) -> None:
        """Flush a call that nobody wants any more, and undo what its reply says was done."""
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
        if call.type != m.Tclunk.type:  # a flushed clunk would leave it open whether the fid exists
            flush = Call(self, m.Tflush, (call.tag,))
            with suppress(NineError):  # no tag is left for it: then its reply ends the call
                self._enter(flush, codec(self.dialect, flush.type).pack, (call.tag,))
                self._flushes[flush.tag] = call

    def _over(self, call: Call, result: Result | None) -> None:
        """Free what an abandoned call made or held, when its fate is known; a result of None means that nothing was done."""
        if call.made is not None:
            if isinstance(result, tuple):
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
        """Free a number that no longer stands for a fid; `clunk` and Tremove do so themselves."""
        heapq.heappush(self._fids, fid)

    async def clunk(self, fid: int) -> None:
        """Clunk a fid and wait until it is done. Raises no NineError: clunk(5) ends the fid whatever happens. If cancelled, it is still clunked."""
        call = self._clunk(fid)
        if call is not None:
            with suppress(NineError):
                await call.reply()

    def clunk_nowait(self, fid: int) -> None:
        """Clunk a fid and wait for nothing. Only the connection's own thread may call it."""
        call = self._clunk(fid)
        if call is not None:
            call.left = True
            self._left[call.tag] = call

    def clunk_later(self, fid: int) -> None:
        """Clunk a fid soon. May be called from any thread, from `__del__`, in the middle of anything, and after everything is over."""
        self.garbage.append(fid)

    def tidy(self) -> None:
        """Clunk what `clunk_later` has noted, all in one go."""
        corked, self._corked = self._corked, True
        while self.garbage:
            self.clunk_nowait(self.garbage.popleft())
        if not corked:
            self.uncork()

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

    def cork(self) -> None:
        """Send what is sent from here until `uncork`, before which nothing may wait, in one go."""
        self._corked = True
        self.tidy()

    def uncork(self) -> None:
        self._corked = False
        if self._out:
            self._drain()
        if self._out:
            self._queued()

    def _transmit(self, tag: int, frame: bytes) -> None:
        sent = 0
        if not self._out and not self._corked and not self._holds_back():
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
        if not self._corked:
            self._queued()

    def _holds_back(self) -> bool:
        """Tell whether what is sent from here on is corked, and who does that sends it soon."""
        return False

    @abstractmethod
    def _queued(self) -> None:
        """Note that something waits to be sent."""

    def _drain(self) -> None:
        while self._out and self.gone is None:
            try:
                sent = self.link.sendmsg([rest for _, rest in islice(self._out, 512)])
            except BlockingIOError:
                return
            except OSError as error:
                self.end(error.strerror or str(error))
                return
            while self._out and sent >= len(self._out[0][1]):
                sent -= len(self._out.popleft()[1])
                self._halfway = False
            if sent:
                tag, rest = self._out[0]
                self._out[0] = tag, rest[sent:]
                self._halfway = True

    # Receiving

    def _receive(self) -> bool:
        """Receive what is there; False if that is nothing."""
        try:
            count = self.link.recv_into(self._frames.space())
        except BlockingIOError:
            return False
        if count:
            self._frames.received(count)
            self._heard += 1
        else:
            self.end("it was closed by the other side")
        return True

    def _listened(self, heard: int) -> None:
        """Ask a line that has said nothing for ASK seconds whether it lives, if something is due, or end it. `heard`: what `_heard` was before."""
        if not self._calls or self._heard != heard:
            self._asked = 0
        elif self._asked * ASK >= SILENCE:
            self.end(f"nothing came from it for {SILENCE:g} s")
        else:
            self._asked += 1
            with suppress(NineError):  # no tag is left for it
                flush = self.call(m.Tflush, NOTAG)
                flush.left = True
                self._left[flush.tag] = flush

    def _replies(self) -> None:
        """Take all replies that were received."""
        frames = self._frames
        while self.gone is None and (span := frames.next()) is not None:
            self._reply(frames.buf, *span)

    @contextmanager
    def _judging(self) -> Iterator[None]:
        """End the connection for whatever a peer's bytes raise. Checks are where the bytes enter: any other error is our bug there."""
        try:
            yield
        except ProtocolError as error:
            self.end(f"it broke the protocol: {error}")
        except OSError as error:
            self.end(error.strerror or str(error))
        except Exception as error:
            if isinstance(error, self.closing):
                raise
            log().exception("internal error: the connection to %s ends", self.address)
            self.end("internal error")

    def _reply(self, buf: bytearray, start: int, end: int) -> None:
        number = buf[start + 4]
        tag = buf[start + 5] | buf[start + 6] << 8
        call = self._calls.get(tag)
        if call is None:
            if tag == NOTAG and number == m.Rversion.type and self.link.lossy:
                _, msize, _ = codec(self.dialect, number).unpack(buf, start + 5, end)
                if msize == NOBODY:
                    self.end("its server has begun anew")
                return  # otherwise it is the answer to a repeated Tversion
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
                result = tuple(fields)
            else:
                result = said(number, fields)
        except NineError as error:
            result = error
        self._answer(call, result)

    def _answer(self, call: Call, result: Result) -> None:
        if call.type in ENDS:
            self.free_fid(call.fids[0])
        flushed = self._flushes.pop(call.tag, None)
        if flushed is not None:
            self._free_tag(call.tag)  # first: a clunk now may find that the line is broken, and end everything
            self._flushed(flushed, isinstance(result, tuple))
        elif call.left:
            call.answered = True
            if not any(flushed is call for flushed in self._flushes.values()):
                self._free_tag(call.tag)
                del self._left[call.tag]
            self._over(call, result)
        else:
            self._free_tag(call.tag)
            if isinstance(result, NineError) and call.made is not None:
                self.free_fid(call.made)
                call.made = None
            call.set_result(result)
            return
        if not self._left:
            self._quiet()

    def _flushed(self, call: Call, done: bool) -> None:
        """Take an Rflush: the old tag is free. A server that refuses to flush will answer the old request later."""
        if done or call.answered:
            self._free_tag(call.tag)
            del self._left[call.tag]
            if not call.answered:
                self._over(call, None)

    def left_out(self, name: str) -> None:
        """Note that a directory lists a name that no file can have; report the first one."""
        if not self._odd:
            self._odd = True
            self.tell(f"{self.address} lists a file that no file can be called, and is left out: {name!a:.99}")

    @abstractmethod
    def _quiet(self) -> None:
        """Note that no call that was given up is running any more."""

    # The end

    def error(self, sent: int | None = None) -> Lost:
        """Return the error of a request, of which the type is told if it was sent."""
        lost = Lost(errno.EIO, f"connection to {self.address} is gone: {self.gone}")
        lost.type = sent
        return lost

    def end(self, reason: str) -> None:
        """Close the connection, now and without waiting; every running call raises EIO. A second call does nothing."""
        if self.gone is not None:
            return
        self.gone = reason
        self.link.close()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if not call.left:
                call.set_result(self.error(call.type))
        self._left.clear()
        self._flushes.clear()
        self._out.clear()
        self._ended()
        for tell in self.on_end:
            tell(reason)

    @abstractmethod
    def _ended(self) -> None:
        """Tell those who wait for the connection itself that it has ended."""
