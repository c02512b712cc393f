"""Where qid.path comes from: 64 bits that stay the same when a server is restarted.

v9fs makes the inode number of it and, in its cached modes, takes two files of one path for one file. So a path is never a counter or `hash()`:
* a made-up file is told by its place: the path of its directory and its name, hashed;
* a conversation, which is no longer there after a restart, has a random one: its number is used again, and is another conversation then;
* a file of another server is told by that server and its own path there, mapped into the same space, or two kernels' files would become one.

That server may be hostile, and may work together with one of our clients, who sees what its paths become. So they are mapped by a hash with a secret
key: nobody can aim at the path of a file that is not their own. The paths of places have the highest bit, and mapped ones have not: no luck suffices
to take the place of one of ours.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Final

PLACE: Final = 1 << 63  # the bit that the paths of places have
ROOT: Final = PLACE | 0x6D6B_3970  # "mk9p"
KEPT: Final = 1 << 14  # mapped paths of one server: 2 MB at most, and a hash takes 1 us


@lru_cache(maxsize=65536)
def child(parent: int, name: str) -> int:
    """Return the path of the file `name` in the directory of path `parent`."""
    text = name.encode("utf-8", "surrogateescape")
    return PLACE | int.from_bytes(blake2b(text, digest_size=8, key=parent.to_bytes(8, "little")).digest(), "little")


class Foreign(dict[int, int]):
    """The paths of another server's files in our space: `foreign[path]`. The same key, of 64 bytes at most, gives the same paths.

    It is a dict of what was mapped lately, since the relay looks up one path a message.
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
