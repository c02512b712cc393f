"""`mk9p context` and `mk9p login`: namespaces with their keys, by name (mk9p/contexts.py)."""

import errno
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from mk9p import contexts, sync
from mk9p.contexts import Context
from mk9p.dial import Keys, parse
from mk9p.errors import NineError
from mk9p.serving import keys_of
from mk9p.stdio import read_text
from mk9p.usage import parsed


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p context` or `mk9p login`."""
    chosen = parsed(arguments)
    if arguments[0] == "login":
        return login(chosen)
    return {"add": add, "use": use, "list": list_, "remove": remove}[chosen.word](chosen)


def _kept(address: str, chosen: Any, known: Context | None = None) -> Context:
    """Return the context of a command line; what that does not say is that of `known`. Raises ENOENT for a file that does not exist."""
    parse(address)
    said = keys_of(chosen)
    if said.crl:
        raise NineError(errno.EINVAL, "--crl is for who listens: a context is for dialling")
    keys = said.over(Keys(known.ca, known.cert, known.key)) if known is not None else said
    for path in (said.ca, said.cert, said.key):
        if path:
            os.stat(path)
    ca, cert, key = (path and os.path.abspath(path) for path in (keys.ca, keys.cert, keys.key))
    cap = chosen.cap
    if cap.startswith("@"):
        cap = read_text(cap[1:])
    cap = cap.removesuffix("\n") or (known.cap if known is not None else "")
    return Context(address, ca, cert, key, cap)


def add(chosen: Any) -> int:
    """Keep a context."""
    contexts.save(chosen.name, _kept(chosen.address, chosen))
    return 0


def use(chosen: Any) -> int:
    """Use a context from now on."""
    contexts.use(chosen.name)
    return 0


def remove(chosen: Any) -> int:
    """Forget a context."""
    contexts.remove(chosen.name)
    return 0


def list_(chosen: Any) -> int:
    """List the contexts; never what a capability says."""
    used, found = contexts.current(), []
    for name in contexts.names():
        try:
            context = contexts.load(name)
        except NineError as error:
            print(f"mk9p context: {error}", file=sys.stderr)
            continue
        found.append((name, context))
    if chosen.json:
        plain = [
            {"name": name, "used": name == used} | context._asdict() | {"cap": bool(context.cap)}
            for name, context in found
        ]
        print(json.dumps(plain))
        return 0
    for name, context in found:
        cap = " with a capability" if context.cap else ""
        print(f"{'*' if name == used else ' '} {name} {context.address} {context.cert or '-'}{cap}")
    return 0


def login(chosen: Any) -> int:
    """Try to come in; if that works, keep how, and use it."""
    known = contexts.used() if chosen.address is None else None
    if chosen.address is None and known is None:
        raise NineError(errno.EINVAL, "no context is in use: mk9p login ADDR")
    context = _kept(chosen.address or (known.address if known is not None else ""), chosen, known)
    name = chosen.name or (contexts.current() if known is not None else _named(context.address))
    keys = Keys(context.ca, context.cert, context.key) if context.ca or context.cert else None
    with sync.connect(context.address, aname=context.aname, tls=keys) as client:
        who = _who(client)
    contexts.save(name, context)
    contexts.use(name)
    print(f"{who or 'in'} at {context.address}; context {name}")
    return 0


def _who(client: sync.Client) -> str:
    """Return who the server says that we are, "" if it has no file for that."""
    try:
        return client.read("auth/whoami").partition("\n")[0].removeprefix("principal ")
    except (FileNotFoundError, PermissionError):
        return ""


def _named(address: str) -> str:
    """Return a name for a context of an address: its host, else its network."""
    where = parse(address)
    host = where.rest.partition("!")[0] if where.transport.exposed else where.rest.rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]", "", host).lstrip("._-")[:64] or where.network
