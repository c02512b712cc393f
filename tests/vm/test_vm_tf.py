"""A farm on three kernels, of which one is killed: all rows, once each. The lab is one of its own."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mk9p.testing import until_true
from tests.clients.test_tf_command import ROWS, WORKER
from tests.vm.lab_vm import PATIENCE, Vm, lab_up, short_folder

pytestmark = pytest.mark.minutes

# asks for a row at a time until there is a file that says that a kernel was killed: an emulated one must have its share before all is done
MASTER = """
import os, sys, threading, time
def ask():
    for y in range(int(sys.argv[2])):
        print(y, flush=True)
        os.path.exists(sys.argv[3]) or time.sleep(0.1)
    os.close(1)
asking = threading.Thread(target=ask)
asking.start()
with open(sys.argv[1], "w") as file:
    for line in sys.stdin:
        file.write(line)
asking.join()
"""


@pytest.fixture(scope="module")
def lab(guests: None) -> Iterator[Vm]:
    serve = ["host", "cmd", "chan"]
    kernels: dict[str, dict[str, Any]] = {
        "k1": {"backend": "qemu", "kernel": "6.1", "memory": "512M", "serve": serve},
        "k2": {"backend": "uml", "kernel": "uml", "memory": "256M", "serve": serve},
    }
    with short_folder() as home, lab_up(home, kernels) as lab:
        yield lab


def test_a_farm_of_real_kernels_renders_all_rows_once_each_while_one_is_killed(lab: Vm, tmp_path: Path) -> None:
    assert "'" not in MASTER + WORKER
    out, killed = tmp_path / "rows", tmp_path / "killed"
    (tmp_path / "graph").write_text(
        f"rows k0 {sys.executable} -c '{MASTER}' {out} {ROWS} {killed}\nrow {{}} {sys.executable} -c '{WORKER}'\n[3] row ||| rows\n"
    )
    with lab.started("tf", "run", "-v", str(tmp_path / "graph")) as process:

        def answered() -> dict[str, int]:
            status = lab.mk9p("tf", "status", "0").stdout.decode()
            lines = [line.split(" ") for line in status.split("\n") if line.startswith("row.")]
            return {kernel: int(jobs) for _, kernel, state, _, jobs, *_ in lines if state == "running" and jobs != "-"}

        until_true(lambda: all(jobs for jobs in answered().values()) and len(answered()) == 3, PATIENCE)
        assert set(answered()) == {"k0", "k1", "k2"}
        lab.write("kernels/k2/ctl", "kill")
        killed.touch()
        said = process.stderr.read().decode() if process.stderr is not None else ""
        assert process.wait(PATIENCE) == 0, said
    assert "mk9p tf: lost row." in said
    rows = [line.split(" ") for line in out.read_text().strip("\n").split("\n")]
    assert sorted(int(y) for y, _ in rows) == list(range(ROWS))
