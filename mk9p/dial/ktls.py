"""TLS whose records the kernel makes and reads (Documentation/networking/tls.rst): the descriptor then carries clear text for anybody, also for v9fs.

The handshake is OpenSSL's, over two buffers in memory, because nothing of what comes after it may be taken from the kernel. It tells the secrets of
the traffic as every TLS library does for debugging (the key log), here into a file that has no name; from them come keys (RFC 8446, 7.1 and 7.3), and
setsockopt(2) gives these to the kernel.

A server that sends tickets after the handshake would need OpenSSL to take them: the kernel only says EIO. Servers of mk9p send none, and a caller
finds out before (clients/handed.py).
"""

import errno
import hmac
import os
import socket
import ssl
import struct
import subprocess
from typing import Final

from mk9p.dial import tcp
from mk9p.dial.address import Dial
from mk9p.dial.keys import to_dial
from mk9p.dial.link import Refused
from mk9p.dial.tls_context import fresh
from mk9p.dial.tls_words import broken
from mk9p.errors import NineError

# <linux/tls.h>, <netinet/tcp.h>
_SOL_TLS, _TLS_TX, _TLS_RX, _TCP_ULP = 282, 1, 2, 31
_TLS_1_3: Final = 0x0304
# by OpenSSL's name: the kernel's number, the length of the key, the length of the salt, the hash
_CIPHERS: Final = {
    "TLS_AES_128_GCM_SHA256": (51, 16, 4, "sha256"),
    "TLS_AES_256_GCM_SHA384": (52, 32, 4, "sha384"),
    "TLS_CHACHA20_POLY1305_SHA256": (54, 32, 0, "sha256"),
}
_IV: Final = 12
_HEAD: Final = 5  # bytes of a record's head; the last two are its length
_MODULES: Final = ("tls", "gcm", "ctr", "ghash-generic")  # not every kernel loads the ciphers by itself
AVAILABLE: Final = "/proc/sys/net/ipv4/tcp_available_ulp"


def able() -> bool:
    """Tell whether this kernel has TLS; load its modules if necessary."""
    for module in _MODULES:
        try:
            subprocess.run(["modprobe", "-q", module], check=False, stderr=subprocess.DEVNULL)
        except FileNotFoundError:
            break
    try:
        with open(AVAILABLE, encoding="ascii") as file:
            return "tls" in file.read().replace("\n", " ").split(" ")
    except FileNotFoundError:
        return False


async def dial(where: Dial) -> socket.socket | None:
    """Dial a `tls!` address; return a socket whose TLS the kernel does, None if it does not take the keys. Raises as `mk9p.dial.dial`."""
    host, _ = where.host_port()
    try:
        made = fresh(where.keys or to_dial())
    except NineError as error:
        raise where.refuse(error.errno, str(error)) from None
    link = await tcp.dial(where)
    sock = link.sock
    try:
        try:
            secrets, cipher = await _shake(sock, made, "localhost" if host == "*" else host)
        except Refused as error:
            raise where.refuse(error.errno or errno.EPROTO, error.strerror or "") from None
        except OSError as error:
            raise where.failed(error) from None
        given = _give(sock, secrets, cipher)
    except BaseException:
        link.close()
        raise
    if not given:
        link.close()
        return None
    return sock


async def _shake(sock: socket.socket, made: ssl.SSLContext, host: str) -> tuple[dict[str, bytes], str]:
    """Do a client's handshake and take nothing that comes after it; return the secrets of both directions by their label, and the cipher."""
    import trio

    async def take(count: int) -> bytes:
        got = b""
        while len(got) < count:
            try:
                more = sock.recv(count - len(got))
            except BlockingIOError:
                await trio.lowlevel.wait_readable(sock)
                continue
            if not more:
                raise broken(ssl.SSLEOFError(), host, shaking=True)
            got += more
        return got

    async def give(data: bytes) -> None:
        while data:
            try:
                data = data[sock.send(data) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(sock)

    log = os.memfd_create("mk9p-tls", os.MFD_CLOEXEC)
    try:
        made.keylog_filename = f"/proc/self/fd/{log}"
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = made.wrap_bio(incoming, outgoing, server_hostname=host)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await give(outgoing.read())
                head = await take(_HEAD)
                incoming.write(head + await take(int.from_bytes(head[3:], "big")))
            except ssl.SSLError as error:
                await give(outgoing.read())  # the alert: the server's log says why
                raise broken(error, host, shaking=True) from None
        await give(outgoing.read())
        text = os.pread(log, 1 << 16, 0).decode("ascii")
    finally:
        os.close(log)
    fields = [line.split(" ") for line in text.split("\n") if line and not line.startswith("#")]
    cipher = tls.cipher()
    assert cipher is not None
    return {label: bytes.fromhex(secret) for label, _, secret in fields}, cipher[0]


def _give(sock: socket.socket, secrets: dict[str, bytes], cipher: str) -> bool:
    """Give the kernel the keys of a socket; False if it has no TLS, or not this cipher."""
    if cipher not in _CIPHERS:
        return False
    try:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_ULP, b"tls")
        sock.setsockopt(_SOL_TLS, _TLS_TX, crypto_info(secrets["CLIENT_TRAFFIC_SECRET_0"], cipher))
        sock.setsockopt(_SOL_TLS, _TLS_RX, crypto_info(secrets["SERVER_TRAFFIC_SECRET_0"], cipher))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EOPNOTSUPP, errno.ENOPROTOOPT, errno.EINVAL):
            return False
        raise
    return True


def crypto_info(secret: bytes, cipher: str) -> bytes:
    """Return the kernel's struct tls12_crypto_info_* of one direction, from the secret of its traffic."""
    kind, length, salted, name = _CIPHERS[cipher]
    key, iv = expand(secret, b"key", length, name), expand(secret, b"iv", _IV, name)
    return struct.pack("=HH", _TLS_1_3, kind) + iv[salted:] + key + iv[:salted] + bytes(8)


def expand(secret: bytes, label: bytes, length: int, name: str) -> bytes:
    """Return HKDF-Expand-Label of RFC 8446, 7.1, with no context and at most as many bytes as the hash has."""
    label = b"tls13 " + label
    info = struct.pack(">HB", length, len(label)) + label + b"\0"
    return hmac.digest(secret, info + b"\1", name)[:length]
