"""`mk9p wasm run --restart`: a program whose kernel is gone goes on elsewhere from its last checkpoint, byte for byte."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest

from mk9p.testing import SOON, child, until_true
from tests.wasm.conftest import Compiled

ME = [sys.executable, "-m", "mk9p"]
LONG = 4 * SOON
PIPE = subprocess.PIPE
DATA = b"".join(b"%d " % (n * n) for n in range(2_500))
SLOWLY = "30000000"  # a twentieth of a second of a processor for each piece


@attrs.frozen
class Lab:
    """Three kernels, which are processes here, and their namespace; `given` is served by k0."""

    folder: Path
    given: Path
    program: Compiled
    kernels: dict[str, "subprocess.Popen[str]"]

    def words(self, *words: str) -> list[str]:
        return [*ME, "-a", f"unix!{self.folder}/ns", "wasm", *words]

    def file(self, name: str) -> str:
        path = self.folder / f"{name}.wasm"
        path.write_bytes(self.program(name))
        return str(path)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, cache: str, program: Compiled) -> Iterator[Lab]:
    """Each test kills a kernel of its own."""
    folder = tmp_path_factory.mktemp("again")
    given = folder / "data"
    (given / "d" / "names").mkdir(parents=True)
    (given / "d" / "in").write_bytes(DATA)
    names = ("k0", "k1", "k2", "k3")
    (folder / "table").write_text("".join(f"mount unix!{folder}/{name} /k/{name}\n" for name in names))
    with ExitStack() as stack:
        kernels = {}
        for name in names:
            serve = [*ME, "serve", "-l", f"unix!{folder}/{name}", "host"]
            more = f"fs:{given}" if name == "k0" else f"wasm?cache={cache}"
            kernels[name] = stack.enter_context(child([*serve, more], "listening"))
        stack.enter_context(child([*ME, "compose", "-l", f"unix!{folder}/ns", str(folder / "table")], "listening"))
        yield Lab(folder, given, program, kernels)


def pieces(size: int) -> int:
    """Return in how many pieces the program copies so many bytes (programs/copy.c)."""
    count = 0
    while size > 0:
        size -= 1 + (count * 7919) % 1777
        count += 1
    return count


def test_a_program_whose_kernel_is_killed_goes_on_elsewhere_from_its_checkpoint(lab: Lab) -> None:
    kept, copied = lab.given / "kept", lab.given / "d" / "out"
    more = ["--checkpoint", "0.1:/k/k0/fs/data/kept", "--restart", "on-failure", "--to", "k2"]
    words = lab.words("run", "-n", "-g", "/k/k0/fs/data/d:/d:rw", *more, "k1", lab.file("copy"), SLOWLY)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until_true(lambda: kept.exists() and copied.exists() and copied.stat().st_size > len(DATA) // 3, LONG)
        lab.kernels["k1"].kill()
        output, errors = process.communicate(timeout=LONG)
    assert output == f"{pieces(len(DATA))} pieces\n", errors
    lines = errors.splitlines()
    assert lines[0].startswith("mk9p wasm: k/k1/wasm/0: lost ")
    assert lines[1:] == ["mk9p wasm: it goes on in k/k2 from its last checkpoint"]
    assert process.returncode == 0
    assert copied.read_bytes() == DATA


def test_what_it_reads_and_says_comes_once(lab: Lab) -> None:
    """Its input is given again from its checkpoint, and what it said before is not said again."""
    more = ["--checkpoint", "0.1:/k/k0/fs/data/read", "--restart", "on-failure max 3 in 60", "--to", "k2"]
    words = lab.words("run", *more, "k3", lab.file("filter"))
    with subprocess.Popen(words, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"0 ONE\n"
        since = time.time()
        until_true(lambda: (lab.given / "read").exists() and (lab.given / "read").stat().st_mtime > since, LONG)
        process.stdin.write(b"two\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"1 TWO\n"
        lab.kernels["k3"].kill()
        process.stdin.write(b"three\nend\n")
        output, errors = process.communicate(timeout=LONG)
    assert (output, process.returncode) == (b"2 THREE\n3 END\n", 0), errors
    assert b"it goes on in k/k2 from its last checkpoint" in errors


def test_what_is_in_the_way_is_one_line(lab: Lab) -> None:
    for more, said in (
        (["--restart", "sometimes"], "usage: restart never|always|on-failure [max N] [in SECONDS]"),
        (["--checkpoint", "1:/k/k2/kept"], "checkpoint /k/k2/kept: it would be gone with k/k2"),
        (["--checkpoint", "1:/k/k0/fs/none/kept"], "checkpoint /k/k0/fs/none/kept: No such file or directory"),
        (
            ["-g", "/k/k0/fs/data:/d:ro", "--checkpoint", "1:/k/k0/fs/data/kept"],
            "checkpoint /k/k0/fs/data/kept: it lies in what is granted to be read only",
        ),
    ):
        words = lab.words("run", "-n", *more, "k2", lab.file("filter"))
        done = subprocess.run(words, capture_output=True, text=True, timeout=LONG)
        assert (done.stderr, done.returncode) == (f"mk9p wasm: {said}\n", 1)
