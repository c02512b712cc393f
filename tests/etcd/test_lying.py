"""What etcd, and whoever else writes there, may say: nothing of it ends a composer, runs a program here, or takes memory without an end."""

import errno
import json
from base64 import b64encode
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from mk9p.compose.far import Far
from mk9p.compose.far_records import Said, dialable, owner_of
from mk9p.errors import NineError
from mk9p.etcd import client as calls
from mk9p.etcd import mirror as mirrors
from mk9p.etcd.address import parse
from mk9p.etcd.client import Client, opened
from mk9p.etcd.mirror import Mirror
from mk9p.etcd.records import Record, get, put
from mk9p.lease.opening import shared
from mk9p.lease.written import Written, read_entry
from mk9p.said import from_json
from mk9p.testing import SOON, until
from tests.etcd.cluster import Cluster
from tests.etcd.composers import composer
from tests.etcd.lying import endless, lying, plain
from tests.etcd.test_together import sharing

DEEP = b"[" * 200_000
BAD = {
    "deep": DEEP,
    "deep objects": b'{"a":' * 100_000,
    "infinite": b'{"n": 1e999}',
    "no number": b'{"n": NaN}',
    "half a letter": b'"\\ud800"',
    "no text": b"\xff",
    "nothing": b"",
    "too much": b"[]x",
}


def refuses(read: Callable[[], object]) -> bool:
    try:
        read()
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_no_json_is_one_error(data: bytes) -> None:
    assert refuses(lambda: from_json(data))
    assert refuses(lambda: Written.read(data, -1, "b"))
    assert refuses(lambda: read_entry(data, "e"))
    assert refuses(lambda: Said.read(data))


def test_json_that_is_good_is_read() -> None:
    assert from_json(b'{"a": ["\\udc80\\ud83d\\ude00", 1.5, -3]}') == {"a": ["\udc80\U0001f600", 1.5, -3]}


ANSWERS: list[Any] = [
    DEEP,
    {"header": {"revision": "1e999"}, "succeeded": True},
    {"header": {"revision": 1e300}, "succeeded": True},
    {"header": [], "succeeded": True, "responses": [{}]},
    {"succeeded": True, "responses": []},
    {"succeeded": False, "responses": []},
    {"succeeded": False, "responses": [{}, {}, {}]},
    {"succeeded": True, "responses": [{"response_range": {"kvs": [{"key": 5}]}}]},
    {"succeeded": True, "responses": 5},
    b"\x1f\x8b" + bytes(100),
]


@pytest.mark.parametrize("said", ANSWERS, ids=range(len(ANSWERS)))
@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_that_is_none_is_one_error(said: Any, status: int) -> None:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    with trio.fail_after(SOON):
        async with lying(lambda path: plain(body, "Content-Encoding: gzip", status=status)) as at, client(at) as it:
            it.patience = 0.3
            with pytest.raises(NineError) as caught:
                await it.txn([], [get("k")], [put("a", "b"), get("k")])
            assert caught.value.errno in (errno.EPROTO, errno.EAGAIN)


@pytest.mark.parametrize("code", [[], {}, "1", 1e9, True, 2**70, None])
async def test_an_error_of_any_form_is_one_error(code: object) -> None:
    body = json.dumps({"code": code, "message": ["x" * 10**6]}).encode()
    with trio.fail_after(SOON):
        async with lying(lambda path: plain(body, status=400)) as at, client(at) as it:
            it.patience = 0.3
            with pytest.raises(NineError) as caught:
                await it.txn([], [get("k")], [])
            assert len(str(caught.value)) < 1000


def client(at: str) -> Any:
    return opened(parse(f"etcd!{at}?name=a"))


