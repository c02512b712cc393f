"""`--policy` and `--audit` of the daemons: what is wrong is one line; the kernel tells users of this machine apart; FUSE gets no more."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mk9p.sync import connect
from mk9p.testing import child, until_true

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
SERVE = [sys.executable, "-m", "mk9p", "serve"]
AS_NOBODY = """
import os, sys
from mk9p.sync import connect
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for path in sys.argv[2:]:
    try:
        with connect(sys.argv[1], uname="root", n_uname=0) as client:
            print(path, repr(client.read(path))[:60])
    except OSError as error:
        print(path, error.errno)
"""


def as_nobody(address: str, *paths: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, address, *paths], capture_output=True, text=True, check=True
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("command", ["serve", "compose"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("allow * r /\n\nallow * q /\n", "policy: line 3: OPS are letters of rwcnd, not 'q'"),
        ("permit * r /\n", "policy: line 1: unknown word permit; usage: allow WHO OPS PATTERN"),
        (None, "policy: No such file or directory"),
    ],
)
def test_a_policy_that_is_wrong_starts_nothing_and_is_one_line(
    command: str, text: str | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "policy"
    if text is not None:
        file.write_text(text)
    words = [sys.executable, "-m", "mk9p", command, "-l", f"unix!{tmp_path}/s", "--policy", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "not root" not in line]
    assert len(lines) == 1
    assert said.removeprefix("policy: ") in lines[0]
    assert not (tmp_path / "s").exists()


def test_sighup_reads_the_rules_again_and_a_wrong_text_changes_nothing(tmp_path: Path) -> None:
    address, file = f"unix!{tmp_path}/s", tmp_path / "policy"
    file.write_text("deny * c /mem/**\n")
    with child([*SERVE, "-l", address, "--policy", str(file), "cpu"], "1 rules") as daemon, connect(address) as client:
        file.write_text("deny * c /cpu/**\npatience 5\n\n")
        daemon.send_signal(signal.SIGHUP)
        until_true(lambda: client.read("auth/policy") == "deny * c /cpu/**\npatience 5\n\n")
        file.write_text("deny * c /mem/**\ndeny * q /\n")
        daemon.send_signal(signal.SIGHUP)
        assert daemon.stderr is not None
        said = next(line for line in daemon.stderr if "rules stay" in line)
        assert f"the rules stay as they are: {file}: line 2: OPS are letters of rwcnd, not 'q'" in said
        assert client.read("auth/policy") == "deny * c /cpu/**\npatience 5\n\n"


@needs_root
def test_users_of_this_machine_are_told_apart_and_all_is_written_down(tmp_path: Path) -> None:
    address, file, audit = f"unix!@{tmp_path}", tmp_path / "policy", tmp_path / "audit"  # which everybody can reach
    file.write_text("deny nobody rwcnd /mem/**\nallow nobody r /cpu/**\ndeny nobody rwcnd /**\n")
    words = [*SERVE, "-l", address, "--policy", str(file), "--audit", str(audit), "host", "cpu", "mem"]
    with child(words, f"{file}: 3 rules"):
        found = as_nobody(address, "cpu/status", "mem/status", "events", "auth/whoami", "auth/log")
        assert found["cpu/status"].startswith("'0 ")
        assert [found[path] for path in ("mem/status", "events", "auth/whoami", "auth/log")] == ["13"] * 4
        with connect(address) as root:
            assert root.read("mem/status")
            root.write("auth/policy", "deny nobody r /cpu/**\n")
        assert as_nobody(address, "cpu/status", "mem/status")["cpu/status"] == "13"
        assert file.read_text() == "deny nobody r /cpu/**\n"
        until_true(lambda: " policy " in audit.read_text() or " deny" in audit.read_text())
        lines = audit.read_text()
    assert " nobody peercred:unix!pid_" in lines
    assert "walk /mem EACCES" in lines


@needs_root
def test_a_mount_by_fuse_gets_what_the_rules_allow_and_no_more(tmp_path: Path) -> None:
    pytest.importorskip("pyfuse3")
    if not os.path.exists("/dev/fuse"):
        pytest.fail("there is no /dev/fuse")
    address, file, where, data = f"unix!{tmp_path}/s", tmp_path / "policy", tmp_path / "mnt", tmp_path / "data"
    where.mkdir()
    data.mkdir()
    for name in ("open", "closed"):
        (data / name).write_text(f"{name}\n")
    file.write_text("deny root rwcnd /fs/data/closed/**\nallow root r /fs/**\ndeny root wnd /fs/**\n")
    with child([*SERVE, "-l", address, "--policy", str(file), f"fs:{data}"], "listening on"):
        mount = [sys.executable, "-m", "mk9p", "mount", "--fuse", address, str(where)]
        subprocess.run(mount, check=True, timeout=60)
        try:
            there = where / "fs/data"
            assert (there / "open").read_text() == "open\n"
            assert sorted(each.name for each in there.iterdir()) == ["open"]
            with pytest.raises(PermissionError):
                (there / "closed").read_text()
            for change in (
                lambda: (there / "open").write_text("no"),
                lambda: (there / "new").write_text("no"),
                lambda: (there / "open").unlink(),
                lambda: (there / "open").rename(there / "other"),
                lambda: (there / "dir").mkdir(),
                lambda: (there / "open").chmod(0o777),
            ):
                with pytest.raises(OSError, match=r"Permission denied|Read-only"):
                    change()
        finally:
            subprocess.run(["umount", "-l", str(where)], check=True, timeout=60)
    assert {each.name: each.read_text() for each in data.iterdir()} == {"open": "open\n", "closed": "closed\n"}
