"""`NAMEctl` and `NAMEstatus`, after uart(3): settings as a letter and a value, several on a line; `b115200 l8 pn s1`.

They are the settings of the line itself, whoever set them, read from the kernel each time: termios(3), ioctl_tty(2). What a kind of line does not
have (a pty has no modem lines) is left out when read and refused when written.
"""

import errno
import fcntl
import os
import struct
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Literal

import trio

from mk9p.errors import NineError
from mk9p.servers.tty.line import Line
from mk9p.sysfs import put, text
from mk9p.terminals import CFLAG, FLOW, IFLAG, ISPEED, OSPEED, attributes
from mk9p.tree import Ctl, quote
from mk9p.tree.words import Word, word

_BITS: Final = {5: termios.CS5, 6: termios.CS6, 7: termios.CS7, 8: termios.CS8}
_SPEEDS: Final = {int(n[1:]): getattr(termios, n) for n in dir(termios) if n[0] == "B" and n[1:].isdecimal()}
_TIOCSBRK, _TIOCCBRK = 0x5427, 0x5428
_BREAK_MS: Final = 250
_LONGEST_BREAK_MS: Final = 10_000
_LARGEST: Final = 1 << 20
_USAGE: Final = "usage: bSPEED · cN · dN · eN · f · h · iN · kMS · lBITS · mN · n · pe|po|pn · qBYTES · rN · sN · wN · xN · exclusive on|off"


