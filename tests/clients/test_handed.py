"""What v9fs gets over TLS, without v9fs: the keys for the kernel, and the relay where the kernel has no TLS."""

import os
import select
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
import trio

from mk9p import sync
from mk9p.client.agreement import tversion
from mk9p.clients import handed, v9fs
from mk9p.clients.mount_options import words
from mk9p.dial import Keys, blocking
from mk9p.dial.keys import VARIABLES
from mk9p.dial.ktls import crypto_info, expand
from mk9p.dial.tls import TlsLink
from mk9p.testing import SOON, in_thread, serving_at
from mk9p.tree import Dir, Text
from mk9p.wire import NOTAG, Dialect, codec
from mk9p.wire import messages as m
from tests.clients.mounting import mk9p, need_fuse
from tests.dial.keyring import Keyring
from tests.dial.test_tls import WhoAmI


def test_keys_are_derived_as_rfc_8448_does() -> None:
    # RFC 8448, 3: "{server} derive write traffic keys for application data"
    secret = bytes.fromhex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
    key = bytes.fromhex("9f02283b6c9c07efc26bb9f2ac92e356")
    iv = bytes.fromhex("cf782b88dd83549aadf1e984")
    assert expand(secret, b"key", 16, "sha256") == key
    assert expand(secret, b"iv", 12, "sha256") == iv
    # struct tls12_crypto_info_aes_gcm_128: version, cipher_type, iv[8], key[16], salt[4], rec_seq[8]
    assert crypto_info(secret, "TLS_AES_128_GCM_SHA256") == b"\x04\x03\x33\x00" + iv[4:] + key + iv[:4] + bytes(8)


@pytest.mark.parametrize("size", [1, 16384, 16385, 300_000])
def test_a_relay_carries_what_v9fs_says_over_tls(tmp_path: Path, size: int) -> None:

    ring = Keyring(tmp_path)
    with in_thread(serving_at("tls!127.0.0.1!0", Dir({"f": Text("x" * size)}), keys=ring.server)) as (host, _):
        link = blocking.dial(host.address, time.monotonic() + SOON, ring.issue("ann"))
        assert isinstance(link, TlsLink)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        thread = threading.Thread(target=v9fs.relay, args=(link, ours.fileno()))
        thread.start()
        # a whole client over the far end of the relay: fd! has a descriptor as a transport

        number = theirs.detach()
        with sync.connect(f"fd!{number}!{number}") as client:
            assert client.read("f") == "x" * size
        thread.join(SOON)
        assert not thread.is_alive(), "the relay ends with its client"
        link.close()
        ours.close()


async def test_a_server_that_sends_tickets_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Keyring(tmp_path)
    tell_all(monkeypatch, ring.issue("ann"))
    async with serving_at("tls!127.0.0.1!0", Dir({}), keys=ring.server) as host:
        assert not await handed.asked(host.address)
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # with OpenSSL's own number of tickets: two
    other.load_cert_chain(ring.server.cert, ring.server.key)

    def answer(server: socket.socket) -> None:
        sock, _ = server.accept()
        with other.wrap_socket(sock, server_side=True) as tls:
            tls.recv(100)
            tls.sendall(codec(Dialect.P9, m.Rversion.type).pack(NOTAG, 8192, "9P2000.L"))
            tls.recv(100)

    with socket.create_server(("127.0.0.1", 0)) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, answer, server)
            assert await handed.asked(f"tls!127.0.0.1!{server.getsockname()[1]}")


def tell_all(monkeypatch: pytest.MonkeyPatch, keys: Keys) -> None:
    for field, name in VARIABLES.items():
        monkeypatch.setenv(name, getattr(keys, field))


def test_a_fuse_mount_has_the_certificates_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_fuse()
    ring = Keyring(tmp_path)
    tell_all(monkeypatch, ring.issue("ann"))
    directory = tmp_path / "m"
    directory.mkdir()
    tree = Dir({"whoami": WhoAmI()})
    with in_thread(serving_at("tls!127.0.0.1!0", tree, keys=ring.server)) as (host, _):
        done = mk9p("mount", "--fuse", host.address, str(directory))
        assert done.returncode == 0, done.stderr
        try:
            assert (directory / "whoami").read_text().startswith("cert:ann ")
        finally:
            assert mk9p("umount", str(directory)).returncode == 0


def test_options_of_fstab_name_the_keys() -> None:
    assert words("ca=/a,cert=/b,key=/c") == ["--ca", "/a", "--cert", "/b", "--key", "/c"]


def test_a_relay_ends_when_the_server_does(tmp_path: Path) -> None:

    ring = Keyring(tmp_path)
    ann = ring.issue("ann")
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with in_thread(serving_at("tls!127.0.0.1!0", Dir({}), keys=ring.server)) as (host, _):
        link = blocking.dial(host.address, time.monotonic() + SOON, ann)
        assert isinstance(link, TlsLink)
        thread = threading.Thread(target=v9fs.relay, args=(link, ours.fileno()))
        thread.start()
        theirs.sendall(tversion(Dialect.L, 8192))
        assert select.select([theirs], [], [], SOON)[0], "an answer"
        assert os.read(theirs.fileno(), 100)[4] == 101
    thread.join(SOON)
    assert not thread.is_alive()
    link.close()
    ours.close()
    theirs.close()
