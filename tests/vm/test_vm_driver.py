"""`mk9p demo driver`: a kernel that has only a USB stick and a network card panics and comes back, and its user, another kernel, goes on.

The demo looks itself whether all went as it should: the file and the stick byte by byte, the lives of both kernels, and the words of the error.
"""

import re
import subprocess
from pathlib import Path

import pytest

from mk9p.clients.lab import Lab
from tests.kernels.guests import processes_of
from tests.vm.lab_vm import up_or_down

SECONDS = 600  # two boots, each of which takes 40 s on a busy machine, and what is waited for between them


@pytest.mark.minutes
@pytest.mark.usefixtures("guests")
def test_who_uses_a_driver_kernel_goes_on_when_it_panics(home: Path) -> None:
    lab = Lab(home / "lab")
    try:
        done = subprocess.run(
            up_or_down(lab, "demo", "driver"), capture_output=True, text=True, timeout=SECONDS, check=False
        )
    finally:
        lab.end()
    print(done.stdout)
    assert (done.returncode, done.stderr.count("expected")) == (0, 0), done.stdout + done.stderr
    assert len(re.findall(r"^  yes  ", done.stdout, re.MULTILINE)) == 5
    assert re.search(r"fetcher: after \d+ bytes: this conversation ended with k3", done.stdout)
    assert re.search(r"writer: a line took \d+\.\d s", done.stdout)  # it waited, and nobody told it of an error
    assert processes_of(home / "lab") == []
    assert not (home / "stick.img").exists()
