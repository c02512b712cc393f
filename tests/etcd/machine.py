"""A machine that can die: `python -m tests.etcd.machine STORE FOLDER KERNEL TERM`. It is a composer and a kernel that is mounted there. With a TERM
it takes a lease of a CPU of another machine's kernel k0 for so many seconds, says `there`, and dies at once; with 0 it is there till it is killed."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import trio

from mk9p.testing import until
from tests.etcd.federated import answers, composer_at, kernel
from tests.lease.test_lease_tree import conversation, say


async def main(where: str, folder: str, name: str, term: int) -> None:
    async with composer_at(where) as made, kernel(Path(folder), name, made):
        full, known = f"{made.store.session.name}.{name}", made.far.full
        await until(lambda: full in known and known[full].said.up)  # all others hear of it too
        cpu = f"k/k0/cpu/{name[1:]}"
        if term:
            await until(partial(answers, made, cpu))
            async with conversation(made.client) as (ctl, _):
                await say(ctl, f"take /{cpu} for {term}")
                print("there", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        print("there", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    where, folder, name, seconds = sys.argv[1:]
    trio.run(main, where, folder, name, int(seconds))