class UartCtl(Ctl):
    """The ctl of a line. A line of settings runs from left to right; the first wrong one ends it."""

    def __init__(self, line: Line, sysfs: str) -> None:
        self.line, self.sysfs = line, sysfs
        super().__init__({"exclusive": self.exclusive}, self.settings)
        self.words = _Letters(self.words, self.run)

    @contextmanager
    def fd(self) -> Iterator[int]:
        """Give the line's descriptor: the open one, or a new one."""
        if self.line.fd >= 0:
            yield self.line.fd
            return
        fd = self.line.opened(os.O_RDWR)
        try:
            yield fd
        finally:
            os.close(fd)

    def exclusive(self, how: Literal["on", "off"]) -> None:
        """Let nobody else open the line for writing while one program has it so. It ends when that program closes it."""
        if how == "on" and self.line.writers != 1:
            raise NineError(errno.EBUSY, f"it is open for writing {self.line.writers} times: exclusive is for one")
        self.line.exclusive = how == "on"

    async def run(self, *settings: str) -> None:
        for setting in settings:
            letter, value = setting[:1].lower(), setting[1:]
            if len(value) > 9 or (value and not value.isalnum()):
                raise NineError(errno.EINVAL, f"unknown setting {quote(setting)}; {_USAGE}")
            if letter == "k":
                await self.send_break(_number(value or str(_BREAK_MS)))
            elif letter == "h" and not value:
                await self.line.hang_up()
            else:
                self.set(letter, value)

    async def send_break(self, ms: int) -> None:
        if not 0 < ms <= _LONGEST_BREAK_MS:
            raise NineError(errno.EINVAL, f"a break lasts 1 to {_LONGEST_BREAK_MS} ms")
        with self.fd() as fd:
            fcntl.ioctl(fd, _TIOCSBRK)
            try:
                await trio.sleep(ms / 1000)
            finally:
                fcntl.ioctl(fd, _TIOCCBRK)

    def set(self, letter: str, value: str) -> None:
        if letter in ("f", "n"):
            if value:
                raise NineError(errno.EINVAL, _USAGE)
            if letter == "n":
                self.line.noblock = True
                return
            with self.fd() as fd:
                termios.tcflush(fd, termios.TCOFLUSH)
        elif letter == "p":
            if value not in ("e", "o", "n"):
                raise NineError(errno.EINVAL, "usage: pe|po|pn")
            odd = termios.PARODD if value == "o" else 0
            self.flags(CFLAG, termios.PARENB | termios.PARODD, 0 if value == "n" else termios.PARENB | odd)
        elif (how := self.numeric().get(letter)) is not None:
            how(_number(value))
        else:
            raise NineError(errno.EINVAL, _USAGE)

    def numeric(self) -> Mapping[str, Callable[[int], None]]:
        return {
            "b": self.speed,
            "c": lambda n: self.flags(CFLAG, termios.CLOCAL, 0 if n else termios.CLOCAL),
            "d": partial(self.modem, termios.TIOCM_DTR),
            "e": partial(self.absent, "hanging up on DSR"),
            "i": self.fifo,
            "l": self.bits,
            "m": lambda n: self.flags(CFLAG, termios.CRTSCTS, termios.CRTSCTS if n else 0),
            "q": self.limit,
            "r": partial(self.modem, termios.TIOCM_RTS),
            "s": self.stop,
            "w": partial(self.absent, "a timer"),
            "x": self.flow,
        }

    def flags(self, place: int, mask: int, value: int) -> None:
        """Set the bits `mask` of one of the terminal's flags. Raises EINVAL if the line does not take it; a driver may ignore it silently."""
        with self.fd() as fd:
            now = attributes(fd)
            now[place] = now[place] & ~mask | value
            if attributes(fd, now)[place] & mask != value:
                raise NineError(errno.EINVAL, f"{self.line.name} does not take that")

    def speed(self, n: int) -> None:
        if n not in _SPEEDS or not n:
            raise NineError(errno.EINVAL, f"no speed {n}; there are: {' '.join(str(s) for s in sorted(_SPEEDS) if s)}")
        with self.fd() as fd:
            now = attributes(fd)
            now[ISPEED] = now[OSPEED] = _SPEEDS[n]
            if attributes(fd, now)[OSPEED] != _SPEEDS[n]:
                raise NineError(errno.EINVAL, f"{self.line.name} has no speed {n}")

    def bits(self, n: int) -> None:
        if n not in _BITS:
            raise NineError(errno.EINVAL, "usage: l5|l6|l7|l8")
        self.flags(CFLAG, termios.CSIZE, _BITS[n])

    def stop(self, n: int) -> None:
        if n not in (1, 2):
            raise NineError(errno.EINVAL, "usage: s1|s2")
        self.flags(CFLAG, termios.CSTOPB, termios.CSTOPB if n == 2 else 0)

    def modem(self, bit: int, n: int) -> None:
        with self.fd() as fd:
            try:
                fcntl.ioctl(fd, termios.TIOCMBIS if n else termios.TIOCMBIC, struct.pack("i", bit))
            except OSError as error:
                if error.errno in (errno.ENOTTY, errno.EINVAL):
                    raise NineError(errno.ENOTTY, f"{self.line.name} has no modem lines") from None
                raise

    def fifo(self, n: int) -> None:
        """Set after how many bytes the receiver interrupts; 0 is after each byte, and the chip takes the next smaller number that it has."""
        try:
            put(f"{self.sysfs}/rx_trig_bytes", str(max(n, 1)))
        except FileNotFoundError:
            self.absent("a FIFO to set", n)

    def flow(self, n: int) -> None:
        self.flags(IFLAG, FLOW, FLOW if n else 0)
        self.line.flow = FLOW if n else 0

    def limit(self, n: int) -> None:
        if not 0 < n <= _LARGEST:
            raise NineError(errno.EINVAL, f"a queue has 1 to {_LARGEST} bytes")
        self.line.limit = n
        self.line.bound()

    def absent(self, what: str, n: int) -> None:
        """Accept 0 for what this line does not have, and nothing else."""
        if n:
            raise NineError(errno.EOPNOTSUPP, f"{self.line.name} does not have: {what}")

    # what is read

    def state(self, fd: int) -> dict[str, object]:
        """Return the settings by letter, as uart(3)'s status has them."""
        now, lines = attributes(fd), _modem_lines(fd)
        flags = now[CFLAG]
        parity = "n" if not flags & termios.PARENB else "o" if flags & termios.PARODD else "e"
        return {
            "b": next((n for n, b in _SPEEDS.items() if b == now[OSPEED]), 0),
            "c": int(not flags & termios.CLOCAL),
            **({} if lines is None else {"d": int(bool(lines & termios.TIOCM_DTR))}),
            "e": 0,
            "l": next(n for n, bits in _BITS.items() if bits == flags & termios.CSIZE),
            "m": int(bool(flags & termios.CRTSCTS)),
            "p": parity,
            **({} if lines is None else {"r": int(bool(lines & termios.TIOCM_RTS))}),
            "s": 2 if flags & termios.CSTOPB else 1,
            "x": int(now[IFLAG] & FLOW == FLOW),
        }

    def settings(self) -> str:
        with self.fd() as fd:
            letters = self.state(fd) | {"q": self.line.limit}
        on = "on" if self.line.exclusive else "off"
        return " ".join(f"{k}{v}" for k, v in letters.items()) + f"\nexclusive {on}\n"

    def status(self) -> str:
        """Return the two lines of uart(3), and one with who uses the line here."""
        with self.fd() as fd:
            letters, lines = self.state(fd), _modem_lines(fd) or 0
            frame, overrun, _, _, buffer = _counters(fd)
            device = os.minor(os.fstat(fd).st_rdev)
        del letters["x"]
        kind = text(f"{self.sysfs}/type", "0")
        if fifo := text(f"{self.sysfs}/rx_trig_bytes"):
            letters["i"] = fifo
        line = self.line
        signals = [
            ("cts", termios.TIOCM_CTS),
            ("dsr", termios.TIOCM_DSR),
            ("dcd", termios.TIOCM_CAR),
            ("ring", termios.TIOCM_RNG),
        ]
        present = "".join(f" {name}" for name, bit in signals if lines & bit)
        return (
            " ".join(f"{k}{v}" for k, v in letters.items())
            + f"\ndev({device}) type({kind}) framing({frame}) overruns({overrun}) berr({buffer}) serr(0){present}\n"
            + f"readers {line.readers} writers {line.writers} kept {len(line.kept)} before {line.start}\n"
        )


class _Letters(dict[str, Word]):
    """The table of words of a line whose every word is a setting: a line whose first word is in no table runs as a whole."""

    def __init__(self, words: Mapping[str, Word], run: Callable[..., Any]) -> None:
        super().__init__(words)
        self.run = run

    def get(self, first: str, default: object = None) -> Any:
        if first in self:
            return self[first]
        return word(first, partial(_run, self.run, first)) if first else default


def _run(run: Callable[..., Any], first: str, *more: str | None) -> Any:
    return run(first, *more)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise NineError(errno.EINVAL, _USAGE)
    return int(text)


def _modem_lines(fd: int) -> int | None:
    """Return the modem lines as the bits of TIOCMGET; None where there are none."""
    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.TIOCMGET, bytes(4)), sys.byteorder)
    except OSError:
        return None


def _counters(fd: int) -> tuple[int, ...]:
    """Return frame, overrun, parity, brk, buf_overrun from struct serial_icounter_struct; zeros where nobody counts."""
    try:
        counts = struct.unpack("20i", fcntl.ioctl(fd, termios.TIOCGICOUNT, bytes(80)))
    except OSError:
        return (0,) * 5
    return counts[6:11]
