"""Completion of `mk9p` in bash, zsh and fish: commands, options, kernels, paths of the tree, words of a ctl, pages of the manual.

`mk9p completion bash` prints the shell's part, which runs `mk9p` at each Tab with what is typed so far; argcomplete speaks with the shell, and asks
the parsers of mk9p/usage. What the tree has is asked of the server of -a, $MK9P or `mk9p up`, for `PATIENCE` at most, with the dialling: who pressed
Tab cannot type meanwhile. If that fails there is nothing to complete, and nobody to tell.
"""

import argparse
import errno
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from argcomplete import autocomplete
from argcomplete.completers import FilesCompleter
from argcomplete.shell_integration import shellcode

from mk9p.client import Client
from mk9p.clients.common import out
from mk9p.ktext import split_lines
from mk9p.tree.words import split
from mk9p.usage import ALIASES, GLOBAL, everything, parsed, tell

PATIENCE: Final = 1.0
STATES: Final = ("empty", "ready", "loaded", "active", "silent", "failed", "dead", "frozen")
SHELLS: Final = ("bash", "zsh", "fish")

Completer = Callable[..., Iterable[str]]
T = TypeVar("T")


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p completion`."""
    out((shellcode(["mk9p"], shell=parsed(arguments).shell) + "\n").encode())
    return 0


def complete() -> None:
    """Answer the shell, which has put what is typed into the environment, and end the process."""
    parser = argparse.ArgumentParser(prog="mk9p")
    known = {"-a": _nothing, "-c": _contexts}
    for option, variable in GLOBAL.items():
        before = parser.add_argument(option, dest=variable, help=argparse.SUPPRESS)
        before.completer = known.get(option, FilesCompleter())  # type: ignore[attr-defined]
    commands = parser.add_subparsers(dest="command")
    parsers = everything()
    for name, each in [*parsers.items(), *((word, parsers[name.partition(" ")[0]]) for word, name in ALIASES.items())]:
        _teach(each, name)
        commands.choices[name] = each
    autocomplete(parser, always_complete_options="long")


def _teach(parser: argparse.ArgumentParser, command: str) -> None:
    """Give each argument of a command, and of the words below it, what completes it."""
    known = _completers() | _OF.get(command, {})
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for below in action.choices.values():
                _teach(below, command)
        elif not action.choices:
            action.completer = known.get(str(action.metavar), _nothing)  # type: ignore[attr-defined]


def _completers() -> dict[str, Completer]:
    """Return what completes an argument, by its name in the usage."""
    files = FilesCompleter()
    return {
        "PATH": _paths,
        "SOURCE": _either(files),
        "DESTINATION": _either(files),
        "KERNEL": _kernels,
        "KERNEL|PATH": lambda prefix, **rest: _paths(prefix, **rest) if "/" in prefix else _machines(prefix, **rest),
        "WORD": lambda **_: STATES,
        "TEXT": _words,
        "KERNEL/N": _programs,
        "N": lambda **rest: _column("tf/status", 0, **rest),
        "TASK": lambda parsed_args, **_: _column(f"tf/{parsed_args.force}/status", 0, parsed_args),
        "ID": lambda **rest: _column("auth/grants", 0, **rest),
        "DIR": files,
        "FILE": files,
        "ADDR|PATH": files,
        "CONTEXT": _contexts,
        "NAME[:ARG][?OPTION=VALUE]": _servers,
    }


def _contexts(**_: Any) -> Iterable[str]:
    from mk9p.contexts import names

    return names()


def _rooted(prefix: str, **rest: Any) -> Iterable[str]:
    """Complete a path from the root, which is what these commands take."""
    return _paths(prefix, **rest) if prefix.startswith("/") else [f"/{path}" for path in _paths(prefix, **rest)]


def _nothing(**_: Any) -> Iterable[str]:
    return ()


def _asked(chosen: argparse.Namespace, ask: Callable[[Client], Awaitable[list[str]]]) -> list[str]:
    """Ask the tree; return nothing when it does not answer in time."""
    from mk9p.sync import connect

    tell({name: value for name, value in vars(chosen).items() if name in GLOBAL.values() and value})
    try:
        with _patient(), connect() as ns:
            return ns.run(ask(ns.inner))
    except OSError:
        return []


@contextmanager
def _patient() -> Iterator[None]:
    """Raise TimeoutError in the block after `PATIENCE`, whatever it waits for."""

    def late(*_: object) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "no answer")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _paths(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    from mk9p.clients.listing import entries

    above, slash, _name = prefix.rpartition("/")

    async def ask(ns: Client) -> list[str]:
        return [
            f"{above}{slash}{entry.name}{'/' if entry.is_dir else ''}" for entry in await entries(ns, above or slash)
        ]

    return _asked(parsed_args, ask)


def _either(files: Completer) -> Completer:
    """Complete `:PATH` from the tree, and other paths from this machine."""

    def completer(prefix: str, **rest: Any) -> Iterable[str]:
        if prefix.startswith(":"):
            return [f":{path}" for path in _paths(prefix[1:], **rest)]
        return files(prefix=prefix, **rest)

    return completer


def _kernels(parsed_args: argparse.Namespace, folder: str = "k", **_: Any) -> list[str]:
    from mk9p.clients.listing import entries

    async def ask(ns: Client) -> list[str]:
        return [entry.name for entry in await entries(ns, folder) if entry.is_dir]

    return _asked(parsed_args, ask)


def _column(path: str, which: int, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Return a column of a table of the tree."""

    async def ask(ns: Client) -> list[str]:
        return [words[which] for line in split_lines(await ns.read(path)) if len(words := split(line)) > which]

    return _asked(parsed_args, ask)


def _programs(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Return the programs of wasm of all kernels, as `mk9p wasm ps` names them."""
    from mk9p.clients.listing import entries

    async def ask(ns: Client) -> list[str]:
        found = []
        for kernel in await entries(ns, "k"):
            try:
                found += [
                    f"{kernel.name}/{split(line)[0]}"
                    for line in split_lines(await ns.read(f"k/{kernel.name}/wasm/status"))
                ]
            except OSError:  # it has no wasm, or is down
                continue
        return found

    return _asked(parsed_args, ask)


def _machines(prefix: str, **rest: Any) -> list[str]:
    return _kernels(prefix=prefix, folder="kernels", **rest)


def _words(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Return the words of a ctl, as the manual has them."""
    from mk9p.clients.explain import found
    from mk9p.page import Told

    if parsed_args.words:
        return []
    try:
        hits = found(parsed_args.path)
    except OSError:
        return []
    return [word for _, page, shown in hits for word in Told.of(page, {shown}).words.get(shown, ())]


def _pages(**_: Any) -> list[str]:
    from mk9p.clients.help import pages

    return list(pages())


def _servers(**_: Any) -> list[str]:
    from mk9p.loading import available

    return list(available())


# what an argument of the same name is in some commands
_OF: Final[dict[str, dict[str, Completer]]] = {
    "help": {"NAME": _pages},
    "context": {"NAME": _contexts},
    "grant": {"PATH": _rooted},
    "narrow": {"PATH": _rooted},
    "lease": {"PATH": _rooted},
}
