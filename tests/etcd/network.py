"""Hosts in network namespaces of the tests' own, on a switch that can part them: `with network(3) as net: net.part([0, 1], [2])`."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs
import pytest


def run(*words: str) -> str:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


@attrs.frozen
class Network:
    """Hosts 10.78.0.1, …, each in a namespace of its own, and the namespace of the switch."""

    hosts: list[str]
    switch: str

    def address(self, host: int) -> str:
        return f"10.78.0.{host + 1}"

    def inside(self, host: int) -> list[str]:
        """Return what a command begins with that runs at a host."""
        return ["ip", "netns", "exec", self.hosts[host]]

    def part(self, *groups: Sequence[int]) -> None:
        """Let hosts reach only those of their group."""
        for number, group in enumerate(groups):
            for host in group:
                run("ip", "-n", self.switch, "link", "set", f"port{host}", "master", f"br{number}")

    def heal(self) -> None:
        self.part(range(len(self.hosts)))


@contextmanager
def network(count: int, groups: int = 2) -> Iterator[Network]:
    """Make the namespaces; they are gone afterwards."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    base = f"mk9p-{os.getpid()}-e"
    made = Network([f"{base}{n}" for n in range(count)], f"{base}sw")
    try:
        for name in (*made.hosts, made.switch):
            run("ip", "netns", "add", name)
        for number in range(groups):
            run("ip", "-n", made.switch, "link", "add", f"br{number}", "type", "bridge")
            run("ip", "-n", made.switch, "link", "set", f"br{number}", "up")
        for n, name in enumerate(made.hosts):
            run(
                "ip", "-n", name, "link", "add", "eth", "type", "veth", "peer", "name", f"port{n}", "netns", made.switch
            )
            run("ip", "-n", name, "addr", "add", f"{made.address(n)}/24", "dev", "eth")
            for link in ("eth", "lo"):
                run("ip", "-n", name, "link", "set", link, "up")
            run("ip", "-n", made.switch, "link", "set", f"port{n}", "up")
        made.heal()
        yield made
    finally:
        for name in (*made.hosts, made.switch):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
