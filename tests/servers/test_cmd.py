"""cmd: real commands on the kernel that the tests run on. How they end is in test_cmd_end.py."""

import errno
import grp
import os
import pwd
import signal
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from mk9p.auth import NO_ID, Principal
from mk9p.errors import NineError
from mk9p.testing import SOON, until
from mk9p.tree import Dir, settle, split
from tests.servers.talks import gone, nothing_left, state, talk, written
from tests.servers.trees import ls, mode


async def output(tree: Dir, *lines: str) -> str:
    async with talk(tree, *lines) as t:
        return await t.read("data")


async def test_a_command_from_clone_to_wait(cmd: Dir) -> None:
    async with talk(cmd, "exec echo 'it''s one word' two") as t:
        assert t.number == "0"
        assert await ls(cmd, "0") == ["ctl", "data", "line", "stderr", "status", "wait", "error"]
        assert await t.read("data") == "it's one word two\n"
        pid, user, system, real, status = split(await t.read("wait"))
        assert status == ""
        assert int(pid) > 1
        assert int(user) + int(system) <= int(real) + 20
        assert split(await t.read("status")) == ["cmd/0", "1", "Done", "/", "echo", pid]
    assert await ls(cmd) == ["clone"]
    await gone(int(pid))


@pytest.mark.parametrize(
    ("command", "ending"),
    [
        ("exec true", ""),
        ("exec sh -c 'exit 3'", "exit 3"),
        ("exec sh -c 'exit 255'", "exit 255"),
        ("exec sh -c 'kill -TERM $$'", "signal SIGTERM"),
        ("exec sh -c 'ulimit -c 0; kill -SEGV $$'", "signal SIGSEGV"),
    ],
)
async def test_the_ending_is_told_exactly(cmd: Dir, command: str, ending: str) -> None:
    async with talk(cmd, command) as t:
        assert await t.ending() == ending


async def test_wait_tells_the_time_that_was_used(cmd: Dir) -> None:
    async with talk(cmd, "exec sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'") as t:
        _, user, system, real, _ = split(await t.read("wait"))
    assert int(user) + int(system) > 0
    assert 0 < int(real) < SOON * 1000


async def test_wait_may_be_opened_before_exec_and_blocks(cmd: Dir, nursery: trio.Nursery) -> None:
    async with talk(cmd) as t:
        wait = await t.open("wait")
        lines: list[bytes] = []

        async def reader() -> None:
            lines.append(await wait.all())

        nursery.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        await t.ctl.write("exec cat")
        await trio.testing.wait_all_tasks_blocked()
        assert not lines
        await t.ctl.write("kill HUP")
        await until(lambda: lines)
        assert split(lines[0].decode())[4] == "signal SIGHUP"


async def test_settings_are_used_and_read_back(cmd: Dir, tmp_path: Path) -> None:
    async with talk(cmd, f"dir {tmp_path}", "env A=1 'B=two words'", "nice 7") as t:
        await t.ctl.write(
            b"exec sh -c 'pwd; echo $A $B $HOME; nice; umask; cat /proc/self/stat | cut -d\" \" -f5,6; echo $$; env | wc -l'"
        )
        lines = (await t.read("data")).splitlines()
        assert lines[:4] == [str(tmp_path), f"1 two words {pwd.getpwuid(os.geteuid()).pw_dir}", "7", "0022"]
        assert lines[4].split() == [lines[5], lines[5]]  # it leads a group and a session of its own
        assert await t.read("ctl") == f"dir {tmp_path}\nuser root\nnice 7\nenv A=1 'B=two words'\n"


async def test_a_command_gets_default_signals_and_no_descriptors(cmd: Dir) -> None:
    r, w = os.pipe()  # one that a careless starter of this server left open
    os.set_inheritable(w, True)
    try:
        assert (await output(cmd, "exec ls /proc/self/fd")).split() == ["0", "1", "2", "3"]  # 3 is ls's own
        status = await output(cmd, "exec cat /proc/self/status")
    finally:
        os.close(r)
        os.close(w)
    sets = {
        key: int(value, 16)
        for key, value in (
            line.split(":\t") for line in status.splitlines() if line.startswith(("SigIgn", "SigBlk", "SigCgt"))
        )
    }
    sets["SigIgn"] &= ~(
        0b11 << 31
    )  # 32 and 33 are the C library's own: make(1) leaves them ignored, and nobody can change that
    assert set(sets.values()) == {0}


