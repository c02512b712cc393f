"""What a guest tries, in the guest: run with a table of attempts on the standard input, it prints what came of each, as JSON.

An attempt is a list, `[WHAT, ARGUMENTS...]`; its outcome begins with `got` or `held`. Nothing here knows what should be held.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import attrs
import trio

from mk9p.client import Client, connect, requests
from mk9p.wire import messages as m

SECONDS = 20  # for one attempt


async def names_said(address: str, uname: str, number: int | None, path: str) -> str:
    async with connect(address, uname=uname, n_uname=number) as ns:
        await ns.walk(path)
    return f"got {path} as {uname}"


async def tree_asked_for(address: str, aname: str, path: str) -> str:
    async with connect(address, uname="root", n_uname=0, aname=aname) as ns:
        await ns.walk(path)
    return f"got {path} in {aname}"


async def walk(ns: Client, path: str) -> str:
    await ns.walk(path)
    return f"got {path}"


async def dots(ns: Client, *names: str) -> str:
    _, qids = await requests.walk(ns.connection, ns.root, names)
    return f"got {len(qids)} of {names}"


async def read(ns: Client, path: str) -> str:
    async with await ns.open(path) as file:
        data = await file.pread(4096, 0)
    return f"got {data.decode(errors='replace')}"


async def listing(ns: Client, path: str) -> str:
    return "got " + " ".join(entry.name for entry in await ns.listdir(path))


async def write(ns: Client, path: str, text: str) -> str:
    await ns.write(path, text)
    return f"got {path} written"


async def create(ns: Client, path: str) -> str:
    await (await ns.create(path, 0o4755)).aclose()
    return f"got {path} made"


async def change(ns: Client, what: str, *paths: str) -> str:
    await getattr(ns, what)(*paths)
    return f"got {what} {paths}"


def command(script: str) -> str:
    done = subprocess.run(["sh", "-c", script], capture_output=True, timeout=SECONDS, check=False)
    said = (done.stdout + done.stderr).decode(errors="replace").strip()
    return f"{'held' if done.returncode else 'got'} {said}"


def tcp(host: str, port: int, local: int, uname: str) -> str:
    """Say Tversion and Tattach by hand, from a port of ours."""
    with socket.create_connection((host, port), timeout=SECONDS, source_address=("", local) if local else None) as sock:
        name = uname.encode()
        attach = b"\x68\1\0\0\0\0\0\xff\xff\xff\xff" + len(name).to_bytes(2, "little") + name + b"\0\0" + bytes(4)
        for message in (b"\x64\xff\xff\0\x20\0\0\x08\0" + b"9P2000.L", attach):
            sock.sendall((len(message) + 4).to_bytes(4, "little") + message)
            answer = sock.recv(4096)
            if not answer:
                return "held: closed"
            if answer[4] in (7, 107):
                return f"held: error {answer[7]}"
    return f"got in as {uname}"


async def fid(ns: Client, number: int, name: str) -> str:
    """Use a fid that nobody has given out, as the start of a walk, without a name or with one."""
    (qids,) = await ns.connection.rpc(m.Twalk, number, 900 + number % 50, (name,) if name else ())
    return f"got {qids} from fid {number}"


async def in_dialect(address: str, version: str, path: str) -> str:
    async with connect(address, uname="root", n_uname=0, version=version) as ns:
        await requests.walk(ns.connection, ns.root, path.split("/"))
    return f"got {path} in {version}"


def unix(path: str) -> str:
    name = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SECONDS)
        sock.connect(name)
    return f"got {path}"


def reach(host: str, port: int) -> str:
    with socket.create_connection((host, port), timeout=2):
        return f"got {host}!{port}"


ON_ITS_OWN: dict[str, Any] = {"names": names_said, "aname": tree_asked_for, "dialect": in_dialect}
BESIDES: dict[str, Any] = {"sh": command, "tcp": tcp, "unix": unix, "reach": reach}
IN_THE_TREE: dict[str, Any] = {
    "walk": walk,
    "dots": dots,
    "read": read,
    "list": listing,
    "write": write,
    "create": create,
    "change": change,
    "fid": fid,
}


@attrs.define
class Guest:
    """Who tries, with one connection as long as it lasts."""

    address: str
    stack: AsyncExitStack
    ns: Client | None = None

    async def one(self, what: str, arguments: Sequence[Any]) -> str:
        try:
            if what in ON_ITS_OWN:
                await self.leave()  # a line has room for one conversation
            elif what in IN_THE_TREE and (self.ns is None or self.ns.connection.gone is not None):
                await self.leave()
                self.ns = await self.stack.enter_async_context(connect(self.address, uname="root", n_uname=0))
            with trio.fail_after(SECONDS):
                if what in BESIDES:
                    return str(BESIDES[what](*arguments))
                if what in ON_ITS_OWN:
                    return str(await ON_ITS_OWN[what](self.address, *arguments))
                return str(await IN_THE_TREE[what](self.ns, *arguments))
        except (OSError, trio.TooSlowError, subprocess.TimeoutExpired) as error:
            return f"held {type(error).__name__}: {error}"

    async def leave(self) -> None:
        """Hang up."""
        self.ns = None
        await self.stack.aclose()


async def main(address: str) -> None:
    table = json.load(sys.stdin)
    async with AsyncExitStack() as stack:
        guest = Guest(address, stack)
        outcomes = [await guest.one(what, arguments) for what, *arguments in table]
    print(json.dumps(outcomes))


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
