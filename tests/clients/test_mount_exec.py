"""exec! and `cmd` of a program that lies in a mount: of the tree that the process itself serves, and of a server that never answers.

execve(2) waits for the file system then, and nothing else may. The process is one of its own, for if it does wait it never ends.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mk9p.testing import child
from tests.clients.mounting import PATIENCE, Place, place

SCRIPT = r"""
import os, sys, trio
from mk9p.dial import dial
from mk9p.testing import serving_at, child
from mk9p.tree import Dir, Stream, Text
from mk9p.servers.cmd.spawn import Spec, spawn

class Never:
    async def receive(self):
        print("asked", flush=True)
        await trio.sleep_forever()
    def send(self, data): pass
    def close(self): pass

async def dialled(program):
    link = await dial(f"exec!{program}")
    await link.wait_readable()
    buf = memoryview(bytearray(99))
    print(bytes(buf[:link.recv_into(buf)]).decode(), end="")
    link.close()

async def spawned(program):
    out, end = os.pipe()
    pid, pidfd = await spawn(Spec((program,), {}, "/", (0, end, 2)))
    os.close(end)
    await trio.lowlevel.wait_readable(out)
    print(os.read(out, 99).decode(), end="")
    await trio.lowlevel.wait_readable(pidfd)
    os.waitpid(pid, 0)

async def main():
    tree = {"prog": Text("#!/bin/sh\necho hello\n", mode=0o755), "never": Stream(per_open=lambda how: Never(), mode=0o755)}
    async with serving_at(sys.argv[1], Dir(tree)):
        print("listening", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        with trio.move_on_after(float(sys.argv[3])) as scope:
            await {"dialled": dialled, "spawned": spawned}[sys.argv[4]](sys.argv[2])
        print("given up" if scope.cancelled_caught else "done")

trio.run(main)
print("ended")
"""


@contextmanager
def serving(place: Place, program: str, seconds: float, how: str) -> Iterator[subprocess.Popen[str]]:
    """Start the process, and mount what it serves; it starts the program at the first line of its input."""
    place.address = f"unix!{place.top}/s"
    words = [sys.executable, "-c", SCRIPT, place.address, f"{place.dir}/{program}", str(seconds), how]
    with child(words, "listening", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        place.mount()
        yield process


@pytest.fixture
def there() -> Iterator[Place]:
    with place() as made:
        yield made


@pytest.mark.parametrize("how", ["dialled", "spawned"])
def test_a_program_that_the_process_itself_serves(there: Place, how: str) -> None:
    with serving(there, "prog", PATIENCE, how) as process:
        said, _ = process.communicate("\n", timeout=PATIENCE)
        assert (process.returncode, said) == (0, "hello\ndone\nended\n")


@pytest.mark.parametrize("how", ["dialled", "spawned"])
def test_a_program_whose_file_system_never_answers_is_given_up(there: Place, how: str) -> None:
    with serving(there, "never", 1, how) as process:
        said, _ = process.communicate("\n", timeout=PATIENCE)
        assert (process.returncode, said) == (0, "asked\ngiven up\nended\n")