@pytest.mark.parametrize(
    ("lines", "number", "words"),
    [
        (["exec nosuchprogram"], errno.ENOENT, "nosuchprogram: No such file or directory"),
        (["exec /etc/passwd"], errno.EACCES, "/etc/passwd: permission denied"),
        (["dir /nosuch", "exec true"], errno.ENOENT, "dir /nosuch: No such file or directory"),
        (["exec"], errno.EINVAL, "usage: exec CMD [ARGS...]"),
        (["env A"], errno.EINVAL, "usage: env K=V..."),
        (["env"], errno.EINVAL, "usage: env K=V..."),
        (["env =1"], errno.EINVAL, "usage: env K=V..."),
        (["nice 20"], errno.EINVAL, "nice goes from -20 to 19"),
        (["size 1"], errno.EINVAL, "usage: size ROWS COLS"),
        (["user nosuchuser"], errno.EINVAL, "no user nosuchuser"),
        (["kill"], errno.ESRCH, "no command has been started"),
        (["exec true", "exec true"], errno.EBUSY, "the command has been started already"),
        (["exec true", "dir /tmp"], errno.EBUSY, "the command has been started already"),
        (["exec cat", "kill NOSUCH"], errno.EINVAL, "unknown signal 'NOSUCH'"),
        (["exec cat", "size 1 1"], errno.ENOTTY, "the command was started without a terminal"),
    ],
)
async def test_errors_are_on_the_write_and_in_words(cmd: Dir, lines: list[str], number: int, words: str) -> None:
    async with talk(cmd, *lines[:-1]) as t:
        with pytest.raises(NineError) as caught:
            await t.ctl.write(lines[-1])
        assert (caught.value.errno, caught.value.ename) == (number, words)
        assert await t.read("error") == words + "\n"


async def test_a_failed_exec_leaves_all_as_it_was(cmd: Dir) -> None:
    async with nothing_left(), talk(cmd) as t:
        for _ in range(3):
            with pytest.raises(FileNotFoundError):
                await t.ctl.write("exec nosuchprogram")
        assert split(await t.read("status")) == ["cmd/0", "1", "Open", "/", "", "0"]
        with pytest.raises(NineError, match="no command has been started"):
            await t.read("data")
        await t.ctl.write("exec echo yet")
        assert await t.read("data") == "yet\n"


async def test_a_megabyte_through_cat_both_ways(cmd: Dir, nursery: trio.Nursery) -> None:
    sent, got = os.urandom(1 << 20), b""
    async with nothing_left(), talk(cmd, "exec cat") as t:
        into, out = await t.open("data", "w"), await t.open("data")

        async def feed() -> None:
            await into.write_all(sent)
            await t.ctl.write("closein")

        nursery.start_soon(feed)
        got = await out.all()
        assert await t.ending() == ""
    assert got == sent


async def test_the_last_writer_ends_the_input_and_the_last_reader_the_output(cmd: Dir) -> None:
    async with talk(cmd, "exec sh -c 'cat; echo end; exec yes'") as t:
        out, one, two = await t.open("data"), await t.open("data", "w"), await t.open("data", "w")
        await one.write("first\n")
        assert await out.read() == b"first\n"
        t.files.remove(one)
        await one.close()
        await two.write("second\n")
        assert await out.read() == b"second\n"
        t.files.remove(two)
        await two.close()
        assert (await out.read()).startswith(b"end\n")
        with pytest.raises(BrokenPipeError):
            await (await t.open("data", "w")).write("more\n")
        t.files.remove(out)
        await out.close()
        assert await t.ending() == "signal SIGPIPE"


FLOOD = """
import os, sys
total = 0
while True:
    total += os.write(1, bytes(4096))
    open(sys.argv[1], "w").write(str(total))
"""


async def test_output_that_nobody_reads_is_bounded_by_the_pipe(cmd: Dir, tmp_path: Path) -> None:
    count, script = tmp_path / "count", tmp_path / "flood.py"
    script.write_text(FLOOD)
    async with talk(cmd, f"exec {sys.executable} {script} {count}") as t:
        out = await t.open("data")
        taken = len(await out.read(1))  # one piece: what the pipe held at most, of which this is the first byte
        pid = int(split(await t.read("status"))[5])
        await written(count)
        with trio.fail_after(SOON):
            while state(pid) != "S":  # it sleeps nowhere but in the write
                await trio.lowlevel.checkpoint()
        assert taken == 1
        assert 65536 <= int(count.read_text()) + 4096 <= 2 * 65536 + 4096


