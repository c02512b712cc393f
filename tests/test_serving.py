"""`mk9p serve` as it is started: which servers, who may do what on which listener, one line for what is wrong, and no trace at the end."""

import errno
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
import trio

import mk9p
from mk9p import connect
from mk9p.dial import listen
from mk9p.serving import OnlyRoot
from mk9p.specs import Spec
from mk9p.testing import SOON
from mk9p.tree import Dir, Text
from tests.servers.trees import names

ME = [sys.executable, "-m", "mk9p"]
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it becomes another user")


@contextmanager
def serve(*words: str) -> Iterator[tuple[str, str]]:
    """Run `mk9p serve`; give the address it says, and the line on who can do what there."""
    with subprocess.Popen(
        [*ME, "serve", *words], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        address, policy = "", ""
        for line in process.stderr:
            if found := re.match(r"mk9p: listening on (\S+)", line):
                address = found[1]
            elif address and line.startswith(f"mk9p: {address}: "):
                policy = line.removeprefix(f"mk9p: {address}: ").strip()
                break
        try:
            yield address, policy
        finally:
            process.terminate()
            rest = process.stderr.read()
            assert process.wait() == 0, rest
            assert "Traceback" not in rest


def errno_of(caught: pytest.ExceptionInfo[OSError]) -> int | None:
    return caught.value.errno


async def test_tcp_believes_nobody() -> None:
    with serve("-l", "tcp!127.0.0.1!0", "cpu", "dev", "proc", "cmd", "host") as (address, policy):
        assert policy == "everybody is `none` and gets what the permission bits give to others"
        async with connect(address, uname="root", n_uname=0) as c:
            assert (await c.read("status")).startswith("name ")
            assert "online" in await c.read("cpu/status")
            assert await c.read("proc/1/status")
            for path in ("ctl", "cpu/ctl", "proc/1/ctl", "dev/sysname", "dev/time"):
                with pytest.raises(PermissionError) as caught:
                    await c.write(path, "x")
                assert errno_of(caught) == errno.EACCES, path
            for path in ("cmd/clone", "proc/1/mem", "proc/1/environ", "proc/1/fd", "dev/kmsg"):
                with pytest.raises(PermissionError) as caught:
                    await c.read(path)
                assert errno_of(caught) == errno.EACCES, path
            await c.write("dev/null", "others may, by its bits")


async def test_tcp_that_is_trusted_believes_names() -> None:
    with serve("--trust", "-l", "tcp!127.0.0.1!0", "cmd", "dev") as (address, policy):
        assert policy == "every user is believed to be who they say"
        async with connect(address, uname="root", n_uname=0) as c:
            assert (await (await c.open("cmd/clone", "r+")).pread(10, 0)) == b"0\n"
        async with connect(address, uname="nobody", n_uname=65534) as c:
            with pytest.raises(PermissionError):
                await c.read("cmd/clone")


def hung_up_on(address: str, where: tuple[str, int]) -> bool:
    """Tell whether one who comes from there is sent away before a word is said."""
    _, host, port = address.split("!")
    with socket.create_connection((host, int(port)), timeout=SOON, source_address=where) as sock:
        try:
            sock.sendall(b"\x13\0\0\0\x64\xff\xff\0\x20\0\0\x06\x009P2000")
            return not sock.recv(1)
        except ConnectionResetError:
            return True


def test_to_tcp_only_the_host_that_is_said_may_come() -> None:
    with serve("--trust", "--from", "127.0.0.2", "-l", "tcp!127.0.0.1!0", "dev") as (address, _):
        assert not hung_up_on(address, ("127.0.0.2", 0))
        assert hung_up_on(address, ("127.0.0.1", 0))
        assert not hung_up_on(address, ("127.0.0.2", 0))


@root_only
async def test_only_root_can_come_from_a_port_that_is_root_s() -> None:
    listener = OnlyRoot(await listen("tcp!127.0.0.1!0"))
    come: list[str] = []

    async def accept() -> None:
        while True:
            link = await listener.accept()
            come.append(link.peer.address)
            link.send(b"x")
            link.close()

    def many() -> list[bool]:
        with socket.socket() as free:
            while True:
                port = random.randrange(512, 1024)
                try:
                    free.bind(("127.0.0.1", port))
                except OSError:
                    continue
                break
        return [hung_up_on(listener.address, ("127.0.0.1", number)) for number in (0, port, 0)]

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            assert await trio.to_thread.run_sync(many) == [True, False, True]
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await listener.aclose()
    assert [int(address.rpartition("!")[2]) < 1024 for address in come] == [True]


async def test_beyond_this_machine_nothing_can_be_changed() -> None:
    with serve("-l", "tcp!*!0", "dev") as (address, policy):
        assert policy.endswith("nothing can be changed")
        async with connect(address.replace("*", "127.0.0.1")) as c:
            with pytest.raises(OSError, match="Read-only") as caught:
                await c.write("dev/null", "x")
            assert errno_of(caught) == errno.EROFS


async def test_readonly_is_for_root_too(tmp_path: Path) -> None:
    with serve("--readonly", "-l", f"unix!{tmp_path}/s", "dev") as (address, _):
        async with connect(address) as c:
            with pytest.raises(OSError, match="Read-only"):
                await c.write("dev/null", "x")


async def test_a_unix_socket_is_private_and_goes_with_its_server(tmp_path: Path) -> None:
    socket = tmp_path / "s"
    with serve("-l", f"unix!{socket}", "dev") as (address, policy):
        assert socket.stat().st_mode & 0o777 == 0o600
        assert policy == "root and this user attach as anybody, others as themselves"
        async with connect(address) as c:
            assert "null" in set(await names(c, "dev"))
    assert not socket.exists()


@root_only
def test_another_user_of_a_unix_socket_is_himself_whatever_he_says() -> None:
    with tempfile.TemporaryDirectory() as folder, serve("-l", f"unix!{folder}/s", "dev", "host") as (address, _):
        Path(folder).chmod(0o711)
        (Path(folder) / "s").chmod(0o666)
        script = (
            "import os, sys, trio; from mk9p import connect; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "async def main():\n"
            f"  async with connect({address!r}, uname='root', n_uname=0) as c:\n"
            "    print((await c.read('status')).split()[0])\n"
            "    try: await c.write('dev/sysname', 'owned')\n"
            "    except PermissionError as e: print(e.strerror)\n"
            "trio.run(main)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.stdout == "name\npermission denied\n", done.stderr


async def test_only_those_asked_for_are_served() -> None:
    with serve("-l", "tcp!127.0.0.1!0", "cpu", "proc") as (address, _):
        async with connect(address) as c:
            assert await names(c) == ["cpu", "proc", "stats", "auth"]


async def test_without_names_all_are_served() -> None:
    with serve("-l", "tcp!127.0.0.1!0") as (address, _):
        async with connect(address) as c:
            listed = set(await names(c))
            assert {"ctl", "status", "events", "cpu", "mem", "irq", "dev", "proc", "cmd"} <= listed
            assert "kernels" not in listed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "mk9p serve: no resource server 'nowhere'; there are: chan cmd cpu "),
        (["-l", "nonsense"], "mk9p serve: bad dial string 'nonsense'"),
        (["-l", "tcp!127.0.0.1!1!2"], "mk9p serve: "),
        (["cpu?nonsense=1"], "mk9p serve: cpu: no option 'nonsense'; there are: root"),
        (["fs:/?nonsense=1"], "mk9p serve: fs: no option 'nonsense'; there are: ro xdev descriptors"),
        (["cpu:0"], "mk9p serve: cpu: it takes no argument: say cpu alone"),
        (["fs"], "mk9p serve: fs: it wants an argument, fs:PATH"),
        (["fs:/nowhere/at/all"], "mk9p serve: fs: /nowhere/at/all: No such file or directory"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words: list[str], said: str) -> None:
    done = subprocess.run([*ME, "serve", *words], capture_output=True, text=True, check=False, timeout=SOON)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("mk9p: ")]
    assert len(lines) == 1
    assert lines[0].startswith(said)


