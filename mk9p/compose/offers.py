"""What kernels offer to claims (mk9p/lease/claims.py): themselves, their CPUs that are in use, and their memory in blocks.

Every kernel that will do is asked, as the user who claims, and one that is down or silent offers nothing.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Final

import attrs

from mk9p.auth import Principal
from mk9p.compose.entering import described
from mk9p.compose.everyone import Everyone
from mk9p.compose.namespace import KERNELS, Namespace
from mk9p.compose.resources import key_of
from mk9p.ktext import split_lines, split_words
from mk9p.lease.claims import Claim, Offer
from mk9p.lease.registry import Entry
from mk9p.lease.wish import Resource
from mk9p.tree import Dir, Node, Open, settle
from mk9p.tree.slices import in_slices

OFFLINE: Final = "offline"
_TEXT: Final = 1 << 20  # bytes of a status
_PARTS: Final = 1 << 16  # CPUs, or blocks of memory, of a kernel: eight terabytes in blocks of 128 MiB


@attrs.define(eq=False)
class Offers:
    """Asks the kernels of a namespace. `known` returns what those say of themselves that have said it, by name."""

    ns: Namespace
    known: Callable[[], Mapping[str, Entry]]

    async def __call__(self, claims: Sequence[Claim], who: Principal) -> list[Offer]:
        """Return what there is of each kernel that will do for one of the claims."""
        known = dict(self.known())
        kernels = await self.ns.kernels(who)
        trees = {
            # by a walk, as a user takes it: a listing has another node for it
            name: await settle(kernels.walk(name, who))
            for name, _ in await settle(kernels.entries(who))
            if name not in known or any(claim.fits(known[name]) for claim in claims)
        }

        async def some(_: Principal) -> Node:
            return Dir(trees)

        cpus, mem = any(claim.cpus for claim in claims), any(claim.mem for claim in claims)
        names = {id(tree): name for name, tree in trees.items()}

        async def ask(tree: Node) -> Offer | None:
            name = names[id(tree)]
            entry = known.get(name)
            if entry is None:
                words = [word for pair in (await described(tree, who)).items() for word in pair]
                entry = Entry.parse([name, *words], who.name)
            if not any(claim.fits(entry) for claim in claims):
                return None
            top = f"{KERNELS}/{name}"
            return Offer(
                entry,
                Resource(top, key_of(tree, top)),
                await _cpus(tree, top, who) if cpus else (),
                *(await _mem(tree, top, who) if mem else ()),
            )

        found = await Everyone(some).ask(who, ask)
        return [offer for _, offer in found if offer is not None]


async def _at(node: Node, who: Principal, *names: str) -> Node | None:
    for name in names:
        try:
            node = await settle(node.walk(name, who))
        except (FileNotFoundError, NotADirectoryError):
            return None
    return node


async def _numbered(node: Node, top: str, who: Principal) -> dict[str, Resource]:
    return await in_slices(_of(await settle(node.entries(who)), top))


def _of(entries: Iterable[tuple[str, Node]], top: str) -> Generator[None, None, dict[str, Resource]]:
    found = [(name, child) for name, child in entries if name.isascii() and name.isdecimal()]
    made = {}
    for name, child in sorted(found, key=lambda pair: int(pair[0]))[:_PARTS]:
        made[name] = Resource(f"{top}/{name}", key_of(child, f"{top}/{name}"))
        yield
    return made


async def _lines(node: Node | None, who: Principal) -> list[list[str]]:
    if node is None:
        return []
    handle = await settle(node.open(Open(who)))
    try:
        text = bytes(await settle(handle.read(0, _TEXT))).decode(errors="replace")
    finally:
        await settle(handle.close())
    return await in_slices(_apart(text))


def _apart(text: str) -> Generator[None, None, list[list[str]]]:
    found = []
    for line in split_lines(text):
        found.append(split_words(line))
        yield
    return found


async def _cpus(tree: Node, top: str, who: Principal) -> tuple[Resource, ...]:
    node = await _at(tree, who, "cpu")
    if node is None:
        return ()
    out = {line[0] for line in await _lines(await _at(node, who, "status"), who) if line[1:2] == [OFFLINE]}
    return tuple(cpu for name, cpu in (await _numbered(node, f"{top}/cpu", who)).items() if name not in out)


async def _mem(tree: Node, top: str, who: Principal) -> tuple[tuple[Resource, ...], int]:
    node = await _at(tree, who, "mem", "block")
    if node is None:
        return (), 0
    lines = await _lines(await _at(tree, who, "mem", "status"), who)
    size = next((line[1] for line in lines if len(line) == 2 and line[0] == "block_size"), "0")
    # a size from another machine: digits, and no more than any memory has
    block = int(size) if size.isascii() and size.isdecimal() and len(size) < 19 else 0
    return tuple((await _numbered(node, f"{top}/mem/block", who)).values()), block
