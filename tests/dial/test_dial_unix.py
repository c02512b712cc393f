import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from mk9p.dial import SocketLink, dial, listen
from mk9p.errors import NineError
from tests.dial.helpers_dial import ended, pair, talk

NOBODY = 65534
WMEM_MAX = int(Path("/proc/sys/net/core/wmem_max").read_text())


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others may enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="mk9p-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_who_may_not_make_a_socket_is_told_to_name_a_place_of_theirs(folder: Path) -> None:
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        os.setuid(NOBODY)
        try:
            trio.run(listen, f"unix!{folder}/s")
        except NineError as error:
            os.write(theirs, f"{error.errno} {error}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    said = os.read(ours, 1000).decode()
    os.close(ours)
    os.close(theirs)
    assert (
        said == f"{errno.EACCES} unix!{folder}/s: Permission denied: name a place of yours: unix:$XDG_RUNTIME_DIR/NAME"
    )


async def test_unix(tmp_path: Path) -> None:
    path = tmp_path / "run" / "mk9p" / "ns"
    listener = await listen(f"unix!{path}")
    assert (listener.address, listener.transport.name, listener.loopback) == (f"unix!{path}", "unix", True)
    assert path.parent.stat().st_mode & 0o777 == 0o755
    assert path.stat().st_mode & 0o777 == 0o600
    one, other = await pair(listener)
    for link in (one, other):
        assert (link.peer.transport.name, link.peer.private, link.peer.loopback) == ("unix", False, True)
        assert (link.peer.uid, link.peer.gid, link.peer.pid) == (os.getuid(), os.getgid(), os.getpid())
        assert link.peer.address == f"pid {os.getpid()}"
        assert isinstance(link, SocketLink)
        assert link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * min(1 << 20, WMEM_MAX)
    await talk(one, other)
    one.close()
    assert await ended(other)
    other.close()
    await listener.aclose()
    assert not path.exists()


async def test_unix_abstract() -> None:
    name = f"unix!@mk9p-test-{os.getpid()}"
    listener = await listen(name)
    assert listener.address == name
    with pytest.raises(NineError, match="somebody is already listening there"):
        await listen(name)
    one, other = await pair(listener)
    await talk(one, other)
    one.close()
    other.close()
    await listener.aclose()
    with pytest.raises(ConnectionRefusedError):
        await dial(name)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
async def test_unix_mode_is_exact_whatever_the_umask(mode: int, folder: Path) -> None:
    for umask in (0, 0o077):
        was = os.umask(umask)
        try:
            listener = await listen(f"unix!{folder}/a{umask}/s", mode=mode)
        finally:
            os.umask(was)
        assert (folder / f"a{umask}" / "s").stat().st_mode & 0o777 == mode
        assert (folder / f"a{umask}").stat().st_mode & 0o777 == 0o755
        await listener.aclose()


@pytest.mark.skipif(bool(os.geteuid()), reason="needs root to be somebody else")
async def test_unix_peer_is_who_connected(folder: Path) -> None:
    closed = await listen(f"unix!{folder}/closed")
    listener = await listen(f"unix!{folder}/open", mode=0o666)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(
            PermissionError, match=r"/closed: Permission denied: this socket is for its owner: be that user, or root$"
        ):
            await dial(closed.address)
        one = await dial(listener.address)
    finally:
        os.seteuid(0)
    other = await listener.accept()
    assert other.peer.uid == NOBODY
    for each in (one, other):
        each.close()
    await closed.aclose()
    await listener.aclose()


async def test_unix_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
        dead.listen()
    with pytest.raises(ConnectionRefusedError, match="nobody listens there any more"):
        await dial(f"unix!{path}")
    listener = await listen(f"unix!{path}")
    with pytest.raises(NineError, match=f"^unix!{path}: somebody is already listening there$") as caught:
        await listen(f"unix!{path}")
    assert caught.value.errno == errno.EADDRINUSE
    (await listener.accept()).close()  # that was the question whether anybody is there
    one, other = await pair(listener)
    one.close()
    other.close()
    await listener.aclose()


async def test_unix_leaves_other_files_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(NineError, match="no socket: it is left as it is"):
        await listen(f"unix!{path}")
    assert path.read_text() == "precious"
    path.unlink()
    listener = await listen(f"unix!{path}")
    path.unlink()
    successor = await listen(f"unix!{path}")
    await listener.aclose()
    assert path.is_socket()
    await successor.aclose()
    assert not path.exists()


async def test_unix_waits_for_room_in_a_full_queue(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as first:
        full.bind(os.fspath(tmp_path / "s"))
        full.listen(0)
        first.connect(os.fspath(tmp_path / "s"))
        with trio.move_on_after(0.05) as scope:
            await dial(f"unix!{tmp_path}/s")
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:

            async def late() -> None:
                (await dial(f"unix!{tmp_path}/s")).close()

            nursery.start_soon(late)
            await trio.testing.wait_all_tasks_blocked()
            full.accept()[0].close()
