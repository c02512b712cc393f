"""Where qid.path comes from: 64 bits that stay the same when a server is restarted.

v9fs makes the inode number of it and, in its cached modes, takes two files of one path for one file. So a path is never a counter or `hash()`:
* a made-up file is told by its place: the path of its directory and its name, hashed;
* a file of another server is told by that server and its own path there, mapped into the same space, or two kernels' files would become one.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Final

ROOT: Final = 0x6D6B_3970  # "mk9p"


@lru_cache(maxsize=65536)
def child(parent: int, name: str) -> int:
    """Return the path of the file `name` in the directory of path `parent`."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8, key=parent.to_bytes(8, "little")).digest(), "little")


def foreign(server: int, path: int) -> int:
    """Return in our space the path that another server, itself told by 64 random-looking bits, gives to a file of its own.

    An exclusive or keeps a server's files apart for certain, two servers' as well as 64 bits can, and costs nothing where it is done a million times.
    """
    return server ^ path
