"""What a shell offers at Tab: commands, options, kernels, paths, words of a ctl."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mk9p.testing import SOON, child, until_true

ME = [sys.executable, "-m", "mk9p"]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Serve this kernel's tree; the variables with which commands find it."""
    where = f"unix:{tmp_path_factory.mktemp('completed')}/s"
    home = tmp_path_factory.mktemp("home")
    env = {**os.environ, "MK9P": where, "PATH": f"{BIN}:{os.environ['PATH']}", "XDG_CONFIG_HOME": str(home)}
    subprocess.run([*ME, "context", "add", "office", "tcp:office:564"], env=env, check=True, timeout=SOON)
    with child([*ME, "serve", "-l", where, "host", "cpu", "cmd"], "listening"):
        yield env


def bash(line: str, environment: dict[str, str]) -> list[str]:
    script = (
        'eval "$(mk9p completion bash)"; COMP_LINE=$1; COMP_POINT=${#1}; COMP_TYPE=9; '
        '_python_argcomplete mk9p 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script, "bash", line], env=environment, capture_output=True, timeout=SOON)
    return done.stdout.decode().split()


def pressed(line: str, environment: dict[str, str]) -> list[str]:
    """Press Tab again where there was nothing: on a busy machine the server may take longer than a person would wait."""
    with suppress(TimeoutError):
        return until_true(lambda: bash(line, environment))
    return []


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("mk9p stat", ["stat"]),
        ("mk9p un", ["unmount"]),
        ("mk9p ls --js", ["--json"]),
        ("mk9p cat cpu/sta", ["cpu/status"]),
        ("mk9p cat cp", ["cpu/"]),
        ("mk9p cp :cpu/eve", ["cpu/events"]),  # to bash the colon is not part of the word
        ("mk9p write cpu/ctl gov", ["governor"]),
        ("mk9p help ho", ["host"]),
        ("mk9p serve cp", ["cpu"]),
        ("mk9p wait k1 act", ["active"]),
        ("mk9p completion f", ["fish"]),
        ("mk9p lease ta", ["take"]),
        ("mk9p lease take /cp", ["/cpu/"]),
        ("mk9p grant /cpu/eve", ["/cpu/events"]),
        ("mk9p context use of", ["office"]),
        ("mk9p context use k", []),
        ("mk9p -c of", ["office"]),
        ("mk9p ls -c of", ["office"]),
        ("mk9p tf status -c of", ["office"]),
        ("mk9p wasm mo", ["move"]),
        ("mk9p tf status --js", ["--json"]),
        ("mk9p export /et", ["/etc/"]),
        ("mk9p -a unix:/nowhere cat c", []),
    ],
)
def test_bash_completes(line: str, wanted: list[str], environment: dict[str, str]) -> None:
    press = pressed if wanted else bash
    assert press(line, environment) == wanted


def test_tab_waits_for_no_server_that_says_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(f"{tmp_path}/s")
        mute.listen()
        begun = time.monotonic()
        assert bash("mk9p completion f", environment) == ["fish"]
        without = time.monotonic() - begun
        assert bash(f"mk9p -a unix:{tmp_path}/s cat c", environment) == []
        assert time.monotonic() - begun - without < without + 6  # connecting alone would wait 10 s


def test_fish_completes(environment: dict[str, str]) -> None:
    script = 'mk9p completion fish | source; complete -C "mk9p cat cpu/sta"'

    def press() -> list[str]:
        done = subprocess.run(["fish", "-N", "-c", script], env=environment, capture_output=True, timeout=SOON)
        return done.stdout.decode().split()

    assert until_true(press) == ["cpu/status"]


def test_zsh_takes_its_part(environment: dict[str, str]) -> None:
    script = 'autoload -U compinit; compinit -D; eval "$(mk9p completion zsh)"; print $_comps[mk9p]'
    done = subprocess.run(["zsh", "-fc", script], env=environment, capture_output=True, text=True, timeout=SOON)
    assert done.stdout == "_python_argcomplete\n", done.stderr
