"""Commands as words: splitting a line as rc does, and calling a function whose signature checks the words and gives the usage line.

A ctl word is a plain method. Its parameters say what the word takes, and the usage, which is made from the same parameters, says how a word is
wrong:

    def online(self, *n: int)                      usage: online N...
    def load(self, kernel: str, initrd: str = "")  usage: load KERNEL [INITRD]
    def readonly(self, on: bool)                   usage: readonly on|off
    def mode(self, m: Literal["ro", "rw"] = "rw")  usage: mode [ro|rw]

A parameter annotated `Principal` gets the user who wrote, and is no word. kinds.py says what other annotations mean. An annotation that no word
could be checked against is refused when the command is described. (Models: Inferno's `Cmdtab`, lib9p's parse.c.)
"""

import errno
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.status import Buffer
from mk9p.tree.kinds import Kind, kind

_BARE: Final = re.compile(r"[^ \t\r\n]+")
_LONG: Final = 4096  # letters of a line
_LINE: Final = re.compile(r"((?:[^\n']++|'[^']*+(?:'|\Z))*+)(\n|\Z)")
_COMMAND: Final = re.compile(rb"[ \t\r\n]*+((?:[^\n']++|'[^']*+(?:'|\Z))++)")
_WORD: Final = re.compile(r"(?:[^ \t\r\n']++|'[^']*+')++")


def split(line: str) -> list[str]:
    """Split a line into words as rc(1) does: `'it''s'` is one word; raises EINVAL for a quote that does not end."""
    if "'" not in line:
        return _BARE.findall(line)
    if line.count("'") % 2:
        raise NineError(errno.EINVAL, "unterminated quote")
    return [_unquoted(word) if "'" in word else word for word in _WORD.findall(line)]


def _unquoted(word: str) -> str:
    parts = word.split("'")  # each second one was quoted
    # nothing between two quoted parts: a quote that stood twice
    parts[2:-1:2] = [part or "'" for part in parts[2:-1:2]]
    return "".join(parts)


def lines(text: str) -> list[str]:
    """Split text into lines at the newlines outside of quotes: a quoted word may contain newlines, such as a shell script for exec."""
    if "'" not in text:
        return text.split("\n")
    found = _LINE.findall(text)
    # behind a last line without a newline there is nothing, which is no line
    return [line for line, _ in (found if len(found) < 2 or found[-2][1] else found[:-1])]


def commands(data: Buffer) -> Iterator[str]:
    """Give the lines of a write that say something, one by one, as `lines` divides them: they may be very many. The write must be UTF-8."""
    # behind the last of them nothing is looked for: that would take the square of the time
    end = len(bytes(data).rstrip(b" \t\r\n"))
    return (found[1].decode() for found in _COMMAND.finditer(memoryview(data)[:end]))


def uncomment(line: str) -> str:
    """Return a line without its comment: from a `#` that begins a word and is not quoted."""
    quoted = False
    for at, char in enumerate(line):
        if char == "'":
            quoted = not quoted
        elif char == "#" and not quoted and (at == 0 or line[at - 1] in " \t"):
            return line[:at]
    return line


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
    kind: Kind | None  # None: it gets the user who wrote
    optional: bool
    many: bool
    none: bool = False  # it has no default: None stands for a word that was left out

    def usage(self) -> str:
        text = (self.kind and self.kind.shown) or self.name.rstrip("_").upper() + (self.kind.unit if self.kind else "")
        if self.many:
            return f"[{text}...]" if self.optional else f"{text}..."
        return f"[{text}]" if self.optional else text


