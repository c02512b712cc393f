"""What a composer says that cannot have its store: no etcd, a certificate or a user that is not believed, a newer version, a name that is taken."""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from mk9p.errors import NineError
from mk9p.etcd.address import parse
from mk9p.etcd.records import coded, end_of
from mk9p.lease.opening import shared
from mk9p.lease.registry import Entry
from mk9p.testing import SOON, until
from tests.dial.keyring import Keyring
from tests.etcd.cluster import Cluster, running
from tests.etcd.composers import composer, refused


async def opening(where: str) -> None:
    with trio.fail_after(SOON):
        async with shared(parse(where)):
            return


async def starting(where: str) -> str:
    """Start a composer that cannot start; return the one line that it says."""
    words = [sys.executable, "-m", "mk9p", "compose", "--store", where, "-l", "unix!/nowhere/ns"]
    with trio.fail_after(2 * SOON):
        done = await trio.run_process(words, capture_stderr=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    return line.removeprefix("mk9p compose: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("etcd!", "is no HOST:PORT"),
        ("etcd!host", "is no HOST:PORT"),
        ("etcd!host:0", "is no HOST:PORT"),
        ("etcd!host:99999", "is no HOST:PORT"),
        ("etcd!a:1,,b:2", "is no HOST:PORT"),
        ("etcd!a:1/v3:2", "is no HOST:PORT"),
        ("etcd!a:1?nmae=x", "nmae=x"),
        ("etcd!a:1?name=x&name=y", "name=y"),
        ("etcd!a:1?name=a/b", "is no name for a composer"),
        ("etcd!a:1?prefix=mk9p", "is no prefix"),
        ("etcd!a:1?ttl=0", "ttl is 2 to 60 seconds"),
        ("etcd!a:1?ttl=1e3", "ttl is 2 to 60 seconds"),
        ("etcd!a:1?cert=x&key=y", "belong together"),
        ("etcd!a:1?user=x", "belong together"),
    ],
)
def test_a_wrong_name_of_a_store_is_told(text: str, said: str) -> None:
    with pytest.raises(NineError, match=said) as caught:
        parse(text)
    assert caught.value.errno == errno.EINVAL


def test_a_name_of_a_store_says_all_that_it_can() -> None:
    where = parse("etcd!a.b:1,[::1]:2?name=k&prefix=/x/y/&ca=/c&cert=/d&key=/e&user=u&password=/f&ttl=9")
    assert where.urls == ["https://a.b:1", "https://[::1]:2"]
    assert (where.name, where.prefix, where.user, where.password, where.ttl) == ("k", "/x/y/", "u", "/f", 9)


