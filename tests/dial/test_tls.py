"""tls: who is who, what is refused in which words, and what happens when files change while somebody is connected."""

import errno
import logging
import socket
import ssl
import subprocess
from pathlib import Path
from random import Random

import pytest
import trio
import trio.lowlevel

from mk9p import sync
from mk9p.auth import NO_ID
from mk9p.certificates import Authority
from mk9p.client import connect
from mk9p.dial import Keys, Refused, dial, listen
from mk9p.dial.keys import VARIABLES
from mk9p.dial.tls import TlsLink
from mk9p.dial.tls_words import name_in
from mk9p.errors import NineError
from mk9p.serving import describe, policy_for
from mk9p.testing import SOON, Memory, in_thread, serving_at, until
from mk9p.tree import Dir, Handle, Maybe, Open, Text
from tests.dial.helpers_dial import ended, send_all, talk
from tests.dial.keyring import Keyring
from tests.server.composed import composed

HERE = "tls!127.0.0.1!0"


class WhoAmI(Text):
    """Who has opened it."""

    def __init__(self) -> None:
        super().__init__("")

    def open(self, how: Open) -> Maybe[Handle]:
        return Text(f"{how.who.name} {how.who.uid}\n").open(how)


def tree() -> Dir:
    return Dir({"whoami": WhoAmI(), "hi": Text("hello\n")})


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path)


async def test_whoever_comes_is_the_name_of_their_certificate_whatever_they_say(ring: Keyring) -> None:
    ann = ring.issue("ann")
    async with serving_at(HERE, tree(), keys=ring.server) as host:
        for name, number in (("root", 0), ("cert:bob", NO_ID), ("guest:k1", NO_ID), ("", 0)):
            async with connect(host.address, uname=name, n_uname=number, tls=ann) as client:
                assert await client.read("whoami") == f"cert:ann {NO_ID}\n"


async def test_what_openssl_keeps_for_a_connection_counts_for_its_user(ring: Keyring) -> None:
    async with (
        serving_at(HERE, tree(), keys=ring.server) as host,
        connect(host.address, tls=ring.issue("ann")) as client,
    ):
        assert await client.read("hi") == "hello\n"
        (connection,) = host.server.connections
        assert connection.account.who.name == "cert:ann"
        assert connection.account.used >= 65536


async def test_large_messages_go_both_ways_side_by_side(ring: Keyring) -> None:
    ann, data = ring.issue("ann"), bytes(range(256)) * 8192
    stored = Memory({f"f{n}": Memory(b"", mode=0o666) for n in range(4)})
    async with serving_at(HERE, stored, keys=ring.server) as host, connect(host.address, tls=ann) as client:

        async def both(name: str) -> None:
            await client.write(name, data)
            assert await client.read_bytes(name) == data

        with trio.fail_after(SOON):
            async with trio.open_nursery() as nursery:
                for n in range(4):
                    nursery.start_soon(both, f"f{n}")


