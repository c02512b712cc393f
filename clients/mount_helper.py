"""`mount.mk9p ADDR DIR [-fnsv] [-o OPTIONS]`: what mount(8) runs for the type mk9p, by hand, for a line of /etc/fstab, and for systemd's mount units.

    unix!/run/mk9p/ns  /n  mk9p  noauto,x-systemd.automount,x-systemd.requires=mk9p-compose.service  0  0
    tcp!box!564        /b  mk9p  ro,_netdev,uname=glenda  0  0

mount(8) keeps the options for itself that are its own (noauto, x-*). Those of `mk9p mount` have v9fs's names: uname, aname, cache, msize; v9fs and
fuse choose the way. Everything is mounted nosuid and nodev. An option `user` in fstab lets every user mount: mount(8) then runs this as that user,
so the mount is FUSE. The status is that of mount(8): 1 wrong use, 2 this machine, 32 the mount failed.
"""

import sys
from collections.abc import Sequence
from typing import Final

from mk9p.clients.mount import mount_main
from mk9p.clients.mount_options import words
from mk9p.clients.mounts import full_path, mounted_at
from mk9p.clients.v9fs import numeric_hosts
from mk9p.dial import parse
from mk9p.errors import NineError
from mk9p.stdio import complain, prepare

WRONG_USE: Final = 1
SYSTEM: Final = 2
FAILED: Final = 32
USAGE: Final = "usage: mount.mk9p ADDR DIR [-fnsv] [-o OPTIONS]"


def chosen(arguments: Sequence[str]) -> tuple[str, str, list[str], bool]:
    """Return the address, the directory, the words of `mk9p mount` and whether to mount at all. Raises ValueError for wrong use."""
    plain, options, flags = [], "", ""
    given = iter(arguments)
    for word in given:
        if word in ("-o", "-t"):
            value = next(given, None)
            if value is None:
                raise ValueError(f"{word} wants a value; {USAGE}")
            options += f",{value}" if word == "-o" else ""
        elif word.startswith("-") and len(word) > 1:
            if not set(word[1:]) <= set("fnsvw"):
                raise ValueError(f"{word} is not known; {USAGE}")
            flags += word[1:]
        else:
            plain.append(word)
    if len(plain) != 2:
        raise ValueError(USAGE)
    address, directory = plain
    return (
        address,
        directory,
        [*words(options, sloppy="s" in flags), *(["-v"] if "v" in flags else [])],
        "f" not in flags,
    )


def already(address: str, directory: str) -> bool:
    """Tell whether this very address is mounted there: `mount -a` comes again, since v9fs shows the kernel's own words for it, and not ours."""
    there = mounted_at(full_path(directory))
    return there is not None and there.ours and there.source in (address, parse(address).rest, *numeric_hosts(address))


def main(arguments: Sequence[str] | None = None) -> int:
    """Mount, and return mount(8)'s exit status."""
    if arguments is None:
        arguments = sys.argv[1:]
        prepare()
    try:
        address, directory, more, really = chosen(arguments)
    except ValueError as error:
        complain(f"mount.mk9p: {error}")
        return WRONG_USE
    if not really:
        return 0
    try:
        if already(address, directory):
            return 0
        return mount_main(["mount", *more, address, directory])
    except SystemExit:  # from argparse, which has said why
        return WRONG_USE
    except NineError as error:
        complain(f"mount.mk9p: {error}")
        return FAILED
    except OSError as error:
        complain(f"mount.mk9p: {error}")
        return SYSTEM
