"""The commands on keys: certificates, contexts, logins."""

import argparse
from typing import Final

from mk9p.usage.common import Checks, Parser, Parsers, parser_of, reads, take_keys


@reads("days, above 0 and at most 36500")
def _days(text: str) -> float:
    """Read how long something holds."""
    value = float(text)
    if not 0 < value <= 36500:
        raise ValueError(text)
    return value


def _ca(name: str) -> Parser:
    parser = parser_of(name, "Make certificates for TLS: a small authority of your own, in a directory.")
    words = parser.add_subparsers(dest="word", metavar="WORD", required=True)

    def word(name: str, what: str) -> Parser:
        made = words.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        made.add_argument("--dir", metavar="DIR", help="the authority (~/.config/mk9p/ca)")
        return made

    init = word("init", "make a new authority")
    init.add_argument("--name", default="mk9p", help="its name, in every certificate (%(default)s)")
    init.add_argument("--days", type=_days, default=3650, help="how long it is believed (%(default)s)")
    issue = word("issue", "sign a certificate, into NAME.pem and NAME.key")
    issue.add_argument(
        "--host",
        metavar="HOST",
        action="append",
        default=[],
        help="for a server that is dialled by this name or address (again for more); without, for a client",
    )
    issue.add_argument("--days", type=_days, default=365, help="how long it is believed (%(default)s)")
    issue.add_argument("--renew", action="store_true", help="a new certificate for the key that is there")
    issue.add_argument("-o", "--into", metavar="DIR", default=".", help="where to put the two files (.)")
    issue.add_argument("name", metavar="NAME", help="who it is: servers see cert:NAME")
    listed = word("list", "list what was issued: number, name, until when, state, hosts")
    listed.add_argument("--json", action="store_true", help="as JSON: for scripts")
    revoke = word("revoke", "revoke the certificates of a name, or the one of a number")
    revoke.add_argument("which", metavar="NAME|NUMBER")
    return parser


def _context(name: str) -> Parser:
    parser = parser_of(name, "Namespaces with their keys, by name: `mk9p -c NAME ls`.")
    words = parser.add_subparsers(dest="word", metavar="WORD", required=True)
    add = words.add_parser("add", help="keep a context")
    _kept(add)
    add.add_argument("name", metavar="NAME")
    add.add_argument("address", metavar="ADDR", help="its dial string")
    use = words.add_parser("use", help="use it where nothing else is named")
    use.add_argument("name", metavar="NAME", nargs="?", default="", help="without it none is in use")
    listed = words.add_parser("list", help="list them; the one in use has a star")
    listed.add_argument("--json", action="store_true", help="as JSON: for scripts")
    remove = words.add_parser("remove", help="forget one")
    remove.add_argument("name", metavar="NAME")
    return parser


def _kept(parser: Parser) -> None:
    take_keys(parser)
    parser.add_argument("--cap", metavar="TEXT", default="", help="a capability (`mk9p grant`); @FILE: from a file")


def _login(name: str) -> Parser:
    parser = parser_of(
        name, "Try to come in, tell who you are there, and keep it as a context that is in use from then on."
    )
    _kept(parser)
    parser.add_argument("--name", metavar="NAME", default="", help="the context's name; by default the host's")
    parser.add_argument(
        "address", metavar="ADDR", nargs="?", help="a dial string; by default that of the context in use"
    )
    return parser


def _bad_cap(chosen: argparse.Namespace) -> str:
    cap = getattr(chosen, "cap", "")
    return "--cap: want TEXT or @FILE" if cap == "@" else ""


PARSERS: Final[Parsers] = {"ca": _ca, "context": _context, "login": _login}
CHECKS: Final[Checks] = {"context": _bad_cap, "login": _bad_cap}
