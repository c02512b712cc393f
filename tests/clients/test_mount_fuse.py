"""A served tree mounted by FUSE, used by ordinary programs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mk9p.clients import mount, mounts
from mk9p.clients.mounts import mounted_at
from mk9p.testing import SOON, until_true
from tests.clients.mount_tree import DISK, NOBODY
from tests.clients.mounting import Place, blocked, mk9p, place


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    """One mount for the tests that leave it as it was."""
    with place() as made:
        made.serve()
        made.mount()
        yield made
        mount.umount(str(made.dir))


def test_ls_shows_what_is_there(there: Place) -> None:
    lines = there.out("ls -ln").splitlines()[1:]
    modes = {line.split()[-1]: (line.split()[0], *line.split()[2:5]) for line in lines}
    assert modes["sub"] == ("dr-xr-xr-x", "0", "0", "0")
    assert modes["ctl"] == ("-rw-r--r--", "0", "0", "0")
    assert modes["disk"] == ("-rw-r--r--", "0", "0", str(len(DISK)))
    assert modes["theirs"] == ("-r--------", str(NOBODY), str(NOBODY), "0")
    assert there.out("ls -a sub").split() == [".", "..", "a", "b", "c"]
    assert there.out("find sub -type f | sort").split() == ["sub/a", "sub/b", "sub/c"]


def test_files_of_no_length_are_read_to_their_end(there: Place) -> None:
    assert there.out("cat name; echo $(<name); grep -r k1 name; tail -c 3 name") == "k1\nk1\nk1\nk1\n"
    assert there.out("wc -l < long; cp long $T/long; tail -n1 $T/long") == "100000\nline 99999\n"
    assert there.out("dd if=name bs=1 2>/dev/null") == "k1\n"


def test_a_directory_is_put_where_it_survives(there: Place) -> None:
    python = os.path.realpath(sys.executable)  # others may not get into where our own environment is
    script = "import os; fd = os.open('kept', os.O_RDONLY); os.{}(fd); print(open('kept/asked').read())"
    assert there.out(f'{python} -c "{script.format("fsync")}"') == "0:all\n"
    # as the user who asks
    assert there.sh(f'{python} -c "{script.format("fdatasync")}"', user=NOBODY).stdout == f"0:all {NOBODY}:data\n"
    assert "Input/output error" in there.error(f'{python} -c "{script.format("fsync")}"')
    there.out("sync name sub")  # made-up ones have nothing to keep


def test_commands_are_written_and_answer_at_once(there: Place) -> None:
    assert there.out("echo color blue > ctl; cat ctl") == "color blue\n"
    assert there.out("echo color green >> ctl; cat ctl") == "color green\n"
    assert there.out("printf 'color a\\ncolor red\\n' > ctl; cat ctl") == "color red\n"
    assert "write error: Invalid argument" in there.error("echo bad > ctl")
    assert there.out("cat error").startswith("unknown word bad")
    assert "Permission denied" in there.error("exec setpriv --reuid=1 --clear-groups bash -c 'echo color x > ctl'")


def test_events_come_one_by_one(there: Place) -> None:
    with there.started("bash", "-c", 'while read -r _ _ what arg; do echo "$what $arg"; done < events') as reader:
        assert reader.stdout is not None
        there.out("echo emit first > ctl")
        while reader.stdout.readline() != "first \n":
            pass  # what earlier tests did
        for n in range(3):
            there.out(f"echo emit one {n} > ctl")
            assert reader.stdout.readline() == f"one {n}\n"
    assert len(there.out("head -n1 events").splitlines()) == 1


def test_others_go_on_while_many_wait(there: Place) -> None:
    # more than the tasks that pyfuse3 has by default
    with there.started("bash", "-c", "for n in {1..120}; do cat events > /dev/null & done; wait") as readers:

        def children() -> list[int]:
            return [int(word) for word in Path(f"/proc/{readers.pid}/task/{readers.pid}/children").read_text().split()]

        until_true(lambda: sum(map(blocked, children())) == 120)
        assert there.out("cat name; ls sub") == "k1\na\nb\nc\n"
        for child in children():
            os.kill(child, signal.SIGTERM)
        assert readers.wait(10) == 0


def test_blocks_are_read_and_written_where_they_are(there: Place) -> None:
    there.out("cp disk $T/copy; dd if=disk of=$T/big bs=2M iflag=fullblock 2>/dev/null; cmp $T/copy $T/big")
    assert (there.top / "copy").read_bytes() == DISK
    fd = os.open(there.dir / "disk", os.O_RDONLY)
    try:
        assert os.pread(fd, 1 << 20, 0) == DISK[: 1 << 20]  # longer than one message
        assert os.pread(fd, 100, len(DISK) - 10) == DISK[-10:]
    finally:
        os.close(fd)
    there.out("printf abcd | dd of=disk bs=1 seek=1000 conv=notrunc 2>/dev/null")
    assert there.out("dd if=disk bs=1 skip=1000 count=4 2>/dev/null") == "abcd"


def test_df_and_stat(there: Place) -> None:
    assert there.out("df --output=source,size . | tail -n1").split() == [there.address, "0"]
    assert there.out("stat -f -c %b .") == "0\n"
    first, second = there.out("stat -c %i name sub/a").split()
    assert first != second
    assert there.out("stat -c %i name") == first + "\n"
    assert there.out("test -w secret && echo yes") == "yes\n"
    assert there.sh("test -w secret", user=NOBODY).returncode == 1


@pytest.mark.parametrize("script", ["rm name", "mv name other", "mkdir d", "echo > new", "ln -s a b", "chmod 777 name"])
def test_what_cannot_be_changed_says_so(there: Place, script: str) -> None:
    assert "Operation not permitted" in there.error(script)


def test_each_user_is_himself(there: Place) -> None:
    assert there.out("cat secret theirs") == "for root\nfor nobody\n"
    assert there.out("cat theirs name", user=NOBODY) == "for nobody\nk1\n"
    assert "Permission denied" in there.error("cat secret", user=NOBODY)
    assert "Permission denied" in there.error("cat theirs", user=1)
    assert "Permission denied" in there.error("echo color x > ctl", user=1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_reader_is_gone_at_once(there: Place, number: signal.Signals) -> None:
    there.out("echo emit x > ctl")
    with there.started("cat", "events") as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        until_true(lambda: blocked(reader.pid))
        reader.send_signal(number)
        assert reader.wait(SOON) == -number


def test_a_killed_reader_that_did_not_open_the_file_is_found(there: Place) -> None:
    with there.started("bash", "-c", "exec 3< events; cat <&3 & echo $!; wait") as shell:
        assert shell.stdout is not None
        reader = int(shell.stdout.readline())
        until_true(lambda: blocked(reader))
        os.kill(reader, signal.SIGTERM)
        shell.communicate(timeout=SOON)  # to its end: nobody has the pipe any more
        assert shell.returncode == 0


def test_a_signal_that_is_handled_ends_the_read_only(there: Place) -> None:
    program = """
