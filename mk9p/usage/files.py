"""The commands on files."""

from typing import Final

from mk9p.usage.common import Checks, Parser, Parsers, count, number, parser_of

_FILES: Final = {
    "ls": "List directories, the top one if none is named; a directory's name ends with /.",
    "cat": "Show files. A file that waits, such as events, is followed until it ends.",
    "write": "Write a line, or the standard input, into a file.",
    "stat": "Show what files are: as `ls -l`, then the qid's type, version and path.",
    "tree": "List a whole tree, the namespace's if no PATH is named.",
    "cp": "Copy files to another name, or into a directory.",
    "find": "List the paths below directories, as find(1): PATH may be a pattern.",
    "edit": "Change a file with $VISUAL, else $EDITOR, else vi. It is written only if nobody else has changed it meanwhile.",
    "tail": "Show the last lines of a file that waits, such as events, and then what comes.",
}


def _of_files(name: str) -> Parser:
    which = "The tree is that of `mk9p -a DIAL COMMAND`, else that of $MK9P, else the namespace of `mk9p up`."
    return parser_of(name, _FILES[name], epilog=which)


def _ls(name: str) -> Parser:
    parser = _of_files(name)
    parser.add_argument("-l", "--long", action="store_true", help="modes, owners, lengths and times too")
    parser.add_argument("--json", action="store_true", help="as JSON: for scripts")
    parser.add_argument("paths", metavar="PATH", nargs="*", default=["/"])
    return parser


def _cat(name: str) -> Parser:
    parser = _of_files(name)
    parser.add_argument("paths", metavar="PATH", nargs="+")
    return parser


def _write(name: str) -> Parser:
    parser = _of_files(name)
    parser.add_argument("path", metavar="PATH")
    parser.add_argument("words", metavar="TEXT", nargs="*", help="the line to write; without it, the standard input")
    return parser


def _stat(name: str) -> Parser:
    parser = _of_files(name)
    parser.add_argument("--json", action="store_true", help="as JSON: for scripts")
    parser.add_argument("paths", metavar="PATH", nargs="+")
    return parser


def _tree(name: str) -> Parser:
    parser = _of_files(name)
    parser.add_argument("-d", "--depth", type=number, default=3, help="how deep to go (3)")
    parser.add_argument("--json", action="store_true", help="as JSON: for scripts")
    parser.add_argument("path", metavar="PATH", nargs="?", default="/")
    return parser


def _cp(name: str) -> Parser:
    parser = _of_files(name)
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="copy directories too, with their modes and links"
    )
    parser.add_argument("sources", metavar="SOURCE", nargs="+")
    parser.add_argument(
        "destination", metavar="DESTINATION", help=":PATH is in the namespace, other paths are files of this machine"
    )
    return parser


def _tail(name: str) -> Parser:
    parser = _of_files(name)
    parser.add_argument(
        "-n", type=count, default=10, metavar="LINES", help="how many of the kept lines to show first (10); 0: all"
    )
    parser.add_argument("path", metavar="PATH")
    return parser


def _find(name: str) -> Parser:
    parser = _of_files(name)
    parser.add_argument("-name", metavar="PATTERN", help="only files with such names; quote it: 'v*'")
    parser.add_argument("-type", choices=("d", "f", "l"), help="only directories, files, or links")
    parser.add_argument("-maxdepth", dest="depth", type=count, metavar="N", help="how deep to go; else to the end")
    parser.add_argument(
        "-print0", dest="zero", action="store_true", help="end each path with a zero byte: for xargs -0"
    )
    parser.add_argument("--json", action="store_true", help="each path and its kind as a line of JSON: for scripts")
    parser.add_argument("paths", metavar="PATH", nargs="*", default=["/"])
    return parser


def _edit(name: str) -> Parser:
    parser = _of_files(name)
    parser.add_argument("path", metavar="PATH")
    return parser


PARSERS: Final[Parsers] = {
    "ls": _ls,
    "cat": _cat,
    "write": _write,
    "stat": _stat,
    "tree": _tree,
    "cp": _cp,
    "tail": _tail,
    "find": _find,
    "edit": _edit,
}
CHECKS: Final[Checks] = {}
