"""A capability shown by other people's clients: python-9p by Tauth, diod's tools by the name of the tree."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from mk9p.testing import SOON, child
from mk9p.testing.processes import hear

ME = [sys.executable, "-m", "mk9p"]


@attrs.frozen
class Shared:
    """A server of a directory, by tcp and a unix socket, and a capability to read there."""

    socket: str
    port: str
    text: str
    env: dict[str, str]


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "f").write_text("text\n")
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "MK9P": f"unix!{tmp_path}/s"}
    words = ["serve", "-l", "tcp!127.0.0.1!0", "-l", env["MK9P"], f"fs:{data}"]
    with child([*ME, *words], "", env=env, stderr=subprocess.PIPE) as server:
        port = hear(server, "listening on tcp").rpartition("!")[2].strip()
        hear(server, "listening on unix")
        granted = subprocess.run([*ME, "grant", "/fs/data", "r"], env=env, capture_output=True, text=True, timeout=SOON)
        assert granted.returncode == 0, granted.stderr
        yield Shared(f"{tmp_path}/s", port, granted.stdout.strip(), env)


def test_python_9p_shows_it_by_tauth(shared: Shared) -> None:
    import py9p  # type: ignore[import-untyped]

    def client() -> py9p.Client:
        made = py9p.Client.connect_tcp("127.0.0.1", int(shared.port))
        made.negotiate()
        return made

    with client() as ninep:
        with pytest.raises(py9p.RemoteError, match="authentication not required"):
            ninep.rpc(py9p.messages.Tauth(afid=9, uname="ann"), py9p.messages.Rauth)
        qid = ninep.rpc(py9p.messages.Tauth(afid=9, uname="ann", aname="cap!"), py9p.messages.Rauth).aqid
        assert qid.type == 0x08
        with pytest.raises(py9p.RemoteError, match="no capability was written"):
            ninep.attach(0, uname="ann", aname="cap!", afid=9)
        ninep.write(9, shared.text.encode())
        ninep.attach(0, uname="ann", aname="cap!", afid=9)
        ninep.walk(0, 1, ["f"])
        ninep.open(1)
        assert ninep.read(1) == b"text\n"
        ninep.walk(0, 2, ["f"])
        with pytest.raises(py9p.RemoteError):
            ninep.open(2, 1)
        assert len(ninep.walk(0, 3, ["..", "..", "auth"])) == 2
    assert (
        subprocess.run(
            [*ME, "revoke", "--cap", "-"], input=shared.text, text=True, env=shared.env, timeout=SOON
        ).returncode
        == 0
    )
    with client() as ninep:
        ninep.rpc(py9p.messages.Tauth(afid=9, uname="ann", aname="cap!"), py9p.messages.Rauth)
        ninep.write(9, shared.text.encode())
        with pytest.raises(py9p.RemoteError, match="is revoked"):
            ninep.attach(0, uname="ann", aname="cap!", afid=9)


def test_diods_tools_show_it_in_the_name_of_the_tree(shared: Shared, diodcat: str, diodls: str) -> None:
    def run(program: str, aname: str, *words: str) -> "subprocess.CompletedProcess[bytes]":
        options = ["-s", f"127.0.0.1:{shared.port}", "-a", aname, "-t", "60"]
        return subprocess.run([program, *options, *words], capture_output=True, timeout=SOON)

    assert run(diodcat, f"cap!{shared.text}", "f").stdout == b"text\n"
    assert run(diodls, f"cap!{shared.text}", "/").stdout.split() == [b"f"]
    assert run(diodcat, "fs/data", "f").returncode != 0, "nobody may read it without"
    refused = run(diodcat, f"cap!{shared.text[:-1]}", "f")
    assert refused.returncode != 0
    assert b"Permission denied" in refused.stderr
