"""One lab for all tests of this folder: k0 is the host, k1 Debian's 6.1 under QEMU with two CPUs, k2 user-mode Linux; k3, Debian's 6.12, comes and
goes.

There are never more than three guests at once, so that two cores are enough.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from mk9p.errors import NineError
from mk9p.servers.kernels import backend
from tests.kernels.guests import BACKENDS, require
from tests.vm.lab_vm import ALL, PATIENCE, Shown, Vm, devices, lab_up, served, short_folder


@pytest.fixture(scope="session")
def guests() -> None:
    """Skip where guests cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("a lab needs root, for its network namespaces and mounts")
    require("qemu", "uml")
    require_kernel("qemu", "6.1")
    require_kernel("uml", "uml")


def require_kernel(kind: str, kernel: str) -> None:
    """Skip where a kernel cannot be had."""

    async def fetch() -> None:
        with trio.fail_after(4 * PATIENCE):  # the first time, it is downloaded
            await BACKENDS[kind].prepare(backend.Spec(name="k", kernel=kernel), report=print)

    try:
        trio.run(fetch)
    except NineError as error:
        pytest.skip(f"kernel {kernel} is not to be had: {error}")


@pytest.fixture
def home() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """Give a directory of the host that every user can come to."""
    path = Path(tempfile.mkdtemp(prefix="mk9p-fs-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@attrs.frozen
class Place:
    """Where the lab lies, and what is served to its guests beside it."""

    path: Path
    shown: dict[str, Shown]


@pytest.fixture(scope="session")
def place(guests: None) -> Iterator[Place]:
    with short_folder() as home, served(home, ["k1", "k3"]) as shown:
        yield Place(home, shown)


@pytest.fixture(scope="session")
def vm(place: Place) -> Iterator[Vm]:
    """Give the lab, up."""
    kernels: dict[str, dict[str, Any]] = {
        "k1": {
            "backend": "qemu",
            "kernel": "6.1",
            "cpus": 2,
            "memory": "768M",
            "device": devices(place.path, "k1"),
            **ALL,
        },
        "k2": {"backend": "uml", "kernel": "uml", "memory": "512M", **ALL},
    }
    with lab_up(place.path, kernels) as vm:
        yield vm


@pytest.fixture(scope="session")
def mounted(vm: Vm) -> str:
    """Give the place in k2 where v9fs has the namespace mounted."""
    vm.mount("k2", "/mnt/n")
    return "/mnt/n"
