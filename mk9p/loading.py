"""Resource servers by name: those that are installed, and code of the user's own, `./counter.py` or `module:function`.

    NAME[:ARG]                  an entry point of the group `mk9p.servers`
    FILE.py[:FUNCTION[:ARG]]    a function of a file, `tree` if none is named; what is beside the file can be imported
    MODULE:FUNCTION[:ARG]       a function of a module that can be imported

Code of the user's own may also have the tree itself under that name. Errors are one line, with the file and line where the code is at fault.
"""

import errno
import importlib.util
import keyword
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType
from typing import Any, Final, NamedTuple

from mk9p.errors import NineError
from mk9p.tree import Node

GROUP: Final = "mk9p.servers"
FUNCTION: Final = "tree"


def available() -> dict[str, Any]:
    """Return the entry points of all resource servers that are installed, by name."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP)}


class Code(NamedTuple):
    """Where the code of a tree is: its module or file, the function there, the name of its tree, and the argument that is left."""

    where: str
    function: str
    name: str
    argument: str | None


def code_of(name: str, argument: str | None, installed: Iterable[str]) -> Code | None:
    """Return the code that `NAME:ARGUMENT` means; None where NAME is installed, or means no code."""
    if name in installed:
        return None
    function, colon, rest = (argument or "").partition(":")
    rest_of = rest if colon else None
    if name.endswith(".py"):
        stem = os.path.basename(name).removesuffix(".py")
        return Code(name, function or FUNCTION, stem if function in ("", FUNCTION) else function, rest_of)
    if function.isidentifier() and all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split(".")):
        return Code(name, function, name.rpartition(".")[2] if function == FUNCTION else function, rest_of)
    return None


def load(code: Code) -> Callable[..., Any]:
    """Return the function of some code. Raises ENOENT if it is not there, EINVAL if the code is at fault, with its line."""
    module = _file(code.where) if code.where.endswith(".py") else _module(code.where)
    found = getattr(module, code.function, None)
    if found is None:
        there = [
            name for name, value in vars(module).items() if callable(value) and value.__module__ == module.__name__
        ]
        words = f"no {code.function!r} there; functions: {' '.join(there) or 'none'}"
        raise NineError(errno.ENOENT, f"{code.where}: {words}")
    if isinstance(found, Node):
        return lambda: found
    if not callable(found):
        raise NineError(
            errno.EINVAL, f"{code.where}: {code.function} is neither a tree nor a function that returns one"
        )
    return found  # type: ignore[no-any-return]


def _file(path: str) -> ModuleType:
    if not os.path.isfile(path):
        raise NineError(errno.ENOENT, f"{path}: no such file")
    whole = os.path.abspath(path)
    folder, name = os.path.dirname(whole), os.path.basename(path).removesuffix(".py")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(name, whole)
    loader = None if spec is None else spec.loader
    assert spec is not None
    assert loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # attrs and dataclasses look for it there
    _run(path, partial(loader.exec_module, module))
    return module


def _module(name: str) -> ModuleType:
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        if importlib.util.find_spec(name) is None:
            raise NineError(errno.ENOENT, f"no resource server and no module {name!r}")
    except ModuleNotFoundError as error:
        raise NineError(errno.ENOENT, f"no resource server and no module {error.name!r}") from None
    _run(name, partial(importlib.import_module, name))
    return sys.modules[name]


def _run(where: str, work: Callable[[], Any]) -> None:
    """Run the top level of somebody's code. Raises EINVAL with the line where it failed."""
    try:
        work()
    except SyntaxError as error:
        raise NineError(errno.EINVAL, f"{error.filename}: line {error.lineno}: {error.msg}") from None
    except Exception as error:
        ours = ("importlib", __file__)
        frames = [
            each for each in traceback.extract_tb(error.__traceback__) if not any(o in each.filename for o in ours)
        ]
        place = f"{frames[-1].filename}: line {frames[-1].lineno}" if frames else where
        raise NineError(errno.EINVAL, f"{place}: {type(error).__name__}: {error}") from error
