"""What a path of the namespace is, whatever other paths lead to it: the key of a lease (mk9p/lease/book.py).

A file of another server is that server's, by its names there: so a bind, `all/` and the mount itself lead to one resource. What is here is known by
its path.
"""

import errno
from collections.abc import Callable
from typing import Final

from mk9p.auth import WRITE, Principal, may
from mk9p.compose.namespace import KERNELS, Namespace
from mk9p.compose.remote import Remote
from mk9p.compose.table import clean
from mk9p.errors import NineError
from mk9p.lease.files import LeaseTree
from mk9p.lease.wish import Key, Resource
from mk9p.scope import C, D, N, W, within
from mk9p.tree import Node, settle

THERE: Final = "9p"
HERE: Final = "here"
CHANGES: Final = W | C | N | D
MOVED: Final = ((), ("cpu",), ("mem",), ("dev",))  # parts of a kernel that kernels/NAME/ctl adds and removes


def key_of(node: Node, path: str) -> Key:
    """Return the key of what a walk led to, by a path of the namespace."""
    way = node.way
    if way is not None:
        return (THERE, way.address, way.aname, *way.names)
    shown = _shown(node)
    if isinstance(shown, Remote):
        return (THERE, shown.server.address, shown.server.aname, *shown.names)
    return (HERE, *(name for name in path.split("/") if name))


def _shown(node: Node) -> Node:
    """Return what a node shows: read-only, granted, guarded."""
    while isinstance(inner := getattr(node, "node", None), Node):
        node = inner
    return node


async def find(ns: Namespace, path: str, who: Principal) -> Resource:
    """Return what a user may lease at a path: what is there, and what they may write. Raises ENOENT, EACCES, EINVAL."""
    whole = clean(path)
    if not whole:
        raise NineError(errno.EINVAL, "a lease is for a file or a directory, not for everything")
    node: Node = ns.root
    for name in whole.split("/")[1:]:
        node = await settle(node.walk(name, who))
        if isinstance(_shown(node), LeaseTree):  # who gives such a lease back would wait for their own word to be done
            raise NineError(errno.EINVAL, "a lease is not for leases")
    if who.scope is not None and not (within(whole, who.scope.path) and who.scope.ops & CHANGES):
        raise NineError(errno.EACCES, f"{whole}: the capability does not let you write there")
    stat = await settle(node.stat())
    if not may(who, stat.mode, stat.uid, stat.gid, WRITE):
        raise NineError(errno.EACCES, f"{whole}: only who may write there can lease it")
    return Resource(whole, key_of(node, whole))


def beside(ns: Namespace, key: Key) -> Callable[[Key], bool] | None:
    """Return what tells whether a lease is for the CPUs, memory or devices of a kernel, or all of it, where a file is the ctl of that kernel's life:
    that adds and removes them."""
    if key[:2] != (HERE, "kernels") or key[3:] != ("ctl",):
        return None
    items = ns.table.points.get(f"{KERNELS}/{key[2]}", ())
    addresses = {item.what for item in items if item.kind == "mount"}
    return lambda lease: lease[:1] == (THERE,) and lease[1] in addresses and lease[3:4] in MOVED
