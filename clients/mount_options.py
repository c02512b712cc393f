"""The options of a mount as mount(8) gives them, for `mount.mk9p` and for `mk9p mount -o`."""

from collections.abc import Iterator
from typing import Final

# options of ours and the words of `mk9p mount`; those with a value are in _VALUES
_FLAGS: Final = {
    "ro": ["--readonly"],
    "xattr": ["--xattr"],
    "noexec": ["--noexec"],
    "v9fs": ["--v9fs"],
    "fuse": ["--fuse"],
}
_VALUES: Final = {
    "uname": "--user",
    "aname": "--aname",
    "cap": "--cap",
    "cache": "--cache",
    "msize": "--msize",
    "ca": "--ca",
    "cert": "--cert",
    "key": "--key",
}
# what mount(8) and systemd understand themselves, and what holds for every mount of ours anyway
_OTHERS: Final = frozenset(
    (
        *(
            "defaults",
            "auto",
            "noauto",
            "nofail",
            "_netdev",
            "user",
            "nouser",
            "users",
            "group",
            "owner",
            "rw",
            "exec",
            "nosuid",
            "nodev",
        ),
        *(
            "sync",
            "async",
            "dirsync",
            "atime",
            "noatime",
            "diratime",
            "nodiratime",
            "relatime",
            "norelatime",
            "strictatime",
            "nostrictatime",
        ),
        *("lazytime", "nolazytime", "iversion", "noiversion", "mand", "nomand", "silent", "loud"),
    )
)


def words(options: str, *, sloppy: bool = False) -> list[str]:
    """Return the words of `mk9p mount` for mount(8)'s options. Raises ValueError for one that is not known, unless `sloppy`."""
    return [word for option in options.split(",") if option for word in _words(option, sloppy)]


def _words(option: str, sloppy: bool) -> Iterator[str]:
    key, equals, value = option.partition("=")
    if key in _VALUES and value:
        yield from (_VALUES[key], value)
    elif key in _FLAGS and not equals:
        yield from _FLAGS[key]
    elif key in ("suid", "dev"):
        raise ValueError(f"{key}: everything is mounted nosuid and nodev: another machine's files get no rights here")
    elif key not in _OTHERS and not key.startswith(("x-", "user=", "comment=")) and not sloppy:
        raise ValueError(f"unknown option {option!r}; there are: {' '.join([*_FLAGS, *(f'{v}=' for v in _VALUES)])}")
