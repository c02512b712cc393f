"""The options of a v9fs mount: those that the kernel took (proc_mounts(5) shows them), what is wrong with them, and what to use instead."""

import os
import shlex
from collections.abc import Iterator, Sequence
from typing import Final

from mk9p.clients import v9fs
from mk9p.clients.doctor.judge import Finding
from mk9p.clients.mounts import Mounted, mounts
from mk9p.status import user_name

# fs/9p/v9fs.h from 6.4 on, which shows a number in hex; before, names
_CACHES: Final = {"none": 0, "readahead": 1, "mmap": 5, "loose": 15, "fscache": 0x8F}
_WRITEBACK: Final = 0x4
_LOOSE: Final = 0x8
_SLOW: Final = 65536  # an msize below costs more than a tenth of the bandwidth


def of_options(path: str, options: Sequence[str]) -> Iterator[Finding]:
    """Check the options of a mounted v9fs, as the kernel shows them."""
    took = dict(option.partition("=")[::2] for option in options)
    cache = _cache(took.get("cache", "none"))
    if cache & _LOOSE:
        yield Finding(
            path, "cache", f"cache={took['cache']} never asks again: changes at the server are not seen; use cache=none"
        )
    elif cache & _WRITEBACK:
        yield Finding(
            path,
            "cache",
            f"cache={took['cache']} writes later: a ctl's refusal comes at close or never; use cache=none",
        )
    msize = took.get("msize")
    if msize is not None and msize.isdecimal() and int(msize) < _SLOW:
        yield Finding(path, "msize", f"{msize} bytes a message is slow; msize={v9fs.MSIZE}, or what the server takes")
    if "noxattr" not in took:
        yield Finding(
            path, "noxattr", "each write asks for security.capability first: one or two messages more; noxattr"
        )
    access = took.get("access", "client")
    if access == "any":
        yield Finding(
            path,
            "access",
            "access=any: the server takes every user for the one who mounted; with access=client users are themselves",
        )
    elif access.isdecimal():
        yield Finding(
            path, "access", f"access={access}: only that user gets in; with access=client users are themselves"
        )
    if "noextend" in took or "version" in took:
        version = took.get("version", "9p2000")
        yield Finding(
            path,
            "version",
            f"version={version}: errors are words, owners are unknown; version=9p2000.L if the server can",
        )


def _cache(shown: str) -> int:
    try:
        return _CACHES[shown] if shown in _CACHES else int(shown, 16)
    except ValueError:
        return 0


def mount_of(path: str) -> Mounted | None:
    """Return the mount that a path of this kernel is in."""
    found = None
    for mount in mounts():
        within = path == mount.directory or path.startswith(mount.directory.rstrip("/") + "/")
        if within and (found is None or len(mount.directory) >= len(found.directory)):
            found = mount
    return found


def address_of(mount: Mounted) -> str | None:
    """Return the dial string of a v9fs mount's server, None where it cannot be dialled a second time."""
    took = dict(option.partition("=")[::2] for option in mount.options)
    match took.get("trans"):
        case "tcp":
            return f"tcp!{mount.source}!{took.get('port', '564')}"
        case "unix":
            return f"unix!{mount.source}"
    return None


def mount_line(address: str, directory: str = "DIR", *, aname: str = "") -> str:
    """Return the command that mounts an address on the running kernel with the right options."""
    plan = v9fs.plan(
        address,
        v9fs.Wish(aname=aname),
        me=user_name(os.geteuid()),
        release=os.uname().release,
        numeric=next(iter(v9fs.numeric_hosts(address)), None),
    )
    if plan.dialled:  # the kernel cannot dial it: it gets a descriptor
        return shlex.join(["mk9p", "mount", *(["--aname", aname] if aname else []), address, directory])
    return shlex.join(["mount", *plan.arguments(directory)])
