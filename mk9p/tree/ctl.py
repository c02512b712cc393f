"""`Ctl`: a file whose writes are commands, one a line. A read gives the present settings as lines that a client can write back.

The rules of FILES: the lines of one write run in order. The first that fails ends the write, and the write itself gets its error. Each Twrite is
complete in itself, with or without a last newline (bash sends one Twrite for each line, `cat <<EOF` one for all). The offset means nothing, and
`O_APPEND`, truncation and trailing newlines are no errors. `error` beside the file keeps each user's last error on it in words, because Linux
keeps only the number; `Dir` puts it there. On a descriptor that is open for both, a read where the last write ended gives the answer to it (v9fs
reads on from there): a command's text, if it returned one, else the error's words.
"""

import errno
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from time import monotonic_ns
from typing import Any, Final

from mk9p.auth import Principal
from mk9p.errors import FAILURE, INTERNAL, NineError, translate
from mk9p.status import Buffer
from mk9p.tree.files import Content, File, Text, decoded
from mk9p.tree.node import Handle, Maybe, Open
from mk9p.tree.slices import SLICE, next_slice
from mk9p.tree.words import Word, commands, run, table

_WORDS = 1024  # characters of an error that are kept: what was wrong may be as long as a write
ANSWER: Final = 1 << 16  # letters of the answers to one write: whoever asks reads them at once
_USERS = 256  # last errors that a file keeps: one for each user, so this bounds what strangers can make us keep


class Ctl(File):
    """Commands: `Ctl({"add": self.add, "reset": self.reset}, read=self.settings)`.

    `words` gives each command's function, whose signature checks the words and gives the usage (tree/words.py). `read()` renders the settings;
    without it a read is empty. The mode is 0644 by default.
    """

    def __init__(
        self,
        words: Mapping[str, Callable[..., Any]],
        read: Callable[[], Maybe[Content]] | None = None,
        *,
        mode: int = 0o644,
    ) -> None:
        super().__init__(mode)
        self.words: dict[str, Word] = table(words)
        self.render = read
        self.errors: dict[str, str] = {}

    def open(self, how: Open) -> Maybe[Handle]:
        return _CtlHandle(self, how.who)

    def remember(self, who: Principal, error: str) -> None:
        """Keep this user's last error in words; the empty string after a success."""
        self.errors.pop(who.name, None)
        if error:
            self.errors[who.name] = error[:_WORDS]
            while len(self.errors) > _USERS:
                del self.errors[next(iter(self.errors))]

    @contextmanager
    def remembering(self, who: Principal) -> Iterator[None]:
        """Keep what the block raises as this user's last error."""
        try:
            yield
        except (OSError, ValueError) as error:
            self.remember(who, translate(error).ename)
            raise
        self.remember(who, "")

    def error_file(self) -> "LastError":
        """Return the file that shows a user's last error on this one."""
        return LastError(self)


class LastError(File):
    """The `error` beside a ctl: each user reads their own."""

    def __init__(self, ctl: Ctl) -> None:
        super().__init__(0o444)
        self.ctl = ctl

    def open(self, how: Open) -> Maybe[Handle]:
        def text() -> str:
            error = self.ctl.errors.get(how.who.name, "")
            return error + "\n" if error else ""

        return Text(text).open(how)


class _CtlHandle(Handle):
    """One open ctl. It keeps the answer to the last write, and its settings as somebody has begun to read them."""

    keeps = True

    def __init__(self, ctl: Ctl, who: Principal) -> None:
        self.ctl, self.who = ctl, who
        settings = Text(ctl.render or "").open(Open(who))
        assert isinstance(settings, Handle)
        settings.keeper = self  # a Keeper: it tells its own how much that is together
        self.settings = settings
        self.answer, self.base = b"", 0
        self._text = 0  # bytes of its settings

    def check(self, n: int = 0, *, waits: bool = False) -> None:
        if self.keeper is not None:
            self.keeper.check(n, waits=waits)

    def keep_text(self, n: int) -> None:
        self._text = n
        self._keep(self.answer)

    def _keep(self, answer: bytes) -> None:
        if self.keeper is not None and (self._text or max(len(answer), len(self.answer)) > _WORDS):
            self.keeper.keep_text(self._text + len(answer))
        self.answer = answer

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        at = offset - self.base
        return self.answer[at : at + count] if self.answer and at >= 0 else self.settings.read(offset, count)

    def close(self) -> None:
        self.settings.keeper = None  # nobody waits for the garbage collector

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        self.check()
        text = decoded(data)
        # one by one: a write that waits with most of them to come keeps no more than was counted for it
        rest = iter((text,)) if text.find("\n", 0, -1) < 0 else commands(data)
        answers = _Answers()
        ends = 0
        for at, line in enumerate(rest):
            if at == 1:
                ends = monotonic_ns() + SLICE
            elif at and monotonic_ns() > ends:
                return self._write(None, chain((line,), rest), answers, offset, len(data))
            try:
                result = run(self.ctl.words, line, self.who)
                if isinstance(result, Awaitable):
                    return self._write(result, rest, answers, offset, len(data))
                if result is not None:
                    answers.add(result)
            except FAILURE as error:
                self._failed(error, offset)
                raise
        return self._done(answers, offset, len(data))

    async def _write(
        self, result: Awaitable[Any] | None, rest: Iterator[str], answers: "_Answers", offset: int, count: int
    ) -> int:
        """Wait for a result, and do the rest; give others their turn on the way."""
        ends = monotonic_ns() if result is None else monotonic_ns() + SLICE
        try:
            for line in chain([None], rest):
                if line is not None:
                    if monotonic_ns() > ends:
                        ends = await next_slice()
                    result = run(self.ctl.words, line, self.who)
                value = await result if isinstance(result, Awaitable) else result
                if value is not None:
                    answers.add(value)
        except FAILURE as error:
            self._failed(error, offset)
            raise
        return self._done(answers, offset, count)

    def _failed(self, error: BaseException, offset: int) -> None:
        """Keep the words of an error, and pass it on to the server, which answers with the words of a ValueError or OSError, and takes any other
        for our bug."""
        words = translate(error).ename[:_WORDS] if isinstance(error, OSError | ValueError) else INTERNAL
        self.ctl.remember(self.who, words)
        self._keep(words.encode() + b"\n")
        self.base = offset

    def _done(self, answers: "_Answers", offset: int, count: int) -> int:
        self.ctl.remember(self.who, "")
        self._keep("".join(answers.texts).encode())
        self.base = offset + count
        return count


class _Answers:
    """What the words of a write answer."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._size = 0

    def add(self, value: object) -> None:
        """Add one. Raises EFBIG if they are too long: one write may be very many words."""
        text = str(value)
        self._size += len(text)
        if self.texts and self._size > ANSWER:
            raise NineError(errno.EFBIG, f"the answers to one write have at most {ANSWER} letters: write fewer lines")
        self.texts.append(text)


def settings(values: Mapping[str, object]) -> str:
    """Return `word value` lines, as a read of a ctl shows them; raises EINVAL for a value with a newline."""
    from mk9p.tree.words import quote

    lines = [f"{key} {quote(str(value))}\n" for key, value in values.items()]
    if any("\n" in line[:-1] for line in lines):
        raise NineError(errno.EINVAL, "a setting holds a newline")
    return "".join(lines)
