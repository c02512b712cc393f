"""Post a 9P service of this program by name, for everybody who reaches the kernel's tree:
`async with post(ns, "k/k0/srv/mine", "unix!/run/mine")`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mk9p.client import Client

__all__ = ["post"]


@asynccontextmanager
async def post(ns: Client, path: str, address: str, *, keep: bool = False, perm: int = 0o600) -> AsyncIterator[None]:
    """Post what listens at a dial string that the kernel of `path` can dial; it is gone after the block, unless `keep`.

    Raises EEXIST if there is such a service, EINVAL for an address that cannot be dialled again. `perm` says who may see the address (r), and
    connect (rw).
    """
    async with await ns.create(path, perm, read=True) as file:
        await file.pwrite(f"{address}\n{'keep' if keep else ''}\n".encode(), 0)
        yield
