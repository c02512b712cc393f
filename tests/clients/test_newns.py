"""`mk9p newns`: what a script makes is there for the command and its programs, and for nobody else; it ends with them."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mk9p.clients.newns import read
from mk9p.testing import SOON, child, until_true
from tests.clients.mounting import need_fuse

ME = [sys.executable, "-m", "mk9p"]
USER = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups"]


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A directory that everybody may enter, with a served directory `src`, at the socket `s`."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        top.chmod(0o755)
        yield from _made(top)


def _made(top: Path) -> Iterator[Path]:
    for name in ("src", "point", "other"):
        (top / name).mkdir()
    (top / "src/a").write_text("a of src\n")
    (top / "other/a").write_text("a of other\n")
    (top / "other/b").write_text("b of other\n")
    with child([*ME, "export", str(top / "src"), f"unix!{top}/s"], "listening"):
        (top / "s").chmod(0o666)
        yield top


def newns(*words: str, who: list[str] | None = None, script: str = "") -> subprocess.CompletedProcess[str]:
    command = [*(who or []), *ME, "newns", *words]
    return subprocess.run(command, input=script, capture_output=True, text=True, timeout=SOON)


def test_a_server_is_mounted_for_the_command_alone_and_its_status_is_the_command_s(made: Path) -> None:
    need_fuse()
    (made / "script").write_text(f"# a comment\nmount unix!{made}/s {made}/point\nbind -r {made}/other {made}/src\n")
    done = newns(
        str(made / "script"),
        "--",
        *("sh", "-c", "cat $1/point/a $1/src/b; echo new > $1/point/new; touch $1/src/x; exit 7", "sh", str(made)),
    )
    assert (done.stdout, done.returncode) == ("a of src\nb of other\n", 7)
    assert "Read-only file system" in done.stderr
    assert os.listdir(made / "point") == []
    assert (made / "src/new").read_text() == "new\n"
    (made / "src/new").unlink()


def test_the_mount_lasts_as_long_as_a_program_of_the_namespace_and_its_server_s_process_no_longer(made: Path) -> None:
    need_fuse()
    (made / "gate").unlink(missing_ok=True)
    os.mkfifo(made / "gate")
    line = f"mount unix!{made}/s {made}/point"
    done = newns(
        "-s", line, "--", "sh", "-c", f"(read x < {made}/gate; cp {made}/point/a {made}/late) >/dev/null 2>&1 &"
    )
    assert done.returncode == 0
    (made / "gate").write_text("go\n")
    until_true(lambda: (made / "late").exists() and (made / "late").read_text() == "a of src\n")

    def serving() -> list[str]:
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"newns" in words and line.encode() in words:
                found.append(name)
        return found

    until_true(lambda: not serving())


def test_an_empty_namespace_has_what_the_script_says_and_nothing_else(made: Path) -> None:
    script = "".join(
        f"bind -r /{name} /{name}\n" for name in ("usr", "bin", "lib", "lib64") if Path(f"/{name}").exists()
    )
    script += f"bind {made}/other /deep/down\nbind /deep/down/b /b\n"
    done = newns("-n", "-", "--", "sh", "-c", "cat /b; ls /; ls /deep/down; pwd; cd ..; pwd", script=script)
    assert done.returncode == 0, done.stderr
    said = done.stdout.split("\n")
    assert said[0] == "b of other"
    assert set(said[1:-5]) <= {"b", "bin", "deep", "lib", "lib64", "usr"}
    assert said[-5:] == ["a", "b", "/", "/", ""]


def test_a_union_has_the_names_of_both_in_their_order(made: Path) -> None:
    for flag, first in (("-b", "a of other\n"), ("-a", "a of src\n")):
        done = newns("-s", f"bind {flag} {made}/other {made}/src", "--", "sh", "-c", f"cd {made}/src && cat a b")
        assert (done.stdout, done.stderr) == (f"{first}b of other\n", "")


def test_unmount_takes_away_what_the_script_has_put_there(made: Path) -> None:
    lines = ("-s", f"bind {made}/other {made}/point", "-s", f"unmount {made}/other {made}/point")
    assert newns(*lines, "--", "ls", str(made / "point")).stdout == ""
    done = newns(*lines, "-s", f"unmount {made}/point", "--", "true")
    assert (done.returncode, done.stderr) == (1, "mk9p newns: line 3: not mounted\n")


@pytest.mark.parametrize("address", ["unix:/run/x", "unix!/run/x", "tcp:h:564"])
def test_an_unmount_names_a_server_as_its_mount_does(address: str) -> None:
    mounted, unmounted = read(f"mount {address} /mnt\nunmount {address} /mnt")
    assert unmounted.what == mounted.what == address


def test_without_root_the_user_stays_who_they_are(made: Path) -> None:
    done = newns(
        *(
            "-s",
            f"bind {made}/other {made}/point",
            "--",
            "sh",
            "-c",
            f"cat {made}/point/b; id -u; touch {made}/point/x",
        ),
        who=USER,
    )
    if "no private namespace without root here" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout == "b of other\n1234\n"
    assert "Permission denied" in done.stderr
    assert os.listdir(made / "point") == []


def test_without_root_an_empty_namespace_has_nothing_else_either(made: Path) -> None:
    names = [name for name in ("usr", "bin", "lib", "lib64", "proc", "dev") if Path(f"/{name}").exists()]
    script = "".join(f"bind /{name} /{name}\n" for name in names)
    done = newns(
        "-n", "-", "--", "sh", "-c", "ls /; id -u; echo x >/dev/null; cat /proc/self/uid_map", who=USER, script=script
    )
    if "no private namespace without root here" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stderr == ""
    assert done.stdout.split() == [*sorted(names), "1234", "1234", "1234", "1"]


def test_without_root_a_server_is_mounted_by_fuse_where_the_device_is_open(made: Path) -> None:
    need_fuse()
    script = """
    mknod "$1/fuse" c 10 229; chmod 666 "$1/fuse"
    mount --bind "$1/fuse" /dev/fuse
    shift; exec "$@"
    """
    who = ["unshare", "-m", "sh", "-ec", script, "sh", str(made), *USER]
    done = newns("-s", f"mount unix!{made}/s {made}/point", "--", "cat", f"{made}/point/a", who=who)
    (made / "fuse").unlink()
    if "no private namespace without root here" in done.stderr:
        pytest.skip(done.stderr)
    assert (done.stdout, done.stderr, done.returncode) == ("a of src\n", "", 0)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["bind /usr"], "line 1: usage: bind [-abcr] NEW OLD"),
        (["", "import box"], "line 2: unknown word import; usage: mount [-cru] [-w SECONDS] ADDR OLD [SPEC] · bind"),
        (["bind usr /srv"], "line 1: not a path from the root: 'usr'"),
        (["bind -ac /usr /srv"], "line 1: -c: a union of Linux's directories is read-only"),
        (["mount -b unix!/x /srv"], "line 1: a server in a union: mount it elsewhere, and bind that"),
        (["mount nothing /srv"], "line 1: bad dial string 'nothing': want NETWORK!ADDRESS"),
        (["mount unix!/nowhere/s /srv"], "line 1: unix!/nowhere/s: no such socket"),
        (["bind /nowhere /srv"], "line 1: /nowhere: No such file or directory"),
        (["bind /usr /nowhere"], "line 1: /nowhere: No such file or directory"),
        (["bind -a /etc/passwd /srv"], "line 1: inconsistent mount"),
        (["bind /etc/passwd /srv"], "line 1: /srv: one is a directory, and the other is not"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_number(made: Path, lines: list[str], said: str) -> None:
    done = newns("-s", "\n".join(lines), "--", "true")
    assert done.stderr.startswith(f"mk9p newns: {said}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize(("command", "status"), [("/nowhere", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_run_has_a_shell_s_status(made: Path, command: str, status: int) -> None:
    done = newns("-s", "bind /usr /srv", "--", command)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1)
