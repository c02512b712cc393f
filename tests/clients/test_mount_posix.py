"""POSIX's cases and an exerciser after fsx (tests/vm) on a FUSE mount of a directory of the host. What fails is in docs/fuse.md, and fails indeed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.mounting import Place, exported

TOP = Path(__file__).parents[2]
HANG = 540.0  # s: ten times what it takes on a quiet machine

ALWAYS = {"open/O_TMPFILE", "mknod/device", "chown/own-group", "access/group", "names/not-utf-8"}
UNMAPPED = {"mmap/shared-read", "mmap/shared-write"}


@pytest.fixture(params=["none", "mmap"])
def there(request: pytest.FixtureRequest) -> Iterator[Place]:
    with exported("--xattr", "--cache", request.param) as made:
        yield made


def test_cases_of_posix(there: Place) -> None:
    where = there.dir / "p"
    where.mkdir(mode=0o777)
    done = subprocess.run(
        [sys.executable, "-B", "-m", "tests.vm.posix_cases", where],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.stderr == ""
    lines = done.stdout.split("\n")
    failed = {line.split(" ")[1].rstrip(":"): line for line in lines if line.startswith("FAIL")}
    assert sum(line.startswith("ok ") for line in lines) > 700
    assert set(failed) == (ALWAYS | UNMAPPED if there.cache == "none" else ALWAYS), failed


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_use_of_one_file(there: Place, seed: int) -> None:
    command = [sys.executable, "-B", str(TOP / "tests/vm/exerciser.py"), str(there.dir / "fsx"), str(seed), "400"]
    assert subprocess.run(command, capture_output=True, text=True, timeout=HANG).stdout == "ok\n"
