"""What a command says of a path that leads nowhere: why the mounted server is down, which kernels there are, where the namespace is."""

import socket
import subprocess
import sys
from pathlib import Path

import trio

from mk9p.composing import namespace
from mk9p.testing import SOON, serving_at
from mk9p.tree import Dir, Text

ME = [sys.executable, "-m", "mk9p"]


async def test_an_error_says_why_the_server_is_down_and_which_kernels_there_are(tmp_path: Path) -> None:
    gone, where = f"unix!{tmp_path}/gone", f"unix!{tmp_path}/ns"
    why = f"Input/output error: k/gone is down: {gone}: no such socket: is its server running?"
    there = "no kernel none; there are: gone here"

    async def said(*words: str) -> str:
        done = await trio.run_process(
            [*ME, "-a", where, *words], check=False, capture_stdout=True, capture_stderr=True, stdin=b""
        )
        assert done.returncode == 1
        return done.stderr.decode()

    async with trio.open_nursery() as nursery, serving_at(f"unix!{tmp_path}/here", Dir({"f": Text("x\n")})):
        ns = namespace(nursery)
        await ns.run(f"mount unix!{tmp_path}/here /k/here\nmount {gone} /k/gone\n")
        with trio.fail_after(10 * SOON):
            async with serving_at(where, ns.root):
                assert await said("ls", "k/gone") == f"mk9p: k/gone: {why}\n"
                assert await said("ls", "-l", "k") == f"mk9p: k/gone: {why}\n"
                assert await said("edit", "k/gone/f") == f"mk9p edit: k/gone/f: {why}\n"
                assert await said("cp", ":k/gone/f", str(tmp_path / "f")) == f"mk9p cp: :k/gone/f: {why}\n"
                assert await said("run", "gone", "--", "true") == f"mk9p run: k/gone: {why}\n"
                assert await said("ps", "gone") == f"mk9p: gone: {why}\n"
                assert await said("ls", "k/none/cpu") == f"mk9p: k/none/cpu: {there}\n"
                assert await said("ls", "k/here/none") == "mk9p: k/here/none: No such file or directory\n"
                assert "this namespace has no kernels/" in await said("wait", "here", "active")
        nursery.cancel_scope.cancel()


def test_who_says_where_the_namespace_is_needs_no_hint_how_to_say_it(tmp_path: Path) -> None:
    said = subprocess.run([*ME, "-a", f"unix:{tmp_path}/s", "ls"], capture_output=True, text=True, timeout=SOON)
    assert said.stderr == f"mk9p ls: unix!{tmp_path}/s: no such socket: is its server running?\n"
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    said = subprocess.run([*ME, "ls", "-a", f"tcp:127.0.0.1:{port}"], capture_output=True, text=True, timeout=SOON)
    assert said.stderr == f"mk9p ls: tcp!127.0.0.1!{port}: Connection refused: is its server running?\n"
    command = [*ME, "ls", "-a", f"unix:{tmp_path}/s", "--cap", f"{tmp_path}/none"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=SOON)
    assert said.stderr == f"mk9p ls: {tmp_path}/none: No such file or directory\n"