async def test_a_cancelled_read_loses_nothing(cmd: Dir) -> None:
    async with talk(cmd, "exec cat") as t:
        data = await t.open("data", "rw")
        for word in (b"one", b"two"):
            with trio.move_on_after(0.01) as scope:
                await settle(data.handle.read(data.at, 100))
            assert scope.cancelled_caught
            await data.write(word)
            assert await data.read() == word


async def test_a_cancelled_write_has_taken_nothing(cmd: Dir) -> None:
    async with talk(cmd, "exec sh -c 'kill -STOP $$; exec wc -c'") as t:
        data = await t.open("data", "rw")
        taken = 0

        async def write() -> None:
            nonlocal taken
            while True:
                taken += await settle(data.handle.write(0, memoryview(bytes(10000))))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await until(lambda: not (taken <= 60000))
            await trio.testing.wait_all_tasks_blocked(0.1)
            nursery.cancel_scope.cancel()
        assert 60000 < taken <= 65536  # all that the pipe had room for
        await t.ctl.write("kill CONT")
        await data.write_all(bytes(1000))
        await t.ctl.write("closein")
        assert int(await data.all()) == taken + 1000


async def test_stderr_is_its_own_and_never_stops_a_command(cmd: Dir) -> None:
    async with talk(cmd, "exec sh -c 'echo out; echo err >&2'") as t:
        assert await t.read("data") == "out\n"
        assert await t.read("stderr") == "err\n"
    async with talk(cmd, "exec sh -c 'head -c 1000000 /dev/zero >&2; echo done'") as t:
        assert await t.read("data") == "done\n"
        assert 0 < len(await t.read("stderr")) <= 2 * 65536  # what was kept, and what the pipe held when it was read
    async with talk(cmd) as t:
        errors = await t.open("stderr")
        await t.ctl.write("exec sh -c 'head -c 1000000 /dev/zero >&2; echo done'")
        assert len(await errors.all()) == 1000000


async def test_a_terminal(cmd: Dir) -> None:
    async with (
        nothing_left(),
        talk(
            cmd,
            "size 33 77",
            "exec sh -c 'tty; stty size; trap \"stty size; exit 4\" WINCH; echo ready; while :; do read x; done'",
        ) as t,
    ):
        data = await t.open("data", "rw")
        seen = b""
        while b"ready" not in seen:
            seen += await data.read()
        tty, size, _ = seen.decode().split("\r\n", 2)
        assert tty.startswith("/dev/pts/")
        assert size == "33 77"
        await t.ctl.write("size 10 20")
        assert (await t.read("ctl")).endswith("size 10 20\n")
        while b"10 20" not in seen:
            seen += await data.read()
        assert await t.ending() == "exit 4"
        assert await t.read("stderr") == ""
        assert await data.all() in (b"", b"\r\n")


async def test_a_terminal_controls_its_session_and_ends_its_input(cmd: Dir) -> None:
    async with talk(cmd, "size 24 80", "exec sh -c 'cat; echo over; exec cat'") as t:
        data = await t.open("data", "rw")
        await data.write("line\n")
        await t.ctl.write("closein")
        seen = b""
        while b"over" not in seen:
            seen += await data.read()
        assert seen.startswith(b"line\r\nline\r\n")  # once the echo, once cat
        await data.write(b"\x03")
        assert await t.ending() == "signal SIGINT"


async def test_many_at_once(cmd: Dir) -> None:
    async with nothing_left():
        results: dict[int, str] = {}

        async def one(n: int) -> None:
            results[n] = await output(cmd, f"exec echo {n}")

        async with trio.open_nursery() as all_:
            for n in range(20):
                all_.start_soon(one, n)
        assert results == {n: f"{n}\n" for n in range(20)}


