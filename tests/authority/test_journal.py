"""`--audit journal` with systemd's own journald, in a mount namespace in which nothing else of this machine's /run is seen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

JOURNALD = Path("/lib/systemd/systemd-journald")
SCRIPT = """
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/journal /run/log/journal
"$1" & journald=$!
until [ -S /run/systemd/journal/socket ]; do sleep 0.05; done
"$2" -m mk9p serve -l unix:/run/s --audit journal cpu 2>/run/said & server=$!
until [ -S /run/s ]; do kill -0 $server; sleep 0.05; done
"$2" -m mk9p -a unix:/run/s grant /cpu r --for 60 >/run/cap
! "$2" -m mk9p -a unix:/run/s write auth/ctl revoke 0000000000000000 2>/run/refused
kill -USR1 $journald
n=0
until journalctl --directory=/run/log/journal -t mk9p-audit --no-pager -o cat >/run/lines && grep -q revoke /run/lines; do
	n=$((n + 1)); [ $n -lt 200 ]; sleep 0.05
done
cat /run/lines
grep -c -F -f /run/cap /run/lines || :
kill $server $journald
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a mount namespace")
def test_a_real_journal_has_what_was_done(tmp_path: Path) -> None:
    assert JOURNALD.exists(), "apt-get install systemd"
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SCRIPT, "sh"]
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(
        [*command, str(JOURNALD), sys.executable], capture_output=True, text=True, timeout=120, check=False, env=environ
    )
    assert done.returncode == 0, done.stderr
    *lines, secrets = done.stdout.splitlines()
    told = [line.split(" ", 3)[2:] for line in lines]
    assert all(who == "root" for who, _ in told)
    assert [what.split(" ", 1)[1] for _, what in told] == [
        "attach / ok",
        "grant:/cpu /auth/ctl ok",
        "attach / ok",
        "revoke:0000000000000000 /auth/ctl ENOENT",
    ]
    assert secrets == "0"