import os, signal
def handle(*_): raise InterruptedError
signal.signal(signal.SIGUSR1, handle)
fd = os.open("events", os.O_RDONLY)
print(flush=True)
try:
    while True: os.read(fd, 4096)
except InterruptedError:
    print("ended")
"""
    with there.started(sys.executable, "-I", "-c", program) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        until_true(lambda: blocked(reader.pid))
        reader.send_signal(signal.SIGUSR1)
        assert reader.communicate(timeout=SOON)[0] == "ended\n"


def test_a_server_that_died_and_came_back(fresh: Place) -> None:
    fresh.mount()
    with fresh.started("cat", "events") as reader:
        until_true(lambda: blocked(reader.pid))
        fresh.kill()
        assert "Input/output error" in reader.communicate(timeout=SOON)[1]
    assert "Input/output error" in fresh.error("cat mnt/name", inside=False)
    assert "Input/output error" in fresh.error("ls mnt/sub", inside=False)
    fresh.serve()
    until_true(lambda: fresh.sh("cat mnt/name", inside=False).returncode == 0)
    assert fresh.out("cat name; ls sub; echo color blue > ctl; cat ctl") == "k1\na\nb\nc\ncolor blue\n"


def test_umount_leaves_nothing(fresh: Place) -> None:
    fresh.mount()
    (process,) = fresh.processes()
    assert os.getsid(process) not in (os.getsid(0), process)
    assert mk9p("umount", str(fresh.dir)).returncode == 0
    assert fresh.processes() == []
    assert mounted_at(str(fresh.dir)) is None
    done = mk9p("umount", str(fresh.dir))
    assert done.returncode == 1
    assert done.stderr == f"mk9p umount: {fresh.dir}: nothing of mk9p is mounted there\n"


def test_umount_of_what_is_in_use(fresh: Place) -> None:
    fresh.mount()
    with fresh.started("cat", "events") as reader:
        until_true(lambda: blocked(reader.pid))
        done = mk9p("umount", str(fresh.dir))
        assert done.returncode == 1
        assert "in use" in done.stderr
        assert fresh.out("cat name") == "k1\n"
        assert mk9p("umount", "--lazy", str(fresh.dir)).returncode == 0
        assert fresh.processes() == []
        reader.wait(SOON)


def test_sigterm_unmounts(fresh: Place) -> None:
    fresh.mount()
    (process,) = fresh.processes()
    os.kill(process, signal.SIGTERM)
    until_true(lambda: not fresh.processes())
    assert mounted_at(str(fresh.dir)) is None


def test_foreground_stays_until_it_is_told(fresh: Place) -> None:
    command = [sys.executable, "-m", "mk9p", "mount", "--fuse", "--foreground", fresh.address, str(fresh.dir)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        until_true(lambda: mounted_at(str(fresh.dir)))
        assert fresh.out("cat name") == "k1\n"
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=SOON)[1] == f"mk9p mount: note: {mount.LOCKS}\n"
        assert child.returncode == 0
    assert mounted_at(str(fresh.dir)) is None


def test_flags(fresh: Place) -> None:
    fresh.mount("--readonly", "--aname", "sub")
    assert fresh.out("ls") == "a\nb\nc\n"
    assert "Read-only file system" in fresh.error("echo > a")
    mount.umount(str(fresh.dir))
    fresh.mount("--user", "nobody")
    assert fresh.out("cat theirs") == "for nobody\n"
    assert "Permission denied" in fresh.error("cat secret")
    assert "Permission denied" in fresh.error("cat theirs", user=1)


def test_what_may_go_wrong_is_one_line(fresh: Place) -> None:
    def said(*words: str) -> str:
        done = mk9p("mount", "--fuse", *words)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("mk9p mount: ")
        assert mounted_at(str(fresh.dir)) is None
        return done.stderr

    assert "no such directory" in said(fresh.address, str(fresh.top / "none"))
    assert "not a directory" in said(fresh.address, "/etc/passwd")
    assert "no such socket: is its server running?" in said(f"unix!{fresh.top}/none", str(fresh.dir))
    assert "bad dial string" in said("nonsense", str(fresh.dir))
    assert "No such file" in said("--aname", "none", fresh.address, str(fresh.dir))
    fresh.mount()
    done = mk9p("mount", fresh.address, str(fresh.dir))
    assert f"{fresh.address} is mounted there: `mk9p umount {fresh.dir}` first" in done.stderr


def test_without_pyfuse3_it_says_what_to_install(fresh: Place) -> None:
    program = "import sys; sys.modules['pyfuse3'] = None; from mk9p.__main__ import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "mount", "--fuse", fresh.address, str(fresh.dir)],
        capture_output=True,
        text=True,
        timeout=SOON,
    )
    assert done.returncode == 1
    assert "pip install 'mk9p[fuse]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_lazy_unmount_asks_nobody(fresh: Place) -> None:
    """The process that serves the mount is stopped: what asks the file system waits for ever."""
    fresh.mount()
    (fresh.top / "link").symlink_to("mnt")
    (process,) = fresh.processes()
    os.kill(process, signal.SIGSTOP)
    try:
        busy = mk9p("mount", "--fuse", fresh.address, str(fresh.dir))
        assert (busy.returncode, "is mounted there" in busy.stderr) == (1, True)
        done = mk9p("umount", "-l", f"{fresh.top}/link/")
        assert done.returncode == 0
        assert done.stderr.startswith(f"mk9p umount: {fresh.dir} is detached; process {process}")
        assert mounts.mounted_at(str(fresh.dir)) is None
    finally:
        os.kill(process, signal.SIGCONT)
    until_true(lambda: not fresh.processes())