async def test_who_may(cmd: Dir, tmp_path: Path) -> None:
    assert await mode(cmd, "clone") == 0o600
    async with talk(cmd) as t:
        assert [await mode(cmd, f"{t.number}/{name}") for name in ("ctl", "data", "stderr", "status", "wait")] == [
            0o600,
            0o600,
            0o400,
            0o444,
            0o444,
        ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
async def test_users(cmd: Dir, tmp_path: Path) -> None:
    script = "exec sh -c 'id -u; id -g; id -G; echo $HOME $USER'"
    nobody = pwd.getpwnam("nobody")
    groups = " ".join(map(str, os.getgrouplist("nobody", nobody.pw_gid)))
    expected = f"{nobody.pw_uid}\n{nobody.pw_gid}\n{groups}\n{nobody.pw_dir} nobody\n"
    assert await output(cmd, "user nobody", script) == expected

    async with talk(cmd, script, who=Principal("nobody", nobody.pw_uid)) as t:
        assert await t.read("data") == expected
    async with talk(cmd, who=Principal("nobody", nobody.pw_uid)) as t:
        for line in ("user root", "nice -1"):
            with pytest.raises(PermissionError):
                await t.ctl.write(line)
        closed = tmp_path / "closed"
        closed.mkdir(0o700)
        await t.ctl.write(f"dir {closed}")
        with pytest.raises(PermissionError, match=f"dir {closed}: permission denied"):  # asked as the user, not as root
            await t.ctl.write("exec true")

    async with talk(cmd, "user nobody", "size 24 80", "exec sh -c 'echo x >$(tty) && stat -c %u $(tty)'") as t:
        data = await t.open("data")
        assert (await data.all()).decode().split() == ["x", str(nobody.pw_uid)]


RIGHTS = "exec grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|Groups|Gid)' /proc/self/status"


async def rights(cmd: Dir, who: Principal) -> dict[str, str]:
    """Return what a command of a user has, as /proc/PID/status tells it."""
    async with talk(cmd, RIGHTS, who=who) as t:
        return {
            key: value.strip()
            for key, _, value in (line.partition(":") for line in (await t.read("data")).splitlines())
        }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
async def test_a_command_is_in_the_groups_of_who_asks_and_in_no_other(cmd: Dir) -> None:
    """The user database may have more for its user: a process that dropped them does not get them back here."""
    daemon = pwd.getpwnam("daemon")
    got = await rights(cmd, Principal("daemon", daemon.pw_uid, frozenset({4301, 4302}), gid=4302))
    assert (set(got["Groups"].split()), set(got["Gid"].split())) == ({"4301", "4302"}, {"4302"})
    async with talk(cmd, "user daemon", RIGHTS, who=Principal("daemon", daemon.pw_uid, frozenset({4301}))) as t:
        assert "Groups:\t4301 \n" in await t.read("data")
    for who in (Principal("4711", 50), Principal("4711", 50, gid=NO_ID)):
        got = await rights(cmd, who)
        (group,) = set(got["Gid"].split())
        assert got["Groups"] == ""
        with pytest.raises(KeyError):
            grp.getgrgid(int(group))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
async def test_a_command_of_a_user_has_no_rights_of_the_server_s(cmd: Dir) -> None:
    none = "0" * 16
    for proof, bounded in (("peercred", "0"), ("private", "0"), ("cert", "1"), ("token", "1"), ("none", "1")):
        got = await rights(cmd, Principal("daemon", 1, frozenset({1}), proof=proof))
        assert [got[f"Cap{which}"] for which in ("Inh", "Prm", "Eff", "Amb")] == [none] * 4
        assert got["NoNewPrivs"] == bounded, proof
    assert (await rights(cmd, Principal("root", 0, proof="cert")))["NoNewPrivs"] == "0"


async def test_signals_are_those_of_this_machine(cmd: Dir) -> None:
    async with talk(cmd, "exec sleep 1000") as t:
        await t.ctl.write(f"kill {signal.SIGRTMIN + 2}")
        assert await t.ending() == "signal SIGRTMIN+2"


async def test_who_has_line_open_has_the_other_end_of_descriptor_3(cmd: Dir) -> None:
    async with talk(cmd) as t:
        line = await t.open("line", "rw")
        await t.ctl.write("exec sh -c 'head -c 5 <&3 | tr a-z A-Z >&3; echo done; cat <&3'")
        assert await line.write("hello") == 5
        assert await line.read(100) == b"HELLO"
        await line.close()
        t.files.remove(line)
        assert await t.read("data") == "done\n"  # the command's end of the line has ended
        assert await t.ending() == ""


async def test_without_line_there_is_no_descriptor_3(cmd: Dir) -> None:
    async with talk(cmd, "exec sh -c '(echo x >&3) 2>/dev/null || echo closed'") as t:
        assert await t.read("data") == "closed\n"
        with pytest.raises(NineError, match="no command has been started"):
            await t.read("line")


async def test_a_command_with_a_namespace_has_what_its_lines_say(cmd: Dir, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    (tmp_path / "new").mkdir()
    (tmp_path / "new/a").write_text("here\n")
    line = f"ns bind {tmp_path}/new '{tmp_path}/a point'"
    async with talk(cmd, line, f"dir '{tmp_path}/a point'", "exec cat a") as t:
        assert f"{line}\n" in await t.read("ctl")
        assert await t.read("data") == "here\n"
        assert await t.ending() == ""
