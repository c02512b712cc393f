"""The live page."""

from typing import Final

from mk9p.usage.common import Checks, Parser, Parsers, parser_of

PAGE: Final = "127.0.0.1:9564"


def _web(name: str) -> Parser:
    parser = parser_of(
        name,
        "Serve the namespace as a live page for a browser of this machine: kernels, CPUs, memory, devices, mounts, traffic, events. "
        "It prints the URL, which has a token, and ends with Ctrl-C.",
    )
    parser.add_argument(
        "-l", metavar="HOST:PORT", dest="listen", default=PAGE, help=f"where to listen, on the loopback, else {PAGE}"
    )
    parser.add_argument(
        "--write", action="store_true", help="let the page write words to ctl files; without it, it is read-only"
    )
    parser.add_argument(
        "--url",
        metavar="FILE",
        help="write the URL into a file that only this user can read, for a service; without it, it is printed",
    )
    return parser


PARSERS: Final[Parsers] = {"web": _web}
CHECKS: Final[Checks] = {}
