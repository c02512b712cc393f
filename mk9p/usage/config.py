"""The file of a daemon's options (`--config FILE`), in TOML. Its keys are the long names of the options.

The file says what holds when the command line says nothing: an option there wins, and one that can be given again adds to the file's list. A key
that is no option is an error: a word that was mistyped must not be a listener that is open to all.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mk9p.usage.common import Parser

_NAMES: Final = {"listen": "listen", "specs": "servers", "file": "namespace"}  # keys whose option has no long name
_WORDS: Final = {
    bool: "true or false",
    int: "a number",
    str: "a text in quotes",
    list: 'a list of texts: ["...", "..."]',
}


class Configured(Parser):
    """A parser whose options a file can give too."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read the file that the words name, and then the words. Raises NineError for the file."""
        early = Parser(add_help=False, allow_abbrev=False)
        early.add_argument("--config")
        found = early.parse_known_args(args)[0].config
        if found is not None:
            self.set_defaults(**read(found, self._actions))
        return super().parse_known_args(args, namespace)


def read(path: str, actions: Sequence[argparse.Action]) -> dict[str, Any]:
    """Return the values of options by their names in the program. Raises NineError in one line: unreadable, no TOML, an unknown key, a wrong kind."""
    import errno
    import tomllib

    from mk9p.errors import NineError

    try:
        with open(path, "rb") as file:
            given = tomllib.load(file)
    except OSError as error:
        raise NineError(error.errno or errno.EIO, f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NineError(errno.EINVAL, f"{path}: {error}") from None
    known = {_key(action): action for action in actions if action.dest not in ("help", "config")}
    values = {}
    for key, value in given.items():
        if key not in known:
            raise NineError(errno.EINVAL, f"{path}: unknown key {key!r}; {_near(key, known)}")
        try:
            values[known[key].dest] = _value(value, known[key])
        except ValueError as error:
            raise NineError(errno.EINVAL, f"{path}: {key}: {error}") from None
    return values


def _key(action: argparse.Action) -> str:
    return next((o[2:] for o in action.option_strings if o.startswith("--")), _NAMES.get(action.dest, action.dest))


def _near(key: str, known: Mapping[str, object]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(key, known)
    return f"similar: {' '.join(near)}" if near else f"there are: {' '.join(sorted(known))}"


def _value(value: Any, action: argparse.Action) -> Any:
    """Return a value as the option has it. A table becomes NAME=VALUE words, for an option of these. Raises ValueError for another kind."""
    if isinstance(action, argparse._AppendAction) and isinstance(value, dict):
        value = [f"{name}={each}" for name, each in value.items()]
    kind: type = str
    if isinstance(action, argparse._StoreConstAction):
        kind = bool
    elif isinstance(action, argparse._CountAction) or action.type is int:
        kind = int
    elif isinstance(action, argparse._AppendAction) or action.nargs in ("*", "+"):
        kind = list
    inside = value if isinstance(value, list) else []
    if type(value) is not kind or not all(isinstance(each, str) for each in inside):
        raise ValueError(f"want {_WORDS[kind]}")
    choices: Any = action.choices
    if choices is not None and value not in choices:
        raise ValueError(f"want one of {' '.join(map(str, choices))}")
    return value
