"""All tests by two processes side by side: what is said of them in the end, and how they end."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mk9p.testing import SOON
from tests.sides import AGAIN, GUESTS, HAULS, TOGETHER, sides

PASSES, FAILS, SKIPS = (
    "def test_passes():\n    pass\n",
    "def test_fails():\n    assert 0\n",
    "import pytest\ndef test_skips():\n    pytest.skip('here')\n",
)
BREAKS = "import pytest\n@pytest.fixture\ndef broken():\n    assert 0\ndef test_breaks(broken):\n    pass\n"
DIES = "import os\ndef test_dies():\n    os._exit(3)\n"
ONCE = "import pathlib\ndef test_once():\n    sign = pathlib.Path({!r})\n    assert sign.exists() or sign.touch()\n"
ALONE = (
    "import pathlib, time\nLOCK = pathlib.Path({!r})\ndef test_alone():\n"
    "    LOCK.touch(exist_ok=False)\n    time.sleep(0.5)\n    LOCK.unlink()\n"
)
WAITS = "import pathlib, time\ndef test_waits(tmp_path):\n    pathlib.Path({!r}).touch()\n    time.sleep(1000)\n"


def begin(
    folder: Path, one: Sequence[str], other: Sequence[str], *options: str, again: bool = False, together: int = TOGETHER
) -> "subprocess.Popen[str]":
    """Run a file for each text, of two sides; so many sides at once."""
    sides: dict[str, list[str]] = {}
    for name, texts in (("one", one), ("other", other)):
        sides[name] = []
        for n, text in enumerate(texts):
            file = folder / f"test_{name}_{n}.py"
            file.write_text(text)
            sides[name].append(str(file))
    script = f"import sys\nfrom tests import sides\nsides.TOGETHER = {together}\n"
    script += f"sys.exit(sides.run({sides!r}, sys.argv[1:], again={again}))"
    return subprocess.Popen(
        [sys.executable, "-c", script, f"--rootdir={folder}", *options],
        cwd=Path(__file__).parent.parent,
        # what is killed leaves its files
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )


def both(
    folder: Path, one: Sequence[str], other: Sequence[str], *options: str, again: bool = False, together: int = TOGETHER
) -> tuple[int, list[str]]:
    process = begin(folder, one, other, *options, again=again, together=together)
    said = process.communicate(timeout=SOON)[0]
    return process.returncode, said.splitlines()


def test_the_last_lines_are_the_counts_of_both_sides_and_their_sum(tmp_path: Path) -> None:
    code, said = both(tmp_path, [PASSES, SKIPS, PASSES], [PASSES])
    assert (code, said[-1]) == (0, "3 passed, 0 failed, 1 skipped")
    assert said[-3].startswith("2 passed, 1 skipped in ")
    assert said[-2].startswith("1 passed in ")


@pytest.mark.parametrize(("wrong", "sum_"), [(FAILS, "1 passed, 1 failed"), (BREAKS, "1 passed, 1 failed")])
@pytest.mark.parametrize("first", [True, False])
def test_a_failure_on_either_side_is_the_end_of_it(tmp_path: Path, wrong: str, sum_: str, first: bool) -> None:
    code, said = both(tmp_path, *(([wrong], [PASSES]) if first else ([PASSES], [wrong])))
    assert (code, said[-1]) == (1, sum_)


def test_what_fails_beside_others_and_passes_alone_is_unsteady(tmp_path: Path) -> None:
    once = ONCE.format(str(tmp_path / "sign"))
    code, said = both(tmp_path, [PASSES, once], [PASSES], again=True)
    assert (code, said[-1]) == (0, "2 passed, 0 failed, 1 unsteady")
    assert said[-5].startswith("1 failed, 1 passed in ")
    assert said[-4].startswith("1 passed in ")
    assert said[-3] == "unsteady: test_one_1.py::test_once"


def test_what_fails_also_alone_has_failed(tmp_path: Path) -> None:
    once = ONCE.format(str(tmp_path / "sign"))
    code, said = both(tmp_path, [FAILS, once, PASSES], [BREAKS], again=True)
    assert (code, said[-1]) == (1, "1 passed, 2 failed, 1 unsteady")
    assert "unsteady: test_one_1.py::test_once" in said


def test_too_many_failures_have_no_second_chance(tmp_path: Path) -> None:
    once = [ONCE.format(str(tmp_path / f"sign{n}")) for n in range(AGAIN + 1)]
    code, said = both(tmp_path, once, [PASSES], again=True)
    assert (code, said[-1]) == (1, f"1 passed, {AGAIN + 1} failed")


def test_a_side_that_dies_is_a_failure(tmp_path: Path) -> None:
    code, said = both(tmp_path, [PASSES], [PASSES, DIES])
    assert (code, said[-1]) == (3, "1 passed, 1 failed")
    assert said[-2] == "1 failed: ended with 3, and no counts  (other)"


def test_a_side_of_which_nothing_was_selected_is_none(tmp_path: Path) -> None:
    code, said = both(tmp_path, [PASSES], [SKIPS], "-k", "passes")
    assert (code, said[-1]) == (0, "1 passed, 0 failed")
    code, said = both(tmp_path, [PASSES], [SKIPS], "-k", "nothing")
    assert (code, said[-1]) == (5, "0 passed, 0 failed")


def test_both_sides_are_in_one_report(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    both(tmp_path, [PASSES], [FAILS], f"--junit-xml={report}")
    suites = ElementTree.parse(report).getroot().findall("testsuite")
    assert [(suite.get("tests"), suite.get("failures")) for suite in suites] == [("1", "0"), ("1", "1")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_both_sides(tmp_path: Path, number: signal.Signals) -> None:
    signs = [tmp_path / "1", tmp_path / "2"]
    process = begin(tmp_path, [WAITS.format(str(signs[0]))], [WAITS.format(str(signs[1]))])
    assert process.stdout is not None
    try:
        while not all(sign.exists() for sign in signs):
            assert process.poll() is None
        process.send_signal(number)
        process.communicate(timeout=SOON)
        assert process.returncode == {signal.SIGINT: 2, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    finally:
        process.kill()
    until = time.monotonic() + SOON
    while any(runs(pid, str(tmp_path)) for pid in os.listdir("/proc") if pid.isdigit()):
        assert time.monotonic() < until
        time.sleep(0.02)


def runs(pid: str, word: str) -> bool:
    try:
        return word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_no_more_sides_run_at_once_than_may(tmp_path: Path) -> None:
    text = ALONE.format(str(tmp_path / "lock"))
    code, said = both(tmp_path, [text], [text], together=1)
    assert (code, said[-1]) == (0, "2 passed, 0 failed")


def test_a_side_can_run_without_the_other(tmp_path: Path) -> None:
    code, said = both(tmp_path, [PASSES, PASSES], [FAILS], "--side", "one")
    assert (code, said[-1]) == (0, "2 passed, 0 failed")
    assert both(tmp_path, [PASSES], [FAILS], "--side", "third")[0] == 2


def test_what_takes_an_hour_has_a_side_of_its_own_and_is_nowhere_else() -> None:
    short, long = sides(long=False), sides(long=True)
    assert {*long} == {*short, *(name for name, _, _ in HAULS)}
    for name, _, those in HAULS:
        assert [each for each in those if not Path(__file__).parent.parent.joinpath(each).exists()] == []
        assert long[name] == those
    for side, mine in short.items():
        apart = {f"--ignore={each}" for _, of, those in HAULS if of == side for each in those}
        assert {*long[side]} == {*mine, *apart}


@pytest.mark.parametrize("long", [False, True])
def test_each_file_is_on_one_side(long: bool) -> None:
    root, found = Path(__file__).parent.parent, Counter[str]()
    every = {str(file.relative_to(root)) for file in root.glob("tests/**/test_*.py")}
    folders = {GUESTS, *(each for _, _, those in HAULS for each in those)} - every
    for arguments in sides(long=long).values():
        ignored = {word.removeprefix("--ignore=") for word in arguments if word.startswith("--ignore=")}
        given = tuple(word for word in arguments if not word.startswith("--"))
        assert all(word in folders or word in every for word in ignored)
        found.update(file for file in every if file.startswith(given) and not file.startswith(tuple(ignored) or " "))
    assert [file for file in every if found[file] != 1] == []


NURSERY = """
import signal, trio
def test_one():
    {}
def test_two():
    pass
"""
INSIDE = "async def main():\n        async with trio.open_nursery():\n            signal.raise_signal(signal.SIGINT)\n    trio.run(main)"


@pytest.mark.parametrize("body", ["signal.raise_signal(signal.SIGINT)", INSIDE], ids=["outside", "in a nursery"])
def test_ctrl_c_ends_a_run_wherever_it_comes(tmp_path: Path, body: str) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(NURSERY.format(body))
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider", "-p", "tests.conftest"]
    done = subprocess.run(
        [*command, file], cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done.stdout
    assert "no tests ran" in done.stdout
