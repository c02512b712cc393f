"""The daemons, mounts of them, and the commands that show something of them."""

import argparse
import sys
from typing import Final, NoReturn

from mk9p.usage.common import (
    BOUNDS,
    CACHES,
    EACH,
    LIMITS,
    MSIZE,
    NAMESPACE,
    SERVED,
    SKIPPED,
    TRACED,
    Checks,
    Parser,
    Parsers,
    number,
    parser_of,
    take_keys,
)
from mk9p.usage.config import Configured

LONGEST: Final = 86400  # seconds that a request may wait for a server: as in the namespace (compose/table.py)


def _mount(name: str) -> Parser:
    parser = parser_of(name)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--v9fs", action="store_true", help="use only the kernel's own client")
    kind.add_argument("--fuse", action="store_true", help="use only FUSE")
    parser.add_argument(
        "--user", metavar="NAME", help="the user name for the server, whoever asks; by default each user has their own"
    )
    parser.add_argument("--aname", default="", help="the tree to attach to")
    parser.add_argument(
        "--cap",
        metavar="FILE",
        help="a file with a capability (mk9p grant), which no other user can read; else $MK9P_CAP, without DIAL",
    )
    parser.add_argument(
        "-o",
        metavar="OPTIONS",
        dest="options",
        action="append",
        help="the same as mount(8) says it: cap=FILE,ro,cache=loose",
    )
    parser.add_argument(
        "--cache",
        metavar="MODE",
        help=" ".join(CACHES) + " (v9fs: none); FUSE: none keeps nothing, all others, and no word, what is stored",
    )
    parser.add_argument(
        "-w",
        "--wait",
        type=number,
        metavar="SECONDS",
        default=0,
        help="outlive the server: requests wait so long for it, and files that were open are open again when it is back",
    )
    parser.add_argument("--readonly", action="store_true", help="refuse every change")
    parser.add_argument("--noexec", action="store_true", help="run no program that is there")
    parser.add_argument("--xattr", action="store_true", help="ask for extended attributes, which stored files have")
    parser.add_argument(
        "--msize", type=number, metavar="BYTES", default=MSIZE, help="v9fs: the largest message (%(default)s)"
    )
    parser.add_argument("--foreground", action="store_true", help="FUSE: do not return before it is unmounted")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the mount command")
    take_keys(parser)
    parser.add_argument("dial", metavar="DIAL", nargs="?", help=f"what to mount; else $MK9P, else {NAMESPACE}")
    parser.add_argument("dir", metavar="DIR")
    return parser


def _no_wait(seconds: int, option: str) -> str:
    return "" if 0 <= seconds <= LONGEST else f"{option} {seconds}: want 0 to {LONGEST} seconds"


def _no_mount(chosen: argparse.Namespace) -> str:
    if said := _no_wait(chosen.wait, "-w"):
        return said
    return "" if chosen.cache in (None, *CACHES) else f"unknown cache {chosen.cache!r}: there are {' '.join(CACHES)}"


def _umount(name: str) -> Parser:
    parser = parser_of(name)
    parser.add_argument("-l", "--lazy", action="store_true", help="detach it now, even if it is in use")
    parser.add_argument("dir", metavar="DIR")
    return parser


def _daemon(name: str, default: str) -> Parser:
    """Return the parser of the options that `serve` and `compose` have in common."""
    parser = Configured(prog=f"mk9p {name}")
    parser.add_argument("--config", metavar="FILE", help="a file of these options, in TOML (docs/installing.md)")
    parser.add_argument(
        "-l", metavar="DIAL", action="append", dest="listen", help=f"where to listen (again for more); else {default}"
    )
    parser.add_argument(
        "--trust", action="store_true", help="believe the user names that come over tcp and vsock: for private links"
    )
    parser.add_argument(
        "--from", metavar="HOST", dest="come_from", help="admit only this host over tcp and vsock, for example 10.0.2.2"
    )
    parser.add_argument("--readonly", action="store_true", help="refuse every change")
    parser.add_argument("--policy", metavar="FILE", help="rules by path: who may do what (docs/security.md)")
    parser.add_argument(
        "--audit",
        metavar="FILE|journal",
        action="append",
        default=[],
        help="write auth/log there too, to a file that is rotated or to systemd's journal (again for more)",
    )
    parser.add_argument(
        "--limit",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help=f"what one client, or all, may use (again for more): {LIMITS}",
    )
    parser.add_argument("-v", "--verbose", action="count", default=0, help="log connections; twice: more")
    take_keys(parser)
    return parser