async def test_a_composer_reaches_servers_over_it_with_its_own_keys(
    ring: Keyring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = ring.issue("composer")
    for field, name in VARIABLES.items():
        monkeypatch.setenv(name, getattr(mine, field))
    data = bytes(range(256)) * 4096
    far = Dir({"whoami": WhoAmI(), "f": Memory(data)})
    with trio.fail_after(SOON):
        async with (
            serving_at(HERE, far, keys=ring.server) as host,
            composed(tmp_path, {}) as front,
            connect(front) as one,
            connect(front) as other,
        ):
            await one.write("ctl", f"mount {host.address} /n/far")
            for client in (one, other):
                assert await client.read("n/far/whoami") == f"cert:composer {NO_ID}\n"
                assert await client.read_bytes("n/far/f") == data
            assert {c.link.peer.user for c in host.server.connections} == {"cert:composer"}


def test_the_client_that_blocks_speaks_it_too(ring: Keyring) -> None:
    ann, data = ring.issue("ann"), bytes(range(256)) * 8192
    stored = Memory({"f": Memory(b"", mode=0o666)})
    with in_thread(serving_at(HERE, stored, keys=ring.server)) as (host, _):
        with sync.connect(host.address, tls=ann) as client:
            client.write("f", data)
            assert client.read_bytes("f") == data
        with pytest.raises(NineError, match="give --cert and --key"):
            sync.connect(host.address, tls=Keys(ca=ann.ca))


async def test_nothing_is_left_inside_openssl_where_epoll_cannot_see_it(ring: Keyring) -> None:
    ann = ring.issue("ann")
    listener = await listen(HERE, keys=ring.server)
    one, other = await _pair(listener.address, listener.accept, ann)
    await talk(one, other)
    await send_all(one, b"x" * 20000)
    got = 0
    with trio.fail_after(SOON):
        while got < 20000:  # a reader with little room waits by `wait_readable`, which knows what OpenSSL has
            await other.wait_readable()
            got += other.recv_into(memoryview(bytearray(7)))
    one.close()
    assert await ended(other)
    other.close()
    await listener.aclose()


async def _pair(address: str, accept: object, keys: Keys) -> tuple[TlsLink, TlsLink]:
    links: list[TlsLink] = []

    async def take() -> None:
        link = await accept()  # type: ignore[operator]
        while link.shake():
            await link.wait_readable()
        links.append(link)

    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            one = await dial(address, keys)
    assert isinstance(one, TlsLink)
    return one, links[0]


def test_a_listener_says_that_its_users_are_known() -> None:
    class Fake:
        from mk9p.dial import TRANSPORTS

        transport, loopback, address = TRANSPORTS["tls"], False, "tls!*!1"

        async def accept(self) -> TlsLink:
            raise NotImplementedError

        async def aclose(self) -> None:
            raise NotImplementedError

    policy = policy_for(Fake(), trust=False, readonly=False)
    assert not policy.readonly
    assert describe(Fake(), policy) == "whoever comes is cert:NAME, the name in their certificate"


async def test_plain_tcp_beyond_this_machine_says_that_nobody_is_known_and_changes_nothing() -> None:
    for address, known in (("tcp!*!0", False), ("tcp!127.0.0.1!0", True)):
        listener = await listen(address)
        policy = policy_for(listener, trust=False, readonly=False)
        said = describe(listener, policy)
        assert said.startswith("nobody is known here: everybody is `none`") is not known
        assert said.endswith("(tls! knows who comes); nothing can be changed") is not known
        assert policy.readonly is not known
        await listener.aclose()


# What is refused: one line at the client, one in the log.


@pytest.mark.parametrize(
    ("case", "client", "log"),
    [
        ("expired", "it refuses our certificate, which has expired by its clock", "it has expired (by this machine's"),
        (
            "early",
            "it refuses our certificate: not valid yet by its clock, for another name, or damaged",
            "it is not valid yet (by",
        ),
        ("stranger", "it refuses our certificate: it does not know the authority", "an authority that is not in --ca"),
        ("revoked", "it refuses our certificate, which was revoked", "it was revoked"),
        ("none", "it lets in only who has a certificate: give --cert and --key", "the client has no certificate"),
    ],
)
async def test_a_client_that_is_refused_reads_why_and_so_does_the_log(
    ring: Keyring, tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str, client: str, log: str
) -> None:
    keys = {
        "expired": lambda: ring.issue("ann", days=1, start=-2),
        "early": lambda: ring.issue("ann", start=2),
        "stranger": lambda: Keyring(tmp_path / "other").issue("ann")._replace(ca=ring.server.ca, crl=ring.server.crl),
        "revoked": lambda: ring.issue("ann"),
        "none": lambda: Keys(ca=ring.server.ca),
    }[case]()
    if case == "revoked":
        ring.authority.revoke("ann")
    async with serving_at(HERE, tree(), keys=ring.server) as host:
        with pytest.raises(NineError) as refused:
            async with connect(host.address, tls=keys):
                raise AssertionError("it came in")
        assert str(refused.value).count("\n") == 0
        assert host.address in str(refused.value)
        assert client in str(refused.value)
        with trio.fail_after(SOON):
            await until(lambda: not host.server.connections)
        assert host.server.tally.refused == {"tls": 1}
    (line,) = [each.getMessage() for each in caplog.records if each.name == "mk9p.server"]
    assert line.startswith("refused why=tls from=tls!127.0.0.1!")
    assert log in line


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("name", "the server's certificate is refused: it is not for the name localhost"),
        ("expired", "the server's certificate is refused: it has expired (by this machine's clock it is 20"),
        ("early", "the server's certificate is refused: it is not valid yet (by this machine's clock it is 20"),
        ("stranger", "the server's certificate is refused: it comes from an authority that is not in --ca"),
        ("revoked", "the server's certificate is refused: it was revoked"),
        ("client", "the server's certificate is refused: it is not made for this end of a connection"),
    ],
)
async def test_a_server_that_is_not_believed_is_told_in_one_line(
    ring: Keyring, tmp_path: Path, case: str, words: str
) -> None:
    ann = ring.issue("ann")
    server = {
        "name": lambda: ring.issue("other", "elsewhere.example"),
        "expired": lambda: ring.issue("old", "localhost", days=1, start=-2),
        "early": lambda: ring.issue("new", "localhost", start=2),
        "stranger": lambda: Keyring(tmp_path / "other").server,
        "revoked": lambda: ring.issue("gone", "localhost"),
        "client": lambda: ring.issue("bob"),
    }[case]()
    if case == "revoked":
        ring.authority.revoke("gone")
    async with serving_at("tls!localhost!0", tree(), keys=server) as host:
        with pytest.raises(NineError) as refused:
            async with connect(host.address, tls=ann):
                raise AssertionError("it was believed")
    assert str(refused.value).startswith(f"{host.address}: {words}")