async def test_no_etcd() -> None:
    where, read = "etcd!127.0.0.1:1,127.0.0.1:2?name=a", list[str]()

    async def start() -> None:
        read.append(await starting(where.replace("name=a", "name=b")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        said = await refused(opening(where), errno.ECONNREFUSED)
    for one in (said, *read):
        assert re.fullmatch(r"no etcd answers: no quorum: http://127.0.0.1:[12]: Connection refused", one)


async def test_a_store_of_a_newer_version_is_left_alone(etcd: Cluster) -> None:
    await opening(etcd.where("a"))
    etcd.members[0].ask("/v3/kv/put", {"key": coded("/mk9p/version"), "value": coded("2")})
    said = await refused(opening(etcd.where("a")), errno.EINVAL)
    assert said == "/mk9p/version is of version 2, and this mk9p knows 1: use a newer one"
    assert await starting(etcd.where("a")) == said
    found = etcd.members[0].ask("/v3/kv/range", {"key": coded("/mk9p/"), "range_end": end_of("/mk9p/")})
    assert found["count"] == "1"


async def test_a_name_is_one_composers(etcd: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with composer(etcd, "a"):
        said = await refused(opening(etcd.where("a")), errno.EBUSY)
        assert said == "another composer of this user is called a: give this one a name, ?name=N"
        assert await starting(etcd.where("a")) == said
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))  # another machine
        said = await refused(opening(etcd.where("a")), errno.EBUSY)
        assert said == "another composer is called a: give this one a name, ?name=N"
    await opening(etcd.where("a"))


async def test_what_others_have_written_there_does_no_harm(etcd: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    odd = ["lease/", "lease/x", "lease/9p/k1/b.0", "lease/9p/k1/b.1", "lease/9p/k1/.x", "registry/web", "home/z"]
    values = ["", "{", "[]", '{"mode": "mine"}', '{"mode": "shared", "key": ["9p"], "term": -1}', "\\xff", '{"id": 3}']
    async with composer(etcd, "a") as a:
        for key, value in zip(odd, values, strict=True):
            etcd.members[0].ask("/v3/kv/put", {"key": coded(f"/mk9p/{key}"), "value": coded(value)})
        await a.registry.enter(Entry.parse(["db"], "ann"), None)
        await a.take(0, "9p", "k1")
        assert a.registry.index() == "db\n"
        assert "is not understood" in caplog.text
    async with composer(etcd, "b") as b:
        assert list(b.registry.registry.entries) == []
        await refused(b.take(0, "9p", "k1"), errno.EBUSY)


@contextmanager
def secured(folder: Path, ring: Keyring, *options: str) -> Iterator[Cluster]:
    """Run one member that speaks TLS."""
    words = ["--cert-file", ring.server.cert, "--key-file", ring.server.key, *options]
    with running(Cluster.of(folder, 1, options=words, scheme="https")) as cluster:
        yield cluster


async def test_tls_and_whom_each_believes(tmp_path: Path) -> None:
    ring, strangers = Keyring(tmp_path / "ring"), Keyring(tmp_path / "strangers")
    ours, theirs = ring.issue("composer"), strangers.issue("composer")
    believes = ("--client-cert-auth", "--trusted-ca-file", ring.server.ca)
    with secured(tmp_path, ring, *believes) as etcd:
        good = etcd.where("a", ca=ours.ca, cert=ours.cert, key=ours.key)
        await until(lambda: answers(good))
        said = await refused(opening(etcd.where("a", ca=theirs.ca, cert=ours.cert, key=ours.key)), errno.EACCES)
        assert said.startswith("the certificate of etcd is not believed")
        assert await starting(etcd.where("b", ca=theirs.ca, cert=ours.cert, key=ours.key)) == said
        for other in (
            etcd.where("a", ca=ours.ca),
            etcd.where("a", ca=ours.ca, cert=theirs.cert, key=theirs.key),
        ):
            said = await refused(opening(other), errno.EACCES)
            assert said.startswith("etcd does not believe our certificate")
        await refused(opening(etcd.where("a", ca=f"{tmp_path}/none")), errno.ENOENT)
        await refused(opening(etcd.where("a", ca=ours.key)), errno.EINVAL)


async def answers(where: str) -> bool:
    try:
        await opening(where)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.ECONNREFUSED):
            raise
        return False
    return True


async def test_a_user_and_their_password(tmp_path: Path) -> None:
    with running(Cluster.of(tmp_path, 1)) as etcd:
        (member,) = etcd.members

        def say(path: str, **body: Any) -> None:
            member.ask(f"/v3/auth/{path}", body)

        for name in ("root", "mk9p", "other"):
            say("user/add", name=name, password=f"{name}'s")
            say("role/add", name=name)
            say("user/grant", user=name, role=name)
        say(
            "role/grant",
            name="mk9p",
            perm={"permType": "READWRITE", "key": coded("/mk9p/"), "range_end": end_of("/mk9p/")},
        )
        say("enable")
        for name in ("mk9p", "other"):
            (tmp_path / name).write_text(f"{name}'s\n")
            (tmp_path / name).chmod(0o600)
        async with composer(etcd, "a", user="mk9p", password=tmp_path / "mk9p") as a:
            await a.take(0, "9p", "k1")
            member.kill()  # its tokens are worth nothing then
            etcd.start(member)
            await until(lambda: granted(a))
            await a.leases.renew(1)
        said = await refused(opening(etcd.where("a")), errno.EACCES)
        assert "user name is empty" in said
        said = await refused(opening(etcd.where("a", user="other", password=tmp_path / "other")), errno.EACCES)
        assert "permission denied" in said
        said = await refused(opening(etcd.where("a", user="mk9p", password=tmp_path / "other")), errno.EACCES)
        assert "authentication failed" in said
        (tmp_path / "mk9p").chmod(0o644)
        said = await refused(opening(etcd.where("a", user="mk9p", password=tmp_path / "mk9p")), errno.EACCES)
        assert "others can read it" in said


async def granted(a: Any) -> bool:
    try:
        await a.take(1, "9p", "k2")
    except BlockingIOError:  # EAGAIN
        return False
    return True
