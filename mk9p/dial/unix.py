"""unix: unix(7).

A listener's socket is bound, gets its mode, and only then listens: before listen(2) nobody can connect, whatever the umask was. When it closes, it
first removes its file, and only if the file is still its own, so it never removes a successor's. An abstract address (`unix!@name`) has no file
and so no mode: everybody in the network namespace can connect, and `Peer.uid` says who it was.
"""

import errno
import os
import socket
import stat
import struct
from functools import partial
from typing import Final

from mk9p.dial import blocking, sockets
from mk9p.dial.address import Dial, Transport
from mk9p.dial.link import Peer, SocketLink
from mk9p.dial.sockets import SocketListener

_LONGEST: Final = 107  # bytes: sun_path without its final NUL
_SO_PEERGROUPS: Final = 59  # asm-generic/socket.h; Python has no name for it
_NGROUPS_MAX: Final = 65536
_WINDOW: Final = 1 << 20  # bytes that the kernel holds for the reader: a window of 8 replies at 128 KiB


async def dial(where: Dial) -> SocketLink:
    return _connected(where, await connect(where))


def dial_now(where: Dial, deadline: float) -> SocketLink:
    return _connected(where, connect_now(where, deadline))


def _connected(dial: Dial, sock: socket.socket) -> SocketLink:
    """Return the link over a socket that is connected, or close it and raise."""
    try:
        return link_of(dial.transport, sock)
    except BaseException:
        sock.close()
        raise


async def connect(dial: Dial) -> socket.socket:
    """Return a socket that is connected to a path."""
    sock, where = _socket(dial)
    try:
        await sockets.connect(sock, where)
    except OSError as error:
        raise _failed(dial, error) from None
    return sock


def connect_now(dial: Dial, deadline: float) -> socket.socket:
    """Return a socket that is connected to a path, without trio."""
    sock, where = _socket(dial)
    try:
        return blocking.connected(sock, where, deadline)
    except OSError as error:
        raise _failed(dial, error) from None


def _socket(dial: Dial) -> tuple[socket.socket, str]:
    """Return a socket, and the address to connect it to."""
    where = _where(dial)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock, where


def _failed(dial: Dial, error: OSError) -> OSError:
    """Return the error to raise when connecting failed."""
    if isinstance(error, FileNotFoundError):
        return dial.refuse(errno.ENOENT, "no such socket: is its server running?")
    if isinstance(error, ConnectionRefusedError):
        return dial.refuse(errno.ECONNREFUSED, "Connection refused: nobody listens there any more")
    if isinstance(error, PermissionError):
        return dial.refuse(errno.EACCES, "Permission denied: this socket is for its owner: be that user, or root")
    return error


async def listen(where: Dial, mode: int) -> SocketListener:
    return _listen(where, mode)


def _listen(dial: Dial, mode: int) -> SocketListener:
    where = _where(dial)
    if where.startswith("\0"):
        path, address = None, dial.address
    else:
        path = os.path.abspath(dial.rest)
        address = dial._replace(rest=path).address
        _make_room(dial, path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    own: tuple[int, int] | None = None
    try:
        sock.setblocking(False)
        try:
            sock.bind(where)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise dial.refuse(errno.EADDRINUSE, "somebody is already listening there") from None
            raise
        if path is not None:
            made = os.lstat(path)
            own = (made.st_dev, made.st_ino)
            os.chmod(path, mode)
        sock.listen(socket.SOMAXCONN)
    except BaseException:
        _remove(path, own)
        sock.close()
        raise
    return SocketListener(
        sock,
        partial(link_of, dial.transport),
        address=address,
        transport=dial.transport,
        loopback=True,
        before_close=lambda: _remove(path, own),
    )


def _where(dial: Dial) -> str:
    path = dial.rest
    where = "\0" + path[1:] if path.startswith("@") else path
    if path == "@" or len(os.fsencode(where)) > _LONGEST:
        raise dial.refuse(
            errno.ENAMETOOLONG if len(path) > 1 else errno.EINVAL, f"a socket's path has 1 to {_LONGEST} bytes"
        )
    return where


def _make_room(dial: Dial, path: str) -> None:
    """Make the parent directory if necessary, and remove a socket that nobody listens on."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder)
        os.chmod(folder, 0o755)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise dial.refuse(errno.EADDRINUSE, "a file is in the way that is no socket: it is left as it is")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(path)
    # EAGAIN: its queue is full; EPROTOTYPE: it has datagrams; EACCES: this user may not find out
    if code != errno.ECONNREFUSED:
        raise dial.refuse(errno.EADDRINUSE, "somebody is already listening there")
    os.unlink(path)


def _remove(path: str | None, own: tuple[int, int] | None) -> None:
    if path is None or own is None:
        return
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if (found.st_dev, found.st_ino) == own:
        os.unlink(path)


def link_of(transport: Transport, sock: socket.socket, _: object = None) -> SocketLink:
    """Return the link over a connected socket, with what the kernel tells of its peer."""
    pid, uid, gid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    # Only the sender's buffer holds what was sent, and three large replies fill its default of 208 KiB; TCP's buffers grow as needed.
    # net.core.wmem_max may allow less.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _WINDOW)
    return SocketLink(sock, Peer(transport, f"pid {pid}", uid, gid, _groups(sock), pid, loopback=True))


def _groups(sock: socket.socket) -> tuple[int, ...]:
    """Return the groups that the peer was in when it connected (SO_PEERGROUPS of unix(7)), however many."""
    try:
        packed = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        import ctypes

        # More than 256, and Python's getsockopt takes no larger buffer.
        buffer, size = ctypes.create_string_buffer(4 * _NGROUPS_MAX), ctypes.c_uint(4 * _NGROUPS_MAX)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.getsockopt(sock.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, buffer, ctypes.byref(size)) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code)) from None
        packed = buffer.raw[: size.value]
    return struct.unpack(f"{len(packed) // 4}I", packed)
