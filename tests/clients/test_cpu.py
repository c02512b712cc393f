"""`mk9p cpu`: a command in a kernel has the caller's namespace, or a directory of the caller's, at /mnt/term, and nobody else there has it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from mk9p.testing import SOON, child
from tests.clients.mounting import need_fuse

ME = [sys.executable, "-m", "mk9p"]


@attrs.frozen
class Lab:
    """A kernel k1, which is this one, in a namespace at `address`; `top` has a directory `src` and a mount point `term`."""

    address: str
    top: Path

    def command(self, *words: str) -> list[str]:
        return [*ME, "-a", self.address, "cpu", "--at", str(self.top / "term"), *words]

    def cpu(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **({"MK9P_CAP": str(options.pop("cap"))} if "cap" in options else {})}
        command = self.command(*words)
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SOON, env=env)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    need_fuse()
    top = tmp_path_factory.mktemp("cpu")
    for name in ("src", "term", "state"):
        (top / name).mkdir()
    (top / "src/a").write_text("a of src\n")
    (top / "src/b.key").write_text("secret\n")
    (top / "ns").write_text(f"mount unix!{top}/k1 /k/k1\n")
    env = {**os.environ, "STATE_DIRECTORY": str(top / "state")}
    served = [*ME, "serve", "-l", f"unix!{top}/k1", "cmd", "host"]
    composed = [*ME, "compose", "-l", f"unix!{top}/s", str(top / "ns")]
    with child(served, "listening"), child(composed, "listening", env=env):
        yield Lab(f"unix!{top}/s", top)


def test_the_namespace_is_there_for_the_command_alone_and_its_status_is_the_command_s(lab: Lab) -> None:
    done = lab.cpu("k1", "--", "sh", "-c", f"cat {lab.top}/term/auth/whoami; ls {lab.top}/term/k; echo er >&2; exit 5")
    assert done.stdout.startswith("principal root\nproof peercred\n")
    assert done.stdout.endswith("\nk1\n")
    assert (done.stderr, done.returncode) == ("er\n", 5)
    assert os.listdir(lab.top / "term") == []


def test_a_directory_of_the_caller_s_is_where_the_command_runs(lab: Lab) -> None:
    patterns = lab.top / "patterns"
    patterns.write_text("-\\.key$\n")
    src = str(lab.top / "src")
    done = lab.cpu("-x", src, "-P", str(patterns), "k1", "--", "sh", "-c", "pwd; ls; tr a-z A-Z < a > made")
    assert (done.stdout, done.stderr) == (f"{lab.top}/term\na\n", "")
    assert (lab.top / "src/made").read_text() == "A OF SRC\n"
    (lab.top / "src/made").unlink()
    done = lab.cpu("-r", "-x", src, "k1", "--", "sh", "-c", "cat b.key; echo no > made")
    assert done.stdout == "secret\n"
    assert "Read-only file system" in done.stderr
    assert not (lab.top / "src/made").exists()


def test_much_goes_both_ways_at_once(lab: Lab) -> None:
    data = os.urandom(1 << 16) * 128
    (lab.top / "src/big").write_bytes(data)
    command = "cat big > one & dd if=big of=two bs=64k 2>/dev/null; wait; cmp one big && cmp two big && echo same"
    done = lab.cpu("-x", str(lab.top / "src"), "k1", "--", "sh", "-c", command)
    assert (done.stdout, done.stderr) == ("same\n", "")
    assert (lab.top / "src/one").read_bytes() == data
    for name in ("big", "one", "two"):
        (lab.top / "src" / name).unlink()


def test_a_capability_narrows_what_is_there(lab: Lab) -> None:
    pytest.importorskip("biscuit_auth")
    cap = lab.top / "cap"
    granted = [*ME, "-a", lab.address, "grant", "/k/k1", "r", "-o", str(cap)]
    subprocess.run(granted, check=True, timeout=SOON)
    done = lab.cpu("--cap", str(cap), "k1", "--", "sh", "-c", f"cd {lab.top}/term; ls; echo halt > ctl")
    assert {"cmd", "status"} < set(done.stdout.split("\n"))
    assert not {"k", "all", "lease"} & set(done.stdout.split("\n"))
    assert "cannot create ctl: " in done.stderr


def test_a_capability_that_is_revoked_ends_what_is_there_and_not_the_command(lab: Lab) -> None:
    pytest.importorskip("biscuit_auth")
    cap = lab.top / "ending"
    subprocess.run([*ME, "-a", lab.address, "grant", "/k/k1", "r", "-o", str(cap)], check=True, timeout=SOON)
    script = f"cat {lab.top}/term/status; while ls {lab.top}/term/cmd >/dev/null 2>&1; do sleep 0.1; done; echo it ended; exit 3"
    words = ("--cap", str(cap), "k1", "--", "sh", "-c", script)
    with subprocess.Popen(lab.command(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("name ")
            revoke = [*ME, "-a", lab.address, "revoke", "--cap", str(cap)]
            subprocess.run(revoke, check=True, timeout=SOON)
            assert process.stdout.read().endswith("\nit ended\n")
            assert process.wait(SOON) == 3
        finally:
            process.kill()


def test_signals_and_a_terminal_s_size_reach_the_command(lab: Lab) -> None:
    words = (
        "k1",
        "--",
        "sh",
        "-c",
        f"trap 'ls {lab.top}/term/k; exit 9' TERM; echo ready; while :; do sleep 0.1; done",
    )
    with subprocess.Popen(lab.command(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "k1\n"
        assert process.wait(SOON) == 9
    inner = " ".join(lab.command("-t", "k1", "--", "stty", "size"))
    done = subprocess.run(
        ["script", "-qec", f"stty -echo rows 33 cols 77; {inner}", "/dev/null"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SOON,
    )
    assert "33 77" in done.stdout, done


def test_when_the_caller_is_killed_the_command_is_hung_up_and_the_mount_ends(lab: Lab) -> None:
    words = ("k1", "--", "sh", "-c", "echo $$; sleep 1000")
    with subprocess.Popen(lab.command(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        pidfd = os.pidfd_open(number)
        process.kill()
    os.set_blocking(pidfd, False)
    with open(pidfd, "rb", closefd=True) as ended:
        import select

        assert select.select([ended], [], [], SOON)[0]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["k9", "--", "true"], 1, "mk9p cpu: no kernel k9; there are: k1"),
        (["k1", "--", "/nowhere"], 127, "mk9p newns: /nowhere: No such file or directory"),
        (["-x", "/nowhere", "k1", "--", "true"], 1, "mk9p cpu: /nowhere: No such file or directory"),
        (["-d", "/nowhere", "k1", "--", "true"], 1, "mk9p newns: /nowhere: No such file or directory"),
    ],
)
def test_what_is_wrong_is_one_line(lab: Lab, words: list[str], status: int, said: str) -> None:
    done = lab.cpu(*words)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done
    assert done.stderr.startswith(said)
