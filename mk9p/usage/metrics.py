"""The command that gives figures to a monitoring system."""

import argparse
from typing import Final

from mk9p.usage.common import Checks, Parser, Parsers, parser_of


def _metrics(name: str) -> Parser:
    parser = parser_of(
        name, "Print what all kernels tell of themselves, in Prometheus's text format (docs/monitoring.md)."
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-o", "--output", metavar="FILE", help="replace this file: for node_exporter's textfile collector"
    )
    where.add_argument(
        "-l", "--listen", metavar="HOST:PORT", help="stay, and answer scrapers at http://HOST:PORT/metrics"
    )
    return parser


def _no_address(chosen: argparse.Namespace) -> str:
    if chosen.listen is None or chosen.listen.startswith("unix:"):
        return ""
    host, _, port = chosen.listen.rpartition(":")
    right = host and port.isascii() and port.isdigit() and int(port) < 65536
    return "" if right else f"-l {chosen.listen}: want HOST:PORT"


PARSERS: Final[Parsers] = {"metrics": _metrics}
CHECKS: Final[Checks] = {"metrics": _no_address}
