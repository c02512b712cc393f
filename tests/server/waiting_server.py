"""A server in a process of its own, whose memory can be measured: `python waiting_server.py PATH` serves a file that waits and one that does not."""

import sys

import trio

from mk9p.dial import listen
from mk9p.server import Server
from mk9p.tree import Ctl, Dir, Stream, Text


async def never() -> bytes:
    await trio.sleep_forever()
    raise AssertionError


async def main(path: str) -> None:
    said: list[str] = []
    server = Server(Dir({"events": Stream(never), "text": Text("x" * 4000), "ctl": Ctl({"say": said.append})}))
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        listener = await listen(f"unix!{path}")
        nursery.start_soon(server.listen, listener)
        print("ready", flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