async def test_an_answer_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "LINE", 100_000)
    with trio.fail_after(SOON):
        for status in (b"200", b"500"):

            def answer(path: str, status: bytes = status) -> Iterable[bytes]:
                return (piece.replace(b"200", status, 1) for piece in endless(b"a" * 10_000))

            async with lying(answer) as at, client(at) as it:
                with pytest.raises(NineError) as caught:
                    await it.txn([], [get("k")], [])
                assert caught.value.errno == errno.EMSGSIZE
                with pytest.raises(NineError) as caught:
                    await it.stream("/v3/watch", {}, lambda answer: True)
                assert caught.value.errno == errno.EMSGSIZE


def kv(key: str, value: bytes = b"v", revision: int = 1) -> dict[str, str]:
    pair = {"key": b64encode(key.encode()).decode(), "value": b64encode(value).decode()}
    return {**pair, "create_revision": str(revision), "mod_revision": str(revision)}


@pytest.mark.parametrize("keys", [["/mk9p/a", "/mk9p/a"], ["/mk9p/b", "/mk9p/a"], ["/other"]])
async def test_pages_that_do_not_go_on_are_an_error(keys: list[str]) -> None:
    body = json.dumps({"header": {"revision": "5"}, "kvs": [kv(key) for key in keys], "more": True}).encode()
    with trio.fail_after(SOON):
        async with lying(lambda path: plain(body)) as at, client(at) as it:
            with pytest.raises(NineError) as caught:
                await it.below("/mk9p/")
            assert caught.value.errno == errno.EPROTO
    body = json.dumps({"header": {"revision": "5"}, "kvs": [kv("/mk9p/a")], "more": True}).encode()
    with trio.fail_after(SOON):
        async with lying(lambda path: plain(body)) as at, client(at) as it:
            with pytest.raises(NineError):
                await it.below("/mk9p/")


async def test_what_is_too_much_at_once_is_read_in_smaller_pages(
    etcd: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "LINE", 20_000)
    async with opened(parse(etcd.where("a"))) as it:
        for n in range(30):
            await it.txn([], [put(f"/mk9p/{n:02}", "x" * 2000)], [])
        found, _ = await it.below("/mk9p/")
        assert [one.key for one in found] == [f"/mk9p/{n:02}" for n in range(30)]


async def test_a_mirror_holds_no_more_than_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "MOST", 1000)

    class Nobody(Client):
        async def below(self, prefix: str) -> tuple[list[Record], int]:
            return [], 1

    async with AsyncExitStack() as stack:
        it = await stack.enter_async_context(client("127.0.0.1:1"))
        mirror = Mirror(Nobody(it.where, it._http), "/mk9p/")
        heard: list[str] = []
        mirror.heard.append(lambda key, one: heard.append(key))
        await mirror.load()
        for n in range(3):
            mirror._take({"events": [{"kv": kv("/mk9p/a", b"x" * 900, 10 + n)}]})
        mirror._take({"events": [{"kv": kv("/other", b"x", 20)}]})
        with pytest.raises(NineError) as caught:
            mirror._take({"events": [{"kv": kv("/mk9p/b", b"x" * 900, 30)}]})
        assert caught.value.errno == errno.EMSGSIZE
        mirror._take({"events": [{"type": "DELETE", "kv": kv("/mk9p/a", b"", 40)}]})
        mirror._take({"events": [{"kv": kv("/mk9p/b", b"x" * 900, 50)}]})
        assert heard == ["/mk9p/a"] * 4 + ["/mk9p/b"]


