"""The tree of a kernel, made of resource servers, each as the command line names it (`Spec`).

A resource server is an entry point of the group `mk9p.servers`: a function that returns a `Dir`, or an async context manager of one where it has
background work. Its tree is at its name; `host` is the top level itself. `NAME:ARG?OPTION=VALUE&...` calls it with an argument and options, and
puts its tree at NAME/LAST. LAST is the last part of the argument's path, or the value of the option `name`: `fs:/srv/data` is `fs/data`. Without
names the tree has every resource server that needs no argument and that this kernel has; one that it does not have is told, and left out.
"""

import errno
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

import attrs

from mk9p.errors import NineError
from mk9p.loading import available, code_of, load
from mk9p.tree import Dir, Node

TOP: Final = "host"
THROUGH: Final = "through"


@attrs.frozen
class Spec:
    """One resource server as the command line names it."""

    name: str
    argument: str | None = None
    options: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """Read `NAME[:ARG][?OPTION=VALUE[&OPTION=VALUE...]]`; an option without a value is "on"."""
        head, _, tail = text.partition("?")
        name, colon, argument = head.partition(":")
        pairs = [pair.partition("=") for pair in tail.split("&") if pair]
        return cls(name, argument if colon else None, {key: value if equals else "on" for key, equals, value in pairs})

    @property
    def place(self) -> str:
        """The path of its tree. Raises EINVAL for an option `name` that is no name."""
        if self.argument is None:
            return self.name
        last = self.options.get("name") or self.argument.rstrip("/").rpartition("/")[2] or "root"
        if "/" in last or last in (".", ".."):
            raise NineError(errno.EINVAL, f"{last!r} is no name: say name=...")
        return f"{self.name}/{last}"


@asynccontextmanager
async def kernel_tree(specs: Sequence[Spec] = (), extra: Mapping[str, Node] | None = None) -> AsyncIterator[Dir]:
    """Make the tree of the given resource servers, or of all that this machine can have, with `extra`; raises ENOENT for an unknown one."""
    known = available()
    async with AsyncExitStack() as stack:
        trees: dict[str, Node] = {}
        for spec in specs or [Spec(name) for name in known]:
            code = code_of(spec.name, spec.argument, known)
            if code is None and spec.name not in known:
                raise NineError(errno.ENOENT, f"no resource server {spec.name!r}; there are: {' '.join(sorted(known))}")
            if code is not None:
                spec = attrs.evolve(spec, name=code.name, argument=code.argument)
            own = None if code is None else load(code)
            try:
                function = own or known[spec.name].load()
                if not specs and _needs_argument(function):
                    continue
                if spec.place in trees:
                    raise NineError(errno.EEXIST, f"two trees at {spec.place}: say name=...")
                trees[spec.place] = await _make(stack, function, spec)
            except (OSError, ImportError) as error:
                if specs:
                    raise NineError(
                        getattr(error, "errno", None) or errno.ENODEV, f"{spec.name}: {_words(error)}"
                    ) from error
                print(f"mk9p: without {spec.name}: {_words(error)}", file=sys.stderr)
        top = trees.pop(TOP, None)
        yield Dir(*(top.children if isinstance(top, Dir) else ()), _nested(trees), extra or {})


def _needs_argument(function: Any) -> bool:
    import inspect

    return any(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in inspect.signature(function).parameters.values()
    )


async def _make(stack: AsyncExitStack, function: Any, spec: Spec) -> Node:
    named = spec.argument is not None
    options = {key: value for key, value in spec.options.items() if not (named and key == "name")}
    if wrong := _misused(function, spec, options):
        raise NineError(errno.EINVAL, wrong)
    made = function(*((spec.argument,) if named else ()), **_meant(options))
    tree = await stack.enter_async_context(made) if hasattr(made, "__aenter__") else made
    if not isinstance(tree, Node):
        raise NineError(errno.EINVAL, f"it gives {type(tree).__name__}, and no tree (mk9p.tree.Dir)")
    return tree


def _meant(options: Mapping[str, str]) -> dict[str, Any]:
    """Return options as a resource server takes them: texts, except for `through=DIAL`, which becomes the way to that namespace."""
    if THROUGH not in options:
        return dict(options)
    from mk9p.client import connect

    # this dialect's errors have words, and the server passes them on
    return {**options, THROUGH: partial(connect, options[THROUGH], version="9P2000.u")}


def _misused(function: Any, spec: Spec, options: Mapping[str, str]) -> str:
    """Return what is wrong with an argument or with options that a resource server does not take, or with a missing argument."""
    import inspect

    taken = inspect.signature(function).parameters.values()
    first = next((p.name for p in taken if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)), None)
    if spec.argument is not None and first is None:
        return f"it takes no argument: say {spec.name} alone"
    if spec.argument is None and first not in options and _needs_argument(function):
        return f"it wants an argument, {spec.name}:{(first or '').upper()}"
    known = [p.name for p in taken if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if spec.argument is not None:
        known = [name for name in known if name != first]
    unknown = next((option for option in options if option not in known), None)
    if unknown is None or any(p.kind is p.VAR_KEYWORD for p in taken):
        return ""
    return f"no option {unknown!r}; there are: {' '.join(known) or 'none'}"


def _words(error: Exception) -> str:
    """Return an error in words, without its number."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename or repr('')}: {error.strerror}"
    return str(error)


def _nested(trees: Mapping[str, Node]) -> dict[str, Node]:
    """Put trees at their names; a name with a slash, such as dev/block, goes into the directory that it names."""
    top: dict[str, Node] = {name: tree for name, tree in trees.items() if "/" not in name}
    below: dict[str, dict[str, Node]] = {}
    for name, tree in trees.items():
        if "/" in name:
            first, _, rest = name.partition("/")
            below.setdefault(first, {})[rest] = tree
    for first, some in below.items():
        there = top.get(first)
        top[first] = Dir(*(there.children if isinstance(there, Dir) else ()), _nested(some))
    return top