def _serve(name: str) -> Parser:
    parser = _daemon(name, SERVED)
    parser.add_argument(
        "specs",
        metavar="NAME[:ARG][?OPTION=VALUE]",
        nargs="*",
        help="resource servers; by default all that this kernel has",
    )
    return parser


def _compose(name: str) -> Parser:
    parser = _daemon(name, NAMESPACE)
    parser.add_argument(
        "--kernels",
        metavar="DIR|DIAL",
        help="serve kernels/ too, with its sockets in DIR (made now, removed at the end); or that of `mk9p serve 'kernels?run=DIR'` at DIAL, whose"
        " kernels outlive the composer",
    )
    parser.add_argument(
        "--wait",
        type=number,
        metavar="SECONDS",
        default=0,
        help="requests to the kernels of kernels/ wait so long for one that is down; `mount -w` says it for others",
    )
    parser.add_argument(
        "--state",
        metavar="FILE",
        help="keep the mount table there, and start again from it; then FILE counts only the first time",
    )
    parser.add_argument(
        "--store",
        metavar="FILE|DIAL",
        help="where leases and the registry are kept: a file, else in the state directory; or etcd!HOST:PORT[,HOST:PORT...][?OPTION=VALUE&...], for"
        " composers of several machines (mk9p help lease)",
    )
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help="what to mount, in the words of namespace(6); - is the standard input"
    )
    return parser


def _trace(name: str) -> Parser:
    parser = parser_of(name, "show the messages between clients and a server")
    parser.add_argument("-l", metavar="DIAL", dest="listen", default=TRACED, help=f"where to listen; else {TRACED}")
    parser.add_argument("--pcap", metavar="FILE", help="write the messages as a capture, for Wireshark")
    parser.add_argument("--trust", action="store_true", help="listen where others can dial, who then act as this user")
    parser.add_argument("address", metavar="ADDR", help="the dial string of the server")
    return parser


def _doctor(name: str) -> Parser:
    parser = parser_of(name, "find what Linux's v9fs stumbles over in a tree")
    parser.add_argument("where", metavar="ADDR|PATH", nargs="?", help="a dial string, or a directory of this kernel")
    parser.add_argument("--write", action="store_true", help="truncate writable files of length 0 too, as `>` does")
    parser.add_argument("--all", action="store_true", help=f"show all findings of each kind, not only {EACH}")
    for option, what in (
        ("depth", "how deep to go (%(default)s)"),
        ("files", "how many files to look at (%(default)s)"),
        ("bytes", "how many bytes of a file to read; of a longer file only the end"),
    ):
        parser.add_argument(f"--{option}", type=number, default=BOUNDS[option], help=what)
    parser.add_argument(
        "--skip",
        metavar="NAME",
        action="append",
        default=[],
        help=f"files not to open, in addition to {' '.join(SKIPPED)}",
    )
    parser.add_argument("--aname", default="", help="the tree to ask the server for")
    parser.add_argument("--version", default="9P2000.L", help="the dialect to use (%(default)s)")
    return parser


class _Brief(Parser):
    """Reports wrong use by the usage alone, which says enough."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2)


def _help(name: str) -> Parser:
    parser = _Brief(
        prog=f"mk9p {name}", usage="mk9p help [NAME]", description="Show a page of the manual, or the names of all."
    )
    parser.add_argument("page", metavar="NAME", nargs="?", help="a resource server")
    return parser


def _new_server(name: str) -> Parser:
    parser = _Brief(
        prog=f"mk9p {name}",
        usage="mk9p new-server NAME [DIR]",
        description="Make the package of a new resource server.",
    )
    parser.add_argument("server", metavar="NAME", help="the server's name")
    parser.add_argument("folder", metavar="DIR", nargs="?", help="where to make it (mk9p-NAME)")
    return parser


PARSERS: Final[Parsers] = {
    "mount": _mount,
    "umount": _umount,
    "serve": _serve,
    "compose": _compose,
    "trace": _trace,
    "doctor": _doctor,
    "help": _help,
    "new-server": _new_server,
}
CHECKS: Final[Checks] = {"compose": lambda chosen: _no_wait(chosen.wait, "--wait"), "mount": _no_mount}
