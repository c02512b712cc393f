"""A server whose replies are odd, as a program: `saying_anything.py DIAL SEED DIALECT OFTEN`. Told to end, it writes how many replies were odd."""

import signal
import sys

import trio

from mk9p.testing import odd
from mk9p.wire import Dialect


async def main(address: str, seed: int, dialect: Dialect, often: int) -> None:
    async with odd(address, seed, dialect=dialect, often=often, silent=False) as server:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            print("listening", flush=True)
            await anext(aiter(signals))
    print(server.replies, server.odd)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), Dialect(int(sys.argv[3])), int(sys.argv[4]))
