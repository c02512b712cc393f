"""Commands as words: splitting a line as rc does, and calling a function whose signature is the check and the usage line.

A ctl word is a plain method. Its parameters say what the word takes; how a word is wrong is said by its usage, made of the same parameters:

    def online(self, *n: int)                      usage: online N...
    def load(self, kernel: str, initrd: str = "")  usage: load KERNEL [INITRD]
    def readonly(self, how: Literal["on", "off"])  usage: readonly on|off

A parameter annotated `Principal` is given the user who wrote, and is no word. Other annotations are called with the word and raise ValueError
if it will not do. (The precedents: Inferno's `Cmdtab`, lib9p's parse.c.)
"""

import errno
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import attrs

from mk9p.auth import Principal
from mk9p.errors import NineError


def split(line: str) -> list[str]:
    """Split a line into words as rc(1) does: `'it''s'` is one word; raises EINVAL for a quote that does not end."""
    words: list[str] = []
    word: list[str] | None = None
    at, end = 0, len(line)
    while at < end:
        char = line[at]
        at += 1
        if char == "'":
            word = word or []
            while True:
                close = line.find("'", at)
                if close < 0:
                    raise NineError(errno.EINVAL, "unterminated quote")
                word.append(line[at:close])
                at = close + 1
                if line[at : at + 1] != "'":
                    break
                word.append("'")
                at += 1
        elif char in " \t\r\n":
            if word is not None:
                words.append("".join(word))
                word = None
        else:
            word = word or []
            word.append(char)
    if word is not None:
        words.append("".join(word))
    return words


def lines(text: str) -> list[str]:
    """Split text into lines at the newlines outside of quotes: a quoted word may hold newlines, as a shell script given to exec does."""
    whole: list[str] = []
    part: list[str] = []
    quoted = False
    for piece in text.split("\n"):
        part.append(piece)
        quoted ^= bool(piece.count("'") % 2)
        if not quoted:
            whole.append("\n".join(part))
            part = []
    return [*whole, "\n".join(part)] if part else whole


def quote(word: str) -> str:
    """Return a word as `split` would read it back."""
    if word and not any(char in word for char in " \t\r\n'"):
        return word
    return "'" + word.replace("'", "''") + "'"


def join(words: Sequence[object]) -> str:
    """Return words as one line that `split` takes apart again."""
    return " ".join(quote(str(word)) for word in words)


def fields(values: Mapping[str, object]) -> str:
    """Return `key value` lines; a key without a value has its line too."""
    return "".join(f"{key} {value}".rstrip(" ") + "\n" for key, value in values.items())


@attrs.frozen
class _Parameter:
    name: str
    convert: Callable[[str], Any]
    optional: bool
    many: bool
    choices: tuple[str, ...] = ()

    def usage(self) -> str:
        text = "|".join(self.choices) or self.name.rstrip("_").upper()
        if self.many:
            return f"[{text}...]" if self.optional else f"{text}..."
        return f"[{text}]" if self.optional else text


@attrs.frozen
class Word:
    """One command: its name, the function, and what its signature says of the words that follow."""

    name: str
    function: Callable[..., Any]
    parameters: tuple[_Parameter, ...]
    asks_who: bool

    @property
    def usage(self) -> str:
        return " ".join([self.name, *(p.usage() for p in self.parameters)])

    def call(self, words: Sequence[str], who: Principal) -> Any:
        """Call the function with converted words; raises EINVAL with the usage if they do not fit. May return an awaitable."""
        values: list[Any] = [who] if self.asks_who else []
        at = 0
        for parameter in self.parameters:
            some = words[at:] if parameter.many else words[at : at + 1]
            if not some and not parameter.optional:
                raise self.wrong()
            values += [self._convert(parameter, word) for word in some]
            at += len(some)
        if at < len(words):
            raise self.wrong()
        return self.function(*values)

    def _convert(self, parameter: _Parameter, word: str) -> Any:
        if parameter.choices and word not in parameter.choices:
            raise self.wrong()
        try:
            return parameter.convert(word)
        except ValueError:
            raise self.wrong() from None

    def wrong(self) -> NineError:
        return NineError(errno.EINVAL, f"usage: {self.usage}")


def word(name: str, function: Callable[..., Any]) -> Word:
    """Describe a command by the signature of its function (`*args` means one or more; give `*args: T | None` for none or more)."""
    parameters: list[_Parameter] = []
    asks_who = False
    for p in inspect.signature(function, eval_str=True).parameters.values():
        kind = str if p.annotation is inspect.Parameter.empty else p.annotation
        if kind is Principal:
            asks_who = True
            continue
        many = p.kind is inspect.Parameter.VAR_POSITIONAL
        optional = p.default is not inspect.Parameter.empty
        args = get_args(kind)
        if args and type(None) in args and get_origin(kind) is not Literal:
            kind, optional = next(a for a in args if a is not type(None)), True
        choices = tuple(str(c) for c in get_args(kind)) if get_origin(kind) is Literal else ()
        convert: Callable[[str], Any] = str if choices else kind
        parameters.append(_Parameter(p.name, convert, optional, many, choices))
    return Word(name, function, tuple(parameters), asks_who)


def table(words: Mapping[str, Callable[..., Any]]) -> dict[str, Word]:
    """Describe a table of commands."""
    return {name: word(name, function) for name, function in words.items()}


def run(commands: Mapping[str, Word], line: str, who: Principal) -> Any:
    """Run one line; an empty one does nothing. Raises EINVAL naming the known words for an unknown one. May return an awaitable."""
    words = split(line)
    if not words:
        return None
    command = commands.get(words[0])
    if command is None:
        raise NineError(
            errno.EINVAL, f"unknown word {quote(words[0])}; usage: {' · '.join(w.usage for w in commands.values())}"
        )
    return command.call(words[1:], who)


__all__ = ["Word", "fields", "join", "quote", "run", "split", "table", "word"]
