"""`python -m tests.bench.starting [COMMAND...]`: how long commands take from nothing to their end, beside an interpreter that does nothing.

A served directory of fs is asked. All commands have their turn in each of 30 rounds. What is printed is the least and the median of the time on the
clock, which a busy machine adds to, and of the processor's time, which it adds less to; in ms. `COMMAND` is another `mk9p` to be measured beside, as
of an older tree. The goals are those of a machine on which `import trio` takes 95 ms.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

ROUNDS: Final = 30
GOALS: Final = {"--help": 30, "ls --no-such-option": 30, "ls": 70, "cat": 70, "write": 70, "stat": 70}
ME: Final = str(Path(sys.executable).parent / "mk9p")


# whoever runs this may keep Python from keeping what it compiled, which who uses mk9p does not
ENVIRON: Final = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def once(command: list[str]) -> tuple[float, float]:
    """Run a command; return what it took on the clock and of processors, in ms."""
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRON
    ) as run:
        _, status, used = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    return 1000 * (time.perf_counter() - began), 1000 * (used.ru_utime + used.ru_stime)


def main(others: list[str]) -> None:
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tree").mkdir()
        (Path(folder) / "tree/file").write_text("text\n")
        address = f"unix!{folder}/s"
        with subprocess.Popen([ME, "serve", "-l", address, f"fs:{folder}/tree"], stderr=subprocess.PIPE) as server:
            assert server.stderr is not None
            while b"listening" not in server.stderr.readline():
                pass
            runs = {"python -c pass": [python, "-c", "pass"], "python -I -c pass": [python, "-I", "-c", "pass"]}
            runs["python -c 'import trio'"] = [python, "-c", "import trio"]
            for mk9p in [*others, ME]:
                asks = [mk9p, "-a", address]
                name = "" if mk9p == ME else f"{mk9p}: "
                runs[f"{name}--help"] = [mk9p, "--help"]
                runs[f"{name}ls --no-such-option"] = [mk9p, "ls", "--no-such-option"]
                for words in ("ls", "cat fs/tree/file", "write fs/tree/file words", "stat fs/tree/file"):
                    runs[name + words] = [*asks, *words.split(" ")]
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
            for command in runs.values():
                once(command)
            for _ in range(ROUNDS):
                for name, command in runs.items():
                    taken[name].append(once(command))
            server.terminate()
    print(f"{'':50}{'clock':>15}{'processor':>20}\n{'':50}{'least':>7}{'median':>8}{'least':>12}{'median':>8}")
    for name, both in taken.items():
        clock, used = zip(*both, strict=True)
        goal = GOALS.get(name if name in GOALS else name.split(" ")[0])
        print(
            f"{name[-50:]:50}{min(clock):7.1f}{statistics.median(clock):8.1f}{min(used):12.1f}{statistics.median(used):8.1f}"
            + (f"   goal {goal}" if goal else "")
        )


if __name__ == "__main__":
    main(sys.argv[1:])