@attrs.frozen
class Word:
    """One command: its name, its function, and what its signature says about the words that follow."""

    name: str
    function: Callable[..., Any]
    parameters: tuple[_Parameter, ...]

    @property
    def usage(self) -> str:
        return " ".join([self.name, *(p.usage() for p in self.parameters if p.kind is not None)])

    def call(self, words: Sequence[str], who: Principal) -> Any:
        """Call the function with converted words; raises EINVAL with the usage if they do not fit. May return an awaitable."""
        values: list[Any] = []
        at = 0
        for parameter in self.parameters:
            if parameter.kind is None:
                values.append(who)
                continue
            some = words[at:] if parameter.many else words[at : at + 1]
            if not some and not parameter.optional:
                raise self.wrong()
            values += [self._convert(parameter.kind, word) for word in some] or ([None] if parameter.none else [])
            at += len(some)
        if at < len(words):
            raise self.wrong()
        return self.function(*values)

    def _convert(self, kind: Kind, word: str) -> Any:
        try:
            return kind.convert(word)
        except (ValueError, ArithmeticError):  # the latter from decimal
            raise self.wrong() from None

    def wrong(self) -> NineError:
        return NineError(errno.EINVAL, f"usage: {self.usage}")


@attrs.frozen
class Phrase(Word):
    """A command whose words a signature cannot express: the usage line is given as `text`, and the function gets all words, and the user who asks."""

    text: str = ""

    @property
    def usage(self) -> str:
        return self.text

    def call(self, words: Sequence[str], who: Principal) -> Any:
        """Call the function; raises EINVAL with the usage where it returns NotImplemented, for words that do not fit."""
        done = self.function(list(words), who)
        if done is NotImplemented:
            raise self.wrong()
        return done


def word(name: str, function: Callable[..., Any]) -> Word:
    """Describe a command by the signature of its function (`*args` means one or more; write `*args: T | None` for none or more).

    Raises TypeError for a signature that words cannot be checked against (tree/kinds.py). A keyword-only parameter keeps its default.
    """
    try:
        signature = inspect.signature(function, eval_str=True)
    except ValueError:
        raise TypeError(f"ctl word {name!r}: {function!r} tells no signature") from None
    parameters: list[_Parameter] = []
    for p in signature.parameters.values():
        if p.kind is p.KEYWORD_ONLY and p.default is not p.empty:
            continue
        try:
            parameters.append(_parameter(p, after=parameters))
        except TypeError as error:
            raise TypeError(f"ctl word {name!r}, parameter {p.name!r}: {error}") from None
    return Word(name, function, tuple(parameters))


def _parameter(p: inspect.Parameter, after: Sequence[_Parameter]) -> _Parameter:
    if p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD):
        raise TypeError("a word is not given by keyword")
    many = p.kind is p.VAR_POSITIONAL
    if p.annotation is Principal:
        if many or any(other.optional for other in after):
            raise TypeError("a Principal stands before what may be left out")
        return _Parameter(p.name, None, False, False)
    takes = kind(p.annotation)
    default = p.default is not p.empty
    return _Parameter(p.name, takes, takes.optional or default, many, none=takes.optional and not default and not many)


def table(words: Mapping[str, Callable[..., Any]]) -> dict[str, Word]:
    """Describe a table of commands."""
    return {name: word(name, function) for name, function in words.items()}


def run(commands: Mapping[str, Word], line: str, who: Principal) -> Any:
    """Run one line; an empty one does nothing. Raises EINVAL naming the known words for an unknown one. May return an awaitable."""
    if len(line) > _LONG and (first := _BARE.search(line)) and "'" not in first[0]:
        _known(commands, first[0])  # before hundreds of thousands of words are made of it
    words = split(line)
    return _known(commands, words[0]).call(words[1:], who) if words else None


def _known(commands: Mapping[str, Word], word: str) -> Word:
    found = commands.get(word)
    if found is None:
        usages = " · ".join(each.usage for each in commands.values())
        raise NineError(errno.EINVAL, f"unknown word {quote(word)}; usage: {usages}")
    return found


__all__ = [
    "Phrase",
    "Word",
    "commands",
    "fields",
    "join",
    "lines",
    "quote",
    "run",
    "split",
    "table",
    "uncomment",
    "word",
]