async def test_a_client_without_tls_at_a_tls_port_and_the_reverse(
    ring: Keyring, caplog: pytest.LogCaptureFixture
) -> None:
    ann = ring.issue("ann")
    async with serving_at(HERE, tree(), keys=ring.server) as host:
        plain = host.address.replace("tls!", "tcp!")
        with pytest.raises(NineError, match=r"this is no 9P server: it speaks TLS: dial tls!"):
            async with connect(plain):
                raise AssertionError("it came in")
        with trio.fail_after(SOON):
            await until(lambda: host.server.tally.refused == {"tls": 1})
    async with serving_at("tcp!127.0.0.1!0", tree()) as host:
        with pytest.raises(NineError, match="is it a port without TLS"):
            async with connect(host.address.replace("tcp!", "tls!"), tls=ann):
                raise AssertionError("it came in")
        with trio.fail_after(SOON):
            await until(lambda: host.server.tally.refused == {"protocol": 1})
    first, second = [each.getMessage() for each in caplog.records if each.name == "mk9p.server"]
    assert "it does not speak TLS" in first
    assert "it speaks TLS, and this end does not" in second


async def test_who_only_looks_whether_somebody_listens_is_no_line_in_the_log(
    ring: Keyring, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving_at(HERE, tree(), keys=ring.server) as host:
        socket.create_connection(("127.0.0.1", int(host.address.rpartition("!")[2]))).close()
        async with connect(host.address, tls=ring.issue("ann")) as client:
            assert await client.read("hi") == "hello\n"
        with trio.fail_after(SOON):
            await until(lambda: not host.server.connections)
        assert host.server.tally.refused == {}
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []


async def test_a_client_that_never_ends_its_handshake_has_no_longer_than_one_that_never_attaches(ring: Keyring) -> None:
    from mk9p.server import Limits

    async with serving_at(HERE, tree(), keys=ring.server, limits=Limits(handshake=0.2)) as host:
        port = int(host.address.rpartition("!")[2])
        with socket.create_connection(("127.0.0.1", port)) as half:
            half.sendall(b"\x16\x03\x01\x02\x00\x01")
            with trio.fail_after(SOON):
                await until(lambda: host.server.tally.refused == {"handshake": 1})


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_a_peer_sends_ends_its_own_connection_and_no_other(ring: Keyring, seed: int) -> None:
    random, ann = Random(seed), ring.issue("ann")
    async with serving_at(HERE, tree(), keys=ring.server) as host, connect(host.address, tls=ann) as client:
        port = int(host.address.rpartition("!")[2])
        hello = _hello(ring)
        for _ in range(20):
            data = bytearray(hello)
            for _ in range(random.randrange(1, 6)):
                data[random.randrange(len(data))] = random.randrange(256)
            data += random.randbytes(random.randrange(0, 200))
            with socket.create_connection(("127.0.0.1", port)) as rude:
                rude.sendall(data[: random.randrange(1, len(data))])
                await trio.lowlevel.checkpoint()
        assert await client.read("hi") == "hello\n"
        with trio.fail_after(SOON):
            await until(lambda: len(host.server.connections) == 1)


def _hello(ring: Keyring) -> bytes:
    """Return what a client of TLS says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ring.server.ca)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


# Files


async def test_a_new_certificate_is_taken_without_a_signal_and_ends_no_connection(
    ring: Keyring, caplog: pytest.LogCaptureFixture
) -> None:
    ann = ring.issue("ann")
    async with (
        serving_at(HERE, tree(), keys=ring.server) as host,
        connect(host.address, tls=ann) as client,
    ):

        async def serial() -> str:
            link = await dial(host.address, ann)
            assert isinstance(link, TlsLink)
            found = (link.sock.getpeercert() or {})["serialNumber"]
            link.close()
            assert isinstance(found, str)
            return found

        before = await serial()
        await trio.Path(ring.server.cert).write_text("nonsense")
        assert await serial() == before, "the old ones count while the new ones are wrong"
        assert await serial() == before
        errors = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
        assert len(errors) == 1, "said once"
        assert "no PEM file of a certificate and its key" in errors[0]
        ring.authority.issue("server", ring.where, ["localhost", "127.0.0.1"], renew=True)
        assert await serial() != before
        assert await client.read("hi") == "hello\n"


def test_an_authority_whose_list_is_gone_forgets_nothing(ring: Keyring) -> None:
    ring.issue("ann")
    ring.issue("bob")
    ring.authority.revoke("ann")
    listed = Path(ring.authority.keys.crl)
    data = listed.read_bytes()
    listed.unlink()
    with pytest.raises(NineError, match="it is gone, and so is what was revoked") as caught:
        ring.authority.revoke("bob")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(FileNotFoundError):
        ring.authority.issued()
    assert not listed.exists()
    listed.write_bytes(data)
    ring.authority.revoke("bob")
    assert {each.name: each.state for each in ring.authority.issued()} == {
        "ann": "revoked",
        "bob": "revoked",
        "server": "good",
    }


async def test_the_connections_of_a_revoked_certificate_end_and_no_others(
    ring: Keyring, caplog: pytest.LogCaptureFixture
) -> None:
    ann, bob = ring.issue("ann"), ring.issue("bob")
    async with (
        serving_at(HERE, tree(), keys=ring.server) as host,
        connect(host.address, tls=bob) as other,
        connect(host.address, tls=ann) as client,
    ):
        assert await client.read("hi") == "hello\n"
        ring.authority.revoke("ann")
        with trio.fail_after(SOON):
            await client.wait_closed()
        assert await other.read("hi") == "hello\n"
        with pytest.raises(NineError, match="which was revoked"):
            async with connect(host.address, tls=ann):
                raise AssertionError("it came in")
    said = [each.getMessage() for each in caplog.records]
    assert any("the certificate of cert:ann was revoked" in each for each in said)
    assert any(each.startswith("ended why=tls") and "user=cert:ann" in each for each in said)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda ring: Keys(cert=ring.server.cert, key=ring.server.key), "no authority is believed: give --ca"),
        (lambda ring: Keys(ca=ring.server.ca), "a listener wants a certificate: give --cert"),
        (lambda ring: ring.server._replace(ca="/none.pem"), "No such file or directory"),
        (lambda ring: ring.server._replace(key=ring.issue("x").key), "the key is another certificate's"),
        (lambda ring: ring.server._replace(crl=ring.server.key), "no PEM file of revoked certificates"),
    ],
)
async def test_wrong_files_are_told_at_the_start(ring: Keyring, spoil: object, words: str) -> None:
    with pytest.raises(NineError) as refused:
        await listen(HERE, keys=spoil(ring))  # type: ignore[operator]
    assert str(refused.value).startswith("tls!127.0.0.1!0: ")
    assert words in str(refused.value)


async def test_a_key_that_everybody_can_read_is_not_used(ring: Keyring) -> None:
    await trio.Path(ring.server.key).chmod(0o644)
    with pytest.raises(NineError, match="everybody can read or change this key: chmod 600"):
        await listen(HERE, keys=ring.server)


async def test_a_key_with_a_password_asks_no_terminal(ring: Keyring) -> None:
    path = trio.Path(ring.server.key)
    done = ["openssl", "ec", "-aes256", "-passout", "pass:x", "-in", str(path), "-out", str(path.with_suffix(".enc"))]
    await trio.run_process(done, capture_stderr=True)
    await path.with_suffix(".enc").chmod(0o600)
    with pytest.raises(NineError, match="the key wants a password"):
        await listen(HERE, keys=ring.server._replace(key=str(path.with_suffix(".enc"))))


# Names


@pytest.mark.parametrize(
    ("subject", "others", "name"),
    [
        (["ann"], [], "ann"),
        (["ann"], [("DNS", "other")], "ann"),
        ([], [("DNS", "host.example")], "host.example"),
        ([], [("email", "ann@example.org")], "ann@example.org"),
        ([], [("URI", "spiffe://x/y"), ("DNS", "d")], "d"),
        ([], [("DNS", "a"), ("DNS", "b")], "several names"),
        (["a", "b"], [], "several names"),
        ([], [], "no name"),
        (["guest:k1"], [], "other than letters"),
        (["root\n"], [], "other than letters"),
        (["a/b"], [], "other than letters"),
        (["a" * 65], [], "other than letters"),
        (["-a"], [], "other than letters"),
        (["Ann Lee"], [], "other than letters"),
    ],
)
def test_a_certificate_has_one_name(subject: list[str], others: list[tuple[str, str]], name: str) -> None:
    certificate = {"subject": tuple((("commonName", each),) for each in subject), "subjectAltName": tuple(others)}
    if " " not in name:
        assert name_in(certificate) == name
        return
    with pytest.raises(Refused, match=name):
        name_in(certificate)


# Another authority's files


@pytest.fixture
def foreign(tmp_path: Path) -> tuple[Keys, Keys]:
    """RSA keys of an authority that openssl(1) made; the client's certificate has only an e-mail name."""

    def run(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=tmp_path)

    new = ("req", "-newkey", "rsa:2048", "-nodes")
    run(*new, "-x509", "-days", "2", "-subj", "/CN=Some Authority", "-keyout", "a.key", "-out", "a.pem")
    for name, subject, extra in (("s", "/CN=srv", "DNS:localhost"), ("c", "/O=Us", "email:ann@example.org")):
        (tmp_path / f"{name}.ext").write_text(f"subjectAltName={extra}\n")
        run(*new, "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.req")
        run(
            *("x509", "-req", "-days", "1", "-in", f"{name}.req", "-CA", "a.pem", "-CAkey", "a.key"),
            *("-CAcreateserial", "-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )
    made = [
        Keys(ca=str(tmp_path / "a.pem"), cert=str(tmp_path / f"{n}.pem"), key=str(tmp_path / f"{n}.key")) for n in "sc"
    ]
    for keys in made:
        Path(keys.key).chmod(0o600)
    return made[0], made[1]


async def test_files_of_another_authority_work(foreign: tuple[Keys, Keys]) -> None:
    server, client = foreign
    async with serving_at("tls!localhost!0", tree(), keys=server) as host, connect(host.address, tls=client) as ns:
        assert await ns.read("whoami") == f"cert:ann@example.org {NO_ID}\n"


async def test_tls_below_1_3_is_refused(ring: Keyring) -> None:
    async with serving_at(HERE, tree(), keys=ring.server) as host:
        port = int(host.address.rpartition("!")[2])
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(ring.server.ca)
        old.maximum_version = ssl.TLSVersion.TLSv1_2

        def try_it() -> None:
            with socket.create_connection(("127.0.0.1", port), timeout=SOON) as sock:
                old.wrap_socket(sock, server_hostname="localhost")

        with pytest.raises(ssl.SSLError):
            await trio.to_thread.run_sync(try_it)
        with trio.fail_after(SOON):
            await until(lambda: host.server.tally.refused == {"tls": 1})


def test_the_authority_keeps_its_keys_to_itself_and_knows_what_it_issued(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "ca")
    keys = authority.issue("ann", tmp_path)
    authority.issue("srv", tmp_path, ["localhost", "10.0.0.1"])
    for path in (keys.key, tmp_path / "ca/ca.key"):
        assert Path(path).stat().st_mode & 0o777 == 0o600
    assert [(each.name, each.hosts, each.state) for each in authority.issued()] == [
        ("ann", (), "good"),
        ("srv", ("localhost", "10.0.0.1"), "good"),
    ]
    with pytest.raises(NineError, match="is there already"):
        authority.issue("ann", tmp_path)
    with pytest.raises(NineError, match="bad name"):
        authority.issue("guest:k1", tmp_path)
    with pytest.raises(NineError, match="an authority is here already"):
        Authority.make(tmp_path / "ca")
    (gone,) = authority.revoke("ann")
    assert [each.state for each in authority.issued()] == ["revoked", "good"]
    with pytest.raises(NineError, match="all are revoked already"):
        authority.revoke(gone.number)
    assert Authority(tmp_path / "ca").issued() == authority.issued(), "and after a start"
    check = ["openssl", "verify", "-crl_check", "-CAfile", keys.ca, "-CRLfile", keys.crl]
    assert b"certificate revoked" in subprocess.run([*check, keys.cert], capture_output=True, check=False).stderr
    assert subprocess.run([*check, str(tmp_path / "srv.pem")], capture_output=True, check=False).returncode == 0


async def test_a_handshake_of_many_at_once_lets_them_all_in(ring: Keyring) -> None:
    ann = ring.issue("ann")
    async with serving_at(HERE, tree(), keys=ring.server) as host:
        done = []

        async def one() -> None:
            async with connect(host.address, tls=ann) as client:
                done.append(await client.read("hi"))

        with trio.fail_after(SOON):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(one)
        assert done == ["hello\n"] * 50
