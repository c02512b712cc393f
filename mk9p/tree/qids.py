"""Where qid.path comes from: 64 bits that stay the same after a restart of the server.

v9fs makes the inode number from it and, in its cached modes, takes two files with one path for one file. So a path is never a counter or `hash()`:
* the path of a synthetic file comes from its place: a hash of its directory's path and its name;
* a conversation, which does not exist after a restart, has a random path: its number is used again, and is another conversation then;
* the path of another server's file comes from that server and its own path there. It is mapped into the same space: otherwise two kernels' files
  would become one.

That server may be hostile, and may work together with one of our clients, who sees what its paths become. So a hash with a secret key maps them:
nobody can aim at the path of a file that is not their own. Paths of places have the highest bit, and mapped paths do not: no luck is enough to
take the place of one of our files.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Final

__all__ = ["child"]

PLACE: Final = 1 << 63  # the bit that the paths of places have
ROOT: Final = PLACE | 0x6D6B_3970  # "mk9p"
KEPT: Final = 1 << 14  # mapped paths of one server: at most 2 MB, and a hash takes 1 us


@lru_cache(maxsize=65536)
def child(parent: int, name: str) -> int:
    """Return the path of the file `name` in the directory of path `parent`."""
    text = name.encode("utf-8", "surrogateescape")
    return PLACE | int.from_bytes(blake2b(text, digest_size=8, key=parent.to_bytes(8, "little")).digest(), "little")


class Foreign(dict[int, int]):
    """The paths of another server's files in our space: `foreign[path]`. The same key, of at most 64 bytes, gives the same paths.

    It is a dict of recently mapped paths, because the relay looks up one path for each message.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        super().__init__()
        self._key = key

    def __missing__(self, path: int) -> int:
        if len(self) >= KEPT:
            self.clear()
        digest = blake2b(path.to_bytes(8, "little"), digest_size=8, key=self._key).digest()
        mapped = self[path] = int.from_bytes(digest, "little") & ~PLACE
        return mapped
