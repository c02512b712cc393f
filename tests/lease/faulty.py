"""Run with faults.c preloaded: `python -m tests.lease.faulty FOLDER`. For each call that changes the disk, and each kind of fault, a child of its own
uses a store until that call fails or ends it; then the store must have what the child was told, and nothing half."""

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

from mk9p.lease.book import Book, Lease
from mk9p.lease.store import SqliteStore
from mk9p.lease.wish import SECOND, Wish

KINDS = {1: "killed", 2: "EIO", 3: "ENOSPC"}
LIB = ctypes.CDLL(None)
State = tuple[dict[int, tuple[str, int, int]], int, dict[str, tuple[str, str]]]


def lease(number: int, token: int, until: int = 0) -> Lease:
    wish = Wish(number, f"/k/k{number}/it's", ("k", f"k{number}"), "exclusive", "ann", 60 * SECOND, 1000)
    return Lease(wish, token, until)


STEPS: list[Callable[[SqliteStore], None]] = [
    lambda store: store.put(lease(0, 1)),
    lambda store: store.put(lease(1, 2)),
    lambda store: store.put(lease(0, 1, until=7)),
    lambda store: store.enter("a", "ann", "a x y"),
    lambda store: store.drop(0),
    lambda store: store.put(lease(2, 3)),
    lambda store: store.remove("a"),
    lambda store: store.drop(1),
]


def state_of(book: Book, entries: dict[str, tuple[str, str]]) -> State:
    return {n: (one.wish.path, one.token, one.until) for n, one in book.leases.items()}, book.token, entries


def states(folder: Path) -> list[State]:
    """Return what a store has before the first step, and after each."""
    store = SqliteStore(folder / "plain")
    found = [state_of(store.load(), store.entries())]
    for step in STEPS:
        step(store)
        found.append(state_of(store.load(), store.entries()))
    store.close()
    return found


def use(path: Path, told: int) -> None:
    """Open the store and go through the steps until one fails; write to `told` after each that was done."""
    try:
        store = SqliteStore(path)
        os.write(told, b"o")
        for step in STEPS:
            step(store)
            os.write(told, b"d")
        store.close()
    except OSError:
        return


def one(folder: Path, n: int, kind: int, expected: list[State]) -> bool:
    """Try one fault; tell whether it came."""
    path = folder / f"{n}-{kind}" / "leases"
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        os.dup2(writer, 1)  # the faults leave descriptors up to 2 alone
        LIB.arm(n, kind)
        use(path, 1)
        os._exit(0 if LIB.calls_came() else 7)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    done = told.count(b"d")
    store = SqliteStore(path)
    found = state_of(store.load(), store.entries())
    store.put(lease(9, 99))  # it can still be written
    store.close()
    # what was cut off may have been done, as a whole; so may what failed, if the disk has it in spite of what it said
    may = expected[done : done + 2]
    assert found in may, f"call {n} {KINDS[kind]}: told {told!r}, found {found}"
    aside = [name for name in os.listdir(path.parent) if "damaged" in name]
    assert not aside, f"call {n} {KINDS[kind]}: put aside after {told!r}"
    return os.waitstatus_to_exitcode(status) != 7


def main(folder: Path) -> None:
    expected = states(folder)
    for kind, name in KINDS.items():
        n = 1
        while one(folder, n, kind, expected):
            n += 1
        print(f"{name} {n - 1}")
        assert n > 20


if __name__ == "__main__":
    main(Path(sys.argv[1]))
