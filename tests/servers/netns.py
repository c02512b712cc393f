"""Network namespaces of the tests' own: two, with a wire between them; nothing that is done there touches this machine's network."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import attrs
import pytest

from mk9p.testing import child


def run(*words: str, check: bool = True) -> str:
    return subprocess.run(words, check=check, capture_output=True, text=True).stdout


@attrs.frozen
class Wire:
    """The namespaces `near` (10.77.0.1) and `far` (10.77.0.2), each with one end of a veth pair, called `wire`."""

    near: str
    far: str

    def ip(self, where: str, *words: str) -> str:
        return run("ip", "-n", where, *words)

    def inside(self, where: str, *words: str) -> list[str]:
        """Return a command that runs in a namespace."""
        return ["ip", "netns", "exec", where, *words]


@contextmanager
def wire() -> Iterator[Wire]:
    """Make the two namespaces; they are gone afterwards, and all that is in them."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    made = Wire(f"mk9p-{os.getpid()}-near", f"mk9p-{os.getpid()}-far")
    try:
        for name in (made.near, made.far):
            done = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
        made.ip(made.near, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", made.far)
        for name, address in ((made.near, "10.77.0.1"), (made.far, "10.77.0.2")):
            made.ip(name, "addr", "add", f"{address}/24", "dev", "wire")
            made.ip(name, "link", "set", "wire", "up")
            made.ip(name, "link", "set", "lo", "up")
        yield made
    finally:
        for name in (made.near, made.far):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@contextmanager
def serving(made: Wire, where: str, folder: Path, *prefix: str) -> Iterator[str]:
    """Run `mk9p serve net` in a namespace, after a prefix of its command line, and give its address."""
    address = f"unix!{folder}/{where}"
    command = made.inside(where, *prefix, sys.executable, "-m", "mk9p", "serve", "-l", address, "net")
    with child(command, "listening", grace=20):
        yield address


def program(command: list[str]) -> AbstractContextManager[subprocess.Popen[str]]:
    """Run a program that is talked to in lines."""
    return child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1)