def test_wrong_use_is_told_and_is_status_2() -> None:
    for words, said in (
        ([], "usage: mk9p [-a DIAL] [-c CONTEXT] [--cap FILE] COMMAND"),
        (["ls", "--nosuchoption"], "usage: mk9p ls "),
        (["nosuchcommand"], "mk9p: no command 'nosuchcommand'; `mk9p --help` lists them\n"),
        (["mont"], "mk9p: no command 'mont'; similar: mount umount unmount\n"),
        (["-a"], "mk9p: -a wants a dial string and a command: "),
        (["-a", "ls"], "mk9p: -a wants a dial string and a command: "),
    ):
        done = subprocess.run([*ME, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert (done.stdout + done.stderr).startswith(said)


def test_it_tells_its_version() -> None:
    done = subprocess.run([*ME, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"mk9p {version('mk9p')}\n"


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("cpu", Spec("cpu")),
        ("fs:/srv/data?ro", Spec("fs", "/srv/data", {"ro": "on"})),
        ("cpu?root=/x&y=z=1", Spec("cpu", None, {"root": "/x", "y": "z=1"})),
    ],
)
def test_a_server_is_named_with_an_argument_and_options(text: str, spec: Spec) -> None:
    assert Spec.parse(text) == spec


def test_the_server_of_a_descriptor_ends_with_it() -> None:
    with subprocess.Popen(
        [*ME, "serve", "-l", "fd!0!1", "dev"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=SOON) == 0


async def test_a_program_serves_a_tree_of_its_own_for_the_time_of_a_block(tmp_path: Path) -> None:
    tree = Dir({"hello": Text("hello\n")})
    async with mk9p.serve(tree, f"unix:{tmp_path}/s", "tcp:127.0.0.1:0", readonly=True) as served:
        assert served.addresses[0] == f"unix!{tmp_path}/s"
        for address in served.addresses:
            async with mk9p.connect(address) as ns:
                assert await ns.read("hello") == "hello\n"
    assert not (tmp_path / "s").exists()
    with pytest.raises(KeyError, match="mine"):
        async with mk9p.serve(tree, f"unix:{tmp_path}/s"):
            raise KeyError("mine")
    with pytest.raises(OSError, match="bad dial string"):
        async with mk9p.serve(tree, "nonsense"):
            raise AssertionError
    with trio.move_on_after(0.1) as scope:
        async with mk9p.serve(tree, f"unix:{tmp_path}/s"):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not (tmp_path / "s").exists()
