"""`mk9p top`: all kernels of the namespace as they are now, their requests, and their busiest processes. It uses the files, and nothing else.

Every interval shows what is known (top_board.py): a slow or silent kernel holds up nothing. Its row then has the age of its figures, and its
processes are left out. At a terminal it takes keys (top_screen.py).
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from typing import Any, Final

import trio

from mk9p.client import Client
from mk9p.clients.common import say, with_namespace
from mk9p.clients.top_board import KERNEL, PATIENCE, PROCESS, Board
from mk9p.clients.top_table import columns
from mk9p.usage import parsed

# seconds that the first of several screens waits for kernels beyond its interval: a rate needs two looks
FIRST: Final = 2.0
CLEAR: Final = "\x1b[H\x1b[J"


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p top`."""
    chosen = parsed(arguments)

    async def work(ns: Client) -> int:
        board = Board(ns, chosen.kernels, chosen.delay)
        shown = 0
        async with trio.open_nursery() as nursery:
            board.nursery = nursery
            await board.find()
            due = trio.current_time() + chosen.delay
            await trio.sleep_until(due)
            with trio.move_on_at(due + (PATIENCE if chosen.n == 1 else FIRST)):
                await board.complete()
            if _by_hand(chosen):
                from mk9p.clients.top_screen import show as show_by_keys

                status = await show_by_keys(board, chosen.delay)
                nursery.cancel_scope.cancel()
                return status
            while True:
                show(chosen, board.rows(), board.processes()[: chosen.processes], first=not shown)
                shown += 1
                if shown == chosen.n:
                    break
                due = max(due + chosen.delay, trio.current_time())
                await trio.sleep_until(due)
                await board.find()
            nursery.cancel_scope.cancel()
        return 0

    return with_namespace(work)


def _by_hand(chosen: argparse.Namespace) -> bool:
    """Tell whether somebody sits at a terminal, and can press keys; without rich, an extra, they see screen after screen instead."""
    if chosen.json or chosen.n or not (sys.stdout.isatty() and sys.stdin.isatty()):
        return False
    from importlib.util import find_spec

    if find_spec("rich") is None:
        say("top has no keys here: they need rich (pip install 'mk9p[terminal]')")
        return False
    return True


def show(
    chosen: argparse.Namespace, kernels: list[dict[str, Any]], busiest: list[dict[str, Any]], *, first: bool
) -> None:
    """Print one screen: over the last one on a terminal, after it elsewhere."""
    if chosen.json:
        import json

        print(json.dumps({"kernels": kernels, "processes": busiest}), flush=True)
        return
    lines = [*columns(KERNEL, kernels), "", *columns(PROCESS, busiest)]
    if sys.stdout.isatty() and chosen.n != 1:
        width, height = shutil.get_terminal_size()
        print(CLEAR + "\n".join(line[:width] for line in lines[: height - 1]), flush=True)
    else:
        print("" if first else "\n", *(line + "\n" for line in lines), sep="", end="", flush=True)
