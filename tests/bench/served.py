"""What is measured: a tree of made-up files, of plain functions and of `async` ones that do not wait. Run as a program it serves one of them."""

import sys

import trio

from mk9p.auth import NONE, Policy, Principal, Scope, Told
from mk9p.authority.book import Book
from mk9p.authority.deciding import Authority
from mk9p.authority.policy import Rules
from mk9p.server import Limits
from mk9p.server.shares import descriptors
from mk9p.testing import serving_at
from mk9p.tree import Block, Dir, Log, Text

SMALL = "x" * 64
BIG = 16 << 20


def plain() -> Dir:
    """Return a tree whose functions answer in the call."""
    content = memoryview(bytes(range(256)) * (BIG // 256))
    sink = bytearray(BIG)

    def read(count: int, offset: int) -> memoryview:
        return content[offset : offset + count]

    def write(data: memoryview, offset: int) -> int:
        at = offset % BIG
        sink[at : at + len(data)] = data
        return len(data)

    def ignore(text: str) -> None:
        return None

    status = Dir({"status": Text(SMALL)})
    return Dir(
        {
            "small": Text(SMALL, ignore, mode=0o666),
            "cpu": status,
            "big": Block(read, size=lambda: BIG, mode=0o444),
            "wbig": Block(read, write, size=lambda: BIG, truncate=lambda length: None, mode=0o666),
        }
    )


def waiting() -> Dir:
    """Return a tree whose functions are all `async def`, and do not wait."""

    async def read() -> str:
        return SMALL

    async def write(text: str) -> None:
        return None

    return Dir({"small": Text(read, write, mode=0o666)})


def events() -> Dir:
    """Return a tree of events, and a file that makes one of each write."""
    log = Log()
    return Dir({"events": log, "emit": Text(None, lambda text: log.emit("written"), mode=0o222)})


class Given:
    """Takes every capability for one that root has granted, for everything."""

    def verify(self, text: str, known: Principal, peer: Told) -> Principal:
        return Principal("ops", NONE.uid, proof="token", scope=Scope(as_root=True))


def ruled() -> Authority:
    """Return what decides by a policy as people write it, whose last rule allows what is measured."""
    lines = [f"deny guest:k{number} rwcnd /k/k{number}/**\nallow @root rwcnd /*/k{number}/**" for number in range(8)]
    return Authority(Given(), Book(Rules.parse("\n".join([*lines, "allow * rwcnd /**"]), lambda name: 0)))


async def main(kind: str, address: str) -> None:
    descriptors(Limits())
    tree = {"plain": plain, "async": waiting, "events": events, "ruled": plain, "capable": plain}[kind]()
    authority = ruled() if kind == "ruled" else Authority(Given() if kind == "capable" else None)
    async with serving_at(address, tree, Policy(trust=True), authority=authority) as host:
        print(f"mk9p: listening on {host.address}", file=sys.stderr, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
