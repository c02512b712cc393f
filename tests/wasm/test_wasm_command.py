"""`mk9p wasm` from outside, in a namespace of two kernels: programs run, are seen, are moved under way, saved, shown, and go on."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from mk9p.testing import SOON, child
from tests.wasm.conftest import Compiled

SLOWLY = "8000000"  # it then takes four seconds of a processor, and a command here half of one: so the commands meet it
LONG = 4 * SOON  # beside all that others do on this machine
ME = [sys.executable, "-m", "mk9p"]


@attrs.frozen
class Lab:
    """Two kernels, which are two processes here, and their namespace; `given` is served by k0."""

    folder: Path
    given: Path
    program: Compiled

    @property
    def address(self) -> str:
        return f"unix!{self.folder}/ns"

    def words(self, *words: str) -> list[str]:
        return [*ME, "-a", self.address, *words]

    def mk9p(self, *words: str, **options: Any) -> subprocess.CompletedProcess[Any]:
        options = {"stdin": subprocess.DEVNULL} | options if "input" not in options else options
        return subprocess.run(self.words(*words), capture_output=True, timeout=LONG, **options)

    def file(self, name: str) -> str:
        path = self.folder / f"{name}.wasm"
        path.write_bytes(self.program(name))
        return str(path)

    def programs(self) -> list[dict[str, str]]:
        found = json.loads(self.mk9p("wasm", "ps", "--json").stdout)
        assert isinstance(found, list)
        return found

    def until(self, kernel: str, state: str) -> str:
        """Return the number of the one program of a kernel when it is in a state."""
        end = time.monotonic() + SOON
        while time.monotonic() < end:
            for row in self.programs():
                if (row["kernel"], row["state"]) == (kernel, state):
                    return row["program"]
        raise AssertionError(self.programs())


@pytest.fixture
def lab(tmp_path: Path, cache: str, program: Compiled) -> Iterator[Lab]:
    given = tmp_path / "data"
    (given / "names").mkdir(parents=True)
    (given / "in").write_bytes(b"".join(b"%d " % (n * n) for n in range(30_000)))
    table = tmp_path / "table"
    kernels = [(name, f"unix!{tmp_path}/{name}") for name in ("k0", "k1")]
    table.write_text("".join(f"mount {where} /k/{name}\n" for name, where in kernels))
    servers = ["host", f"wasm?cache={cache}"]
    with (
        child([*ME, "serve", "-l", kernels[0][1], *servers, f"fs:{given}"], "listening"),
        child([*ME, "serve", "-l", kernels[1][1], *servers], "listening"),
        child([*ME, "compose", "-l", f"unix!{tmp_path}/ns", str(table)], "listening"),
    ):
        yield Lab(tmp_path, given, program)


def test_run_has_input_output_arguments_and_the_exit_status(lab: Lab) -> None:
    done = lab.mk9p("wasm", "run", "k1", lab.file("primes"), "1000")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"168 primes below 1000, the last 997\n", b"")
    done = lab.mk9p("wasm", "run", "k0", lab.file("filter"), input=b"one\ntwo\nend\nnot seen\n")
    assert (done.returncode, done.stdout) == (0, b"0 ONE\n1 TWO\n2 END\n")
    done = lab.mk9p("wasm", "run", "-l", "time=300", "k0", lab.file("greedy"), "spin")
    assert done.returncode == 124
    assert done.stderr.endswith(b"greedy.wasm: limit time\n")
    done = lab.mk9p("wasm", "run", "k0", lab.file("greedy"), "abort")
    assert (done.returncode, done.stderr.endswith(b": trap unreachable\n")) == (134, True)
    (lab.folder / "text").write_text("no module")
    done = lab.mk9p("wasm", "run", "k0", f"{lab.folder}/text")
    assert (done.returncode, done.stderr.endswith(b"text: not a wasm module\n")) == (126, True)
    assert lab.mk9p("wasm", "run", "k0", "/nowhere").returncode == 127
    assert b"no kernel k7" in lab.mk9p("wasm", "run", "k7", lab.file("greedy")).stderr
    assert b"grant /k/k0/fs/none: No such file" in (
        lab.mk9p("wasm", "run", "-g", "/k/k0/fs/none:/d:ro", "k0", lab.file("greedy")).stderr
    )
    assert lab.programs() == []


def test_a_signal_ends_it_and_so_does_the_end_of_run(lab: Lab) -> None:
    for end in ("terminate", "kill"):
        with subprocess.Popen(lab.words("wasm", "run", "-n", "k0", lab.file("greedy"), "spin")) as process:
            lab.until("k0", "running")
            getattr(process, end)()
            assert process.wait(SOON) == (128 + 15 if end == "terminate" else -9)
        deadline = time.monotonic() + SOON
        while lab.programs():
            assert time.monotonic() < deadline


def test_a_program_is_moved_under_way_with_its_files_and_its_terminal(lab: Lab) -> None:
    words = lab.words("wasm", "run", "-g", "/k/k0/fs/data:/d:rw", "k0", lab.file("copy"))
    expected = subprocess.run(words, capture_output=True, timeout=LONG, stdin=subprocess.DEVNULL)
    assert expected.stderr == b""
    log = (lab.given / "log").read_bytes()
    (lab.given / "log").unlink()
    moves = 0
    # an argument is no word for `move`
    words += [SLOWLY, "a\ncheckpoint every 0.1 to /k/k0/fs/data/never\nb"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        at = "k0"
        number = lab.until(at, "running")
        while process.poll() is None and moves < 3:
            to = "k1" if at == "k0" else "k0"
            done = lab.mk9p("wasm", "move", f"{at}/{number}", to)
            if done.returncode:  # it has just ended
                assert b"ended" in done.stderr or b"no program" in done.stderr, done.stderr
                break
            at, number, moves = to, done.stdout.decode().strip().rpartition("/")[2], moves + 1
        output, errors = process.communicate(timeout=LONG)
    assert (output, errors, process.returncode) == (expected.stdout, b"", expected.returncode)
    assert moves
    assert not list(lab.given.glob("never*"))
    assert (lab.given / "log").read_bytes() == log
    assert (lab.given / "out").read_bytes() == (lab.given / "in").read_bytes()
    assert lab.programs() == []


def test_what_is_typed_goes_to_where_it_is(lab: Lab) -> None:
    words = lab.words("wasm", "run", "--follow", "k0", lab.file("filter"))
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        number = lab.until("k0", "running")
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"0 ONE\n"
        done = lab.mk9p("wasm", "move", f"k0/{number}", "k1")
        assert done.returncode == 0, done.stderr
        process.stdin.write(b"two\nend\n")
        output, errors = process.communicate(timeout=LONG)
    assert (output, errors, process.returncode) == (b"1 TWO\n2 END\n", b"", 0)


@pytest.mark.parametrize(("name", "words"), [("filter", ()), ("copy", (SLOWLY,))], ids=["it waits", "it works"])
def test_a_program_ends_with_the_capability_of_who_started_it(lab: Lab, name: str, words: tuple[str, ...]) -> None:
    def grants() -> set[str]:
        return {line.split()[0] for line in lab.mk9p("cat", "auth/grants").stdout.decode().splitlines()}

    others = grants()  # of tests before this one
    cap = lab.mk9p("grant", "/", "rwcn", "--for", "1h").stdout.decode().strip()
    (number,) = grants() - others
    run = lab.words("wasm", "run", "-g", "/k/k0/fs/data:/d:rw", "k1", lab.file(name), *words)
    pipe = subprocess.PIPE
    with subprocess.Popen(run, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, "MK9P_CAP": cap}) as process:
        lab.until("k1", "running")
        assert lab.mk9p("revoke", number).returncode == 0
        assert process.wait(SOON) == 1
        assert process.stderr is not None
        assert process.stderr.read().decode().splitlines()[1:] == []
    end = time.monotonic() + SOON
    while lab.programs():
        assert time.monotonic() < end
    again = lab.mk9p(*run[len(lab.words()) :], env={**os.environ, "MK9P_CAP": cap})
    assert again.returncode == 1
    assert b"revoked" in again.stderr, again.stderr


def test_a_move_that_fails_leaves_it_running_where_it_was(lab: Lab) -> None:
    words = lab.words("wasm", "run", "-n", "k0", lab.file("greedy"), "spin")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        number = lab.until("k0", "running")
        for to, said in (("k7", b"no kernel k7"), ("k/k0/fs", b"k/k0/fs has no wasm")):
            done = lab.mk9p("wasm", "move", f"k0/{number}", to)
            assert done.returncode == 1
            assert said in done.stderr
            assert lab.until("k0", "running") == number
        process.terminate()
        output, errors = process.communicate(timeout=LONG)
    assert (output, errors, process.returncode) == (b"", b"", 128 + 15)


def test_a_program_is_saved_and_shown_and_goes_on_from_its_file(lab: Lab) -> None:
    saved = str(lab.folder / "saved")
    words = lab.words("wasm", "run", "-g", "/k/k0/fs/data:/d:rw", "k0", lab.file("copy"), SLOWLY)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        number = lab.until("k0", "running")
        done = lab.mk9p("wasm", "save", f"k0/{number}", saved)
        assert done.returncode == 0, done.stderr
        first, said = process.communicate(timeout=LONG)
    assert said == f"mk9p wasm: saved in {saved}\n".encode()
    shown = lab.mk9p("wasm", "show", saved)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.decode().splitlines()
    assert lines[0] == f"args copy.wasm {SLOWLY}"
    assert "grant /k/k0/fs/data /d rw" in lines
    assert any(line.startswith("open 4 /d/in r ") for line in lines), lines
    found = json.loads(lab.mk9p("wasm", "show", "--json", saved).stdout)
    assert found["grant"] == ["/k/k0/fs/data /d rw"]
    done = lab.mk9p("wasm", "run", "-g", "/k/k0/fs/data:/d:rw", "k1", saved)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (first + done.stdout).endswith(b" pieces\n")
    assert (lab.given / "out").read_bytes() == (lab.given / "in").read_bytes()
    os.truncate(saved, os.path.getsize(saved) - 1)
    for words_ in (("show", saved), ("run", "k1", saved)):
        done = lab.mk9p("wasm", *words_)
        assert done.returncode
        assert b"no state of a program: it is cut short" in done.stderr
