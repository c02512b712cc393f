"""Many kernels of one machine in one process: `python -m tests.etcd.kernels HOST PORT NAME…` serves one on each port from PORT on."""

import sys
from contextlib import AsyncExitStack

import trio

from mk9p.testing import serving_at
from mk9p.tree import Dir, Text


async def main(host: str, port: int, names: list[str]) -> None:
    async with AsyncExitStack() as stack:
        for number, name in enumerate(names):
            cpu = Dir({str(n): Dir({}) for n in range(2)})
            tree = Dir({"status": Text(f"name {name}\narch x86_64\n"), "cpu": cpu})
            await stack.enter_async_context(serving_at(f"tcp!{host}!{port + number}", tree))
        print("serving", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), sys.argv[3:])
