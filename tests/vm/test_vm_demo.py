"""`mk9p demo`, as somebody runs it who sees mk9p for the first time: each of its commands shows what it says it shows, and nothing is left."""

import subprocess
import sys

import pytest

# in a /run of its own: another lab may be up
SCRIPT = 'mount -t tmpfs run /run; "$0" -m mk9p demo; status=$?; echo left: $(ls -A /run); exit $status'


@pytest.mark.usefixtures("guests")
def test_every_command_of_the_demo_shows_what_it_says() -> None:
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", SCRIPT, sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "expected to see" not in done.stderr
    assert "LINUX VERSION" in done.stdout
    (left,) = (line for line in done.stdout.splitlines() if line.startswith("left:"))
    assert "mk9p" not in left.split()
