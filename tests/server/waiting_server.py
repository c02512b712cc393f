"""A server in a process of its own, whose memory can be measured: `python waiting_server.py PATH` serves a file that waits and one that does not."""

import sys

import trio

from mk9p.testing import serving_at
from mk9p.tree import Ctl, Dir, Stream, Text


async def main(path: str) -> None:
    tree = Dir({"events": Stream(trio.sleep_forever), "text": Text("x" * 4000), "ctl": Ctl({"say": lambda word: None})})
    async with serving_at(f"unix!{path}", tree):
        print("ready", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
