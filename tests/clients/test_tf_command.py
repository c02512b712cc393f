"""`mk9p tf run`: a force as one command, over kernels that are processes of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import pytest

from mk9p.testing import SOON, child, until_true

ME = [sys.executable, "-m", "mk9p"]
NAMES = ("k1", "k2", "k3")
ROWS = 1000

# the master asks for all rows, and writes down what comes
MASTER = """
import os, sys, threading
def ask():
    for y in range(int(sys.argv[2])):
        print(y)
    sys.stdout.flush()
    os.close(1)
asking = threading.Thread(target=ask)
asking.start()
with open(sys.argv[1], "w") as file:
    for line in sys.stdin:
        file.write(line)
asking.join()
"""
# a worker renders a row of the Mandelbrot set
WORKER = """
import sys
def row(y, width=60, height=1000, deep=60):
    counts = []
    for x in range(width):
        c, z, n = complex(3 * x / width - 2, 2.4 * y / height - 1.2), 0j, 0
        while abs(z) < 2 and n < deep:
            z, n = z * z + c, n + 1
        counts.append(f"{n:02x}")
    return "".join(counts)
if __name__ == "__main__":
    for line in sys.stdin:
        print(int(line), row(int(line)), flush=True)
"""


@attrs.define
class Lab:
    """Three kernels, each a process, and their namespace."""

    top: Path
    address: str
    kernels: dict[str, "subprocess.Popen[str]"]

    def command(self, *words: str) -> list[str]:
        return [*ME, "-a", self.address, "tf", *words]

    def run(self, graph: str) -> subprocess.CompletedProcess[str]:
        command = self.command("run", "-")
        return subprocess.run(command, input=graph, capture_output=True, text=True, timeout=3 * SOON)

    @contextmanager
    def started(self, graph: str, *words: str) -> Iterator["subprocess.Popen[str]"]:
        process = subprocess.Popen(
            self.command("run", *words, "-"), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stdin is not None
            process.stdin.write(graph)
            process.stdin.close()
            yield process
        finally:
            process.kill()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()

    def said(self, *words: str) -> str:
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=SOON, check=True).stdout


@contextmanager
def lab(top: Path) -> Iterator[Lab]:
    (top / "state").mkdir()
    (top / "ns").write_text("".join(f"mount unix!{top}/{name} /k/{name}\n" for name in NAMES))
    with ExitStack() as stack:
        serve = [*ME, "serve", "-l"]
        kernels = {
            name: stack.enter_context(child([*serve, f"unix!{top}/{name}", "cmd", "chan", "host"], "listening"))
            for name in NAMES
        }
        compose = [*ME, "compose", "-l", f"unix!{top}/s", str(top / "ns")]
        stack.enter_context(child(compose, "listening", env={**os.environ, "STATE_DIRECTORY": str(top / "state")}))
        yield Lab(top, f"unix!{top}/s", kernels)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("tf")) as made:
        yield made


def test_a_farm_renders_all_rows_once_each_while_a_kernel_is_killed(tmp_path: Path) -> None:
    (tmp_path / "master.py").write_text(MASTER)
    (tmp_path / "worker.py").write_text(WORKER)
    python = sys.executable
    graph = f"""
rows k1 {python} {tmp_path}/master.py {tmp_path}/rows {ROWS}
row {{}} {python} {tmp_path}/worker.py
[6] row ||| rows
"""
    out = tmp_path / "rows"
    with lab(tmp_path) as made:
        with made.started(graph, "-v") as process:
            until_true(lambda: out.exists() and out.stat().st_size > 10_000)  # some 80 rows
            made.kernels["k3"].kill()
            assert process.stderr is not None
            said = process.stderr.read()
            assert process.wait(3 * SOON) == 0, said
        assert said.count("mk9p tf: lost row.") == 2
        assert made.said() == ""
    rows = [line.split() for line in out.read_text().splitlines()]
    assert sorted(int(y) for y, _ in rows) == list(range(ROWS))
    scope: dict[str, object] = {"__name__": "worker"}
    exec(WORKER, scope)
    row = scope["row"]
    assert callable(row)
    assert all(row(int(y)) == line for y, line in rows[:: ROWS // 20])


def test_its_output_and_its_status_are_those_of_its_tasks(shared: Lab) -> None:
    done = shared.run("a k1 seq 1 20000\nb k2 sort -rn\nc k3 sh -c 'tail -n 1; echo done >&2'\na | b | c\n")
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "c: done\n", 0)
    done = shared.run("a k1 sleep 1000\nb k2 sh -c 'exit 7'\n")
    assert (done.stdout, done.stderr, done.returncode) == ("", "mk9p tf: b: exit 7\n", 7)


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ("a k1 true\nb k1 true\na | c", "mk9p tf: line 3: no task c before this line\n"),
        ("a k1 true\nb k2 no-such-program\n", "mk9p tf: b in k2: no program no-such-program\n"),
    ],
)
def test_what_is_wrong_is_one_line(shared: Lab, graph: str, said: str) -> None:
    done = shared.run(graph)
    assert (done.stdout, done.stderr, done.returncode) == ("", said, 1)


def test_a_signal_ends_all_tasks_and_others_see_the_force_meanwhile(shared: Lab) -> None:
    with shared.started("a k1 sleep 1000\nb {name k2} sleep 1000\n") as process:
        until_true(lambda: shared.said() == "0 running 2 root\n")
        assert [line.split()[:3] for line in shared.said("status", "0").splitlines()] == [
            ["a", "k1", "running"],
            ["b", "k2", "running"],
        ]
        moved = subprocess.run(shared.command("move", "0", "a", "k2"), capture_output=True, text=True, timeout=SOON)
        assert (moved.stderr, moved.returncode) == (
            "mk9p tf: tf/0/ctl: a: a command: only a program of wasm moves to k2 while it runs\n",
            1,
        )
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.read() == "mk9p tf: killed\n"
        assert process.wait(SOON) == 1
    assert shared.said() == ""


def test_a_force_ends_with_the_command_that_runs_it(shared: Lab) -> None:
    with shared.started("a k1 sleep 1000\n") as process:
        until_true(lambda: shared.said() == "0 running 1 root\n")
        process.kill()
    until_true(lambda: shared.said() == "")