async def test_a_composer_lives_on_whatever_is_written_there(etcd: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    async with composer(etcd, "a") as it:
        where = it.store.prefix
        for n, value in enumerate(BAD.values()):
            for place in (f"lease/9p/x/b.{n}", f"registry/r{n}", f"kernel/b/{n}", f"table/{n}", "version"):
                await it.store.client.txn([], [put(f"{where}{place}", value)], [])
        await it.store.mirror.reached((await it.store.client.txn([], [put(f"{where}x", "")], [])).revision)
        assert await it.take(0, "9p", "k1")
        await it.leases.give(0)
    caplog.clear()


def test_a_kernel_elsewhere_has_a_name_that_a_line_can_have() -> None:
    assert owner_of("kernel/b/k%201") == ("b", "k 1")
    for at in (
        "b\n/x",
        "../x",
        "/x",
        "b/",
        "b/%00",
        "b/%0d",
        "b/%1b[2J",
        "b/a%2fb",
        "b/..",
        "b/%E2%80%A8",
        f"{'b' * 99}/x",
    ):
        with pytest.raises(ValueError, match="nobody's"):
            owner_of(f"kernel/{at}")


def test_only_a_network_between_machines_is_dialled() -> None:
    for good in ("tcp!h!564", "tls!10.0.0.1!564", "tcp!fe80::1!5"):
        assert dialable(good)
    here = (
        "0",
        "127.1",
        "0x7f.1",
        "2130706433",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "::",
        "::1",
        "::ffff:127.0.0.1",
    )
    for bad in (
        *(
            "exec!id",
            "fd!0!1",
            "unix!/run/x",
            "char!/dev/tty",
            "vsock!1!5",
            "/n/tcp!h!5",
            "/run/netns/x/tcp!h!5",
            "/srv/x",
        ),
        *(f"tcp!{host}!564" for host in here),
    ):
        assert not dialable(bad), bad


def test_machines_elsewhere_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mk9p.compose.far.MOST", 3)
    far = Far("a", lambda kernel: None, lambda name: None, lambda name, what: None)  # type: ignore[arg-type, return-value]
    for n in range(3):
        far.hear(f"h{n}", "k", Said("tcp!h!5"))
    for host, name in (("h1", "k2"), ("h9", "k")):
        with pytest.raises(NineError) as caught:
            far.hear(host, name, Said("tcp!h!5"))
        assert caught.value.errno == errno.ENOSPC
    far.hear("h1", "k", None)
    far.hear("h1", "k2", Said("tcp!h!5"))


async def test_what_others_share_runs_nothing_here_and_hides_no_file_of_ours(etcd: Cluster, tmp_path: Path) -> None:
    bad = {
        "/n/x": f"mount exec!touch\u00a0{tmp_path}/ran /n/x",
        "/n/y": "mount fd!0!1 /n/y",
        "/n/u": "mount -w 5 unix!/run/x /n/u",
        "/n/p": "mount /k/k0/ctl /n/p",
        "/": "mount tcp!evil!564 /",
        "/k": "mount tcp!evil!564 /k",
        "/ctl": "bind /n/evil /ctl",
        "/lease/../ctl": "bind /n/evil /ctl",
        "/n/z": "mount tcp!good!564 /ctl",
    }
    with trio.fail_after(SOON):
        async with composer(etcd, "a") as it, sharing(it) as (ns, both):
            both.local = False
            for old, line in bad.items():
                await it.store.client.txn([], [put(both.key(old), json.dumps({"old": old, "lines": [line]}))], [])
            good = json.dumps({"old": "/n/good", "lines": ["mount -u tls!other!564 /n/good"]})
            await it.store.client.txn([], [put(both.key("/n/good"), good)], [])
            await until(lambda: bool(ns.table.points) and not both._came)
            assert ns.table.script() == ["mount -u tls!other!564 /n/good"]
            await ns.run("mount exec!id /n/mine\n")
            with pytest.raises(NineError) as caught:
                await both.share("/n/mine")
            assert caught.value.errno == errno.EINVAL


async def test_a_name_that_is_never_free_is_an_error_and_no_loop() -> None:
    def answer(path: str) -> Iterable[bytes]:
        said = {
            "/v3/lease/grant": {"ID": "5"},
            "/v3/kv/txn": {"succeeded": False, "responses": [{"response_range": {}}]},
        }.get(path, {})
        return plain(json.dumps(said).encode())

    with trio.fail_after(SOON):
        async with lying(answer) as at:
            with pytest.raises(NineError) as caught:
                async with shared(parse(f"etcd!{at}?name=lied")):
                    pass
            assert caught.value.errno == errno.EAGAIN
