"""`python -m mk9p.servers.wasm.loading SPEC CONTROL`: look at a module, and make it freezable if that can be done.

It writes the module that is to be run, and tells its server in one line of JSON: `loaded`, with the reason why it cannot be frozen (or ""), or
`failed`. What it makes is kept in the user's cache, with the code for this machine.
"""

import errno
import hashlib
import json
import os
import socket
import sys
from typing import Any

from mk9p.errors import NineError, translate
from mk9p.servers.wasm import container
from mk9p.servers.wasm.confine import MEMORY, admitted, confine
from mk9p.servers.wasm.instrument.asyncify import VERSION, asyncify
from mk9p.servers.wasm.instrument.binary import IMPORT, IN_FUNC, Refused, imports, not_a_module, sections
from mk9p.servers.wasm.instrument.checkpoints import inject
from mk9p.servers.wasm.instrument.expose import expose
from mk9p.servers.wasm.wasi.table import MODULE, TYPES


def main() -> None:
    """Do it, and leave."""
    spec_fd, control_fd = map(int, sys.argv[1:3])
    with os.fdopen(spec_fd, "rb") as file:
        spec = json.load(file)
    control = socket.socket(fileno=control_fd)
    control.setblocking(True)
    admitted(control)
    confine(MEMORY)
    try:
        with os.fdopen(spec["module"], "rb") as file:
            file.seek(0)
            module = file.read()
        ready, reason = prepared(module, spec["cache"], plain=spec["plain"])
        with os.fdopen(spec["out"], "wb") as file:
            file.write(ready)
        answer: dict[str, Any] = {"say": "loaded", "reason": reason}
    except (OSError, ValueError) as error:
        told = translate(error)
        answer = {"say": "failed", "errno": told.errno, "words": told.ename}
    with control:
        control.sendall(json.dumps(answer).encode() + b"\n")
    os._exit(0)


def prepared(module: bytes, cache: str, *, plain: bool = False) -> tuple[bytes, str]:
    """Return the module to run, and why it cannot be frozen (or ""). Raises ENOEXEC for what is no program, or wants something that is not here."""
    from mk9p.servers.wasm.machine import cached, compiled, keep

    try:
        check_imports(module)
    except IndexError:
        raise not_a_module("not a wasm module: it is cut short") from None
    if plain:
        compiled(module, fuel=False, cache=cache)
        return module, ""
    place = cached(
        cache, hashlib.sha256(f"{VERSION} {hashlib.sha256(module).hexdigest()}".encode()).hexdigest() + ".wasm"
    )
    if place is not None and place.exists():
        ready = place.read_bytes()
    else:
        compiled(module, fuel=False, cache="")  # first: Binaryen ends the process for some modules that are not valid
        try:
            ready = expose(asyncify(inject(module)))
            if len(ready) > container.MODULE:
                raise Refused("it would be too large for a state")
        except Refused as refused:
            compiled(module, fuel=False, cache=cache)
            return module, str(refused)
        except IndexError:
            raise not_a_module("not a wasm module: it is cut short") from None
        if place is not None:
            keep(place, ready)
    compiled(ready, fuel=False, cache=cache)
    return ready, ""


def check_imports(module: bytes) -> None:
    """Raise ENOEXEC if a module imports anything but functions of WASI preview 1."""
    try:
        for each in imports(sections(module).get(IMPORT, b"\0")):
            if each.module == MODULE and each.kind == IN_FUNC and each.name in TYPES:
                continue
            if each.module in ("wasi_unstable", "wasi") or each.module.startswith("wasi:"):
                raise not_a_module(f"it is for another WASI, {each.module!r}: want {MODULE}")
            raise NineError(errno.ENOEXEC, f"it imports {each.module}.{each.name}, which is not here"[:200])
    except Refused:
        return  # whoever instantiates it finds what is missing


if __name__ == "__main__":
    main()
