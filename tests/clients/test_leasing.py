"""`mk9p lease`: a command runs while a lease is held, and no longer."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import attrs
import pytest

from mk9p.testing import SOON, child, until_true

ME = [sys.executable, "-m", "mk9p"]


@attrs.define
class Lab:
    folder: Path
    env: dict[str, str]
    composer: "subprocess.Popen[str]"

    def run(self, *words: str) -> tuple[int, str, str]:
        done = subprocess.run([*ME, *words], capture_output=True, text=True, timeout=SOON, env=self.env)
        return done.returncode, done.stdout, done.stderr

    @contextmanager
    def holding(self, *words: str) -> Iterator["subprocess.Popen[str]"]:
        """Run `mk9p lease take /k/k1/fs/data`, until its command says that it runs."""
        script = "echo running; trap 'echo ended; exit 3' TERM; while :; do sleep 0.05; done"
        command = [*ME, "lease", "take", *words, "/k/k1/fs/data", "--", "sh", "-c", script]
        with child(command, "running", stdout=subprocess.PIPE, env=self.env) as process, ExitStack() as stack:
            # nobody else ends the command of a holder that is killed
            for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                stack.callback(_end, stack.enter_context(open(os.pidfd_open(int(pid)), "rb")))
            yield process


def _end(process: IO[bytes]) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(process.fileno(), signal.SIGKILL)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    data = tmp_path / "data"
    data.mkdir()
    (data / "f").write_text("text\n")
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "MK9P": f"unix!{tmp_path}/ns"}
    script = tmp_path / "script"
    script.write_text(f"mount unix!{tmp_path}/k1 /k/k1\n")
    with (
        child([*ME, "serve", "-l", f"unix!{tmp_path}/k1", f"fs:{data}"], "listening", env=env),
        child([*ME, "compose", "-l", env["MK9P"], str(script)], "listening", env=env) as composer,
    ):
        yield Lab(tmp_path, env, composer)


def test_a_command_runs_while_it_is_held_and_its_status_is_the_commands(lab: Lab) -> None:
    words = ["lease", "take", "/k/k1/fs/data", "--", "sh", "-c", "echo $MK9P_LEASE $MK9P_TOKEN; exit 7"]
    assert lab.run(*words) == (7, "lease/0 1\n", "")
    assert lab.run(*words) == (7, "lease/0 2\n", "")
    with lab.holding("--for", "20"):
        status, out, _ = lab.run("lease")
        assert (status, out.split()[:6]) == (0, ["0", "held", "/k/k1/fs/data", "exclusive", "root", "3"])
        (row,) = json.loads(lab.run("lease", "list", "--json")[1])
        assert {"n": "0", "path": "/k/k1/fs/data", "holder": "root", "token": "3"}.items() <= row.items()
        assert row["until_ns"].isdigit()
        assert json.loads(lab.run("lease", "--json")[1]) == [row]
        status, _, err = lab.run(*words)
        assert status == 1
        assert "root has leased /k/k1/fs/data" in err
        assert lab.run("lease", "take", "--wait", "1", "/k/k1/fs/data", "--", "true")[0] == 1
    assert lab.run("lease", "take", "--wait", "60", "/k/k1/fs/data", "--", "true")[0] == 0
    assert lab.run("lease")[1] == ""
    assert lab.run("lease", "take", "/k/k1/fs/data", "--", "no-such-program")[0] == 127
    assert lab.run("lease")[1] == ""


def test_a_command_runs_with_what_a_claim_finds(lab: Lab) -> None:
    words = ["lease", "take", "{name k*}", "--", "sh", "-c", 'echo "$MK9P_LEASED"; exit 7']
    assert lab.run(*words) == (7, "/k/k1\n", "")
    with lab.holding("--for", "20"):
        status, _, err = lab.run(*words)
        assert (status, "{name k*} is not free" in err) == (1, True), err
    status, _, err = lab.run("lease", "take", "{name other}", "--", "true")
    assert (status, "no kernel that is up has {name other}" in err) == (1, True), err


def test_when_it_is_lost_the_command_is_ended(lab: Lab) -> None:
    with lab.holding("--for", "1") as process:
        assert lab.run("write", "lease/ctl", "give 0")[0] == 0
        assert process.wait(SOON) == 75
        assert process.stdout is not None
        assert process.stdout.read() == "ended\n"


def test_when_the_composer_is_gone_the_command_is_ended_before_the_term_is_over(lab: Lab) -> None:
    with lab.holding("--for", "3") as process:
        lab.composer.send_signal(signal.SIGSTOP)
        try:
            assert process.wait(SOON) == 75
        finally:
            lab.composer.send_signal(signal.SIGCONT)


def test_a_lease_outlives_its_composer(lab: Lab) -> None:
    with lab.holding("--for", "1h") as process:
        lab.composer.kill()
        lab.composer.wait(SOON)
        with child([*ME, "compose", "-l", lab.env["MK9P"], str(lab.folder / "script")], "listening", env=lab.env):
            status, out, _ = lab.run("lease")
            assert (status, out.split()[1:3]) == (0, ["held", "/k/k1/fs/data"])
            assert lab.run("lease", "take", "/k/k1/fs/data", "--", "true")[0] == 1
            assert lab.run("write", "lease/0/ctl", "give")[0] == 0
            assert lab.run("lease", "take", "/k/k1/fs/data", "--", "true")[0] == 0
        process.kill()


def test_a_command_goes_on_when_its_composer_comes_back_within_the_term(lab: Lab) -> None:
    def until_ns() -> int:
        return int(lab.run("lease")[1].split()[6])

    with lab.holding("--for", "45") as process:
        first = until_ns()
        lab.composer.kill()
        lab.composer.wait(SOON)
        with child([*ME, "compose", "-l", lab.env["MK9P"], str(lab.folder / "script")], "listening", env=lab.env):
            until_true(lambda: until_ns() > first)
            assert process.poll() is None
            process.terminate()
            assert process.wait(SOON) == 3
            assert lab.run("lease")[1] == ""


@pytest.mark.parametrize(
    "words",
    [
        "lease take",
        "lease take /k",
        "lease take k -- true",
        "lease list /k",
        "lease take --for 0 /k -- x",
        "lease take /k --for 5 -- x",
    ],
)
def test_wrong_use_is_told(words: str, tmp_path: Path) -> None:
    assert subprocess.run([*ME, *words.split()], capture_output=True, timeout=SOON).returncode == 2


def test_a_kill_of_the_holder_ends_it_with_its_term(lab: Lab) -> None:
    with lab.holding("--for", "2") as process:
        process.kill()
        process.wait(SOON)
        assert lab.run("lease")[1].split()[1] == "held"
        until_true(lambda: lab.run("lease")[1] == "")
