"""Capabilities from their grant to their end, by every way in which a client shows one."""

import errno
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socketpair
from typing import Any

import attrs
import pytest
import trio

from mk9p.auth import NO_ID, NONE, GuestPolicy, Policy, Principal, Told
from mk9p.authority.capabilities import LOOK, Capabilities
from mk9p.authority.deciding import Authority
from mk9p.authority.files import Auth
from mk9p.authority.grants import Terms, narrow
from mk9p.authority.ledger import Ledger
from mk9p.client import connect
from mk9p.composing import namespace
from mk9p.dial import TRANSPORTS, Peer, SocketLink
from mk9p.errors import NineError
from mk9p.server import Server
from mk9p.testing import PRIVATE, SOON, Memory, serving, serving_at, until
from mk9p.testing.serving import address_of
from mk9p.tree import Ctl, Dir, Node, Text
from tests.servers.trees import names

NOW = 1_800_000_000


@attrs.define
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@attrs.frozen
class Known(Policy):
    """Everybody who comes is this one."""

    who: Principal = attrs.field(kw_only=True)

    def attach(self, uname: str, n_uname: int, peer: Told) -> Principal:
        return self.who


def user(name: str, uid: int, proof: str = "peercred") -> Known:
    return Known(who=Principal(name, uid, frozenset({uid}), proof=proof))


ROOT, ANN, BOB, STRANGER = user("root", 0), user("ann", 41001), user("bob", 41002), user("none", NO_ID, "none")


@attrs.define
class Served:
    server: Server
    ledger: Ledger
    clock: Clock
    done: list[str]

    def at(self, policy: Policy = STRANGER) -> str:
        return address_of(self.server, policy=policy)

    async def say(self, line: str, policy: Policy = ROOT) -> str:
        """Write a line to `auth/ctl`, and read the answer from the same open file."""
        async with connect(self.at(policy)) as ns, await ns.open("auth/ctl", "r+") as ctl:
            return await answer(ctl, line)


async def answer(ctl: Any, line: str) -> str:
    await ctl.pwrite(f"{line}\n".encode(), 0)
    said: bytes = await ctl.pread(8192, len(line) + 1)
    return said.decode().strip("\n")


def kernel(done: list[str]) -> dict[str, Node]:
    cpu = Dir({"ctl": Ctl({"do": done.append}), "status": Text("0 online\n")})
    return {"cpu": cpu, "fs": Memory({"f": "text"}, mode=0o700), "secret": Text("x", mode=0o400)}


@asynccontextmanager
async def served(folder: Path, extra: Iterable[tuple[str, Node]] = ()) -> AsyncIterator[Served]:
    """Serve /k/k1 and `auth`."""
    done: list[str] = []
    auth, clock = Auth(Authority()), Clock()
    ledger = Ledger(folder / "state" / "grants", clock)
    Capabilities(auth.authority, ledger).add_to(auth)
    tree = Dir({"k": Dir({"k1": Dir(kernel(done))}), "auth": auth.tree(), **dict(extra)})
    with trio.fail_after(SOON):
        async with serving(tree, authority=auth.authority) as server:
            yield Served(server, ledger, clock, done)


async def refused(what: Any) -> NineError:
    with pytest.raises(NineError) as caught:
        await what
    return caught.value


async def attach(address: str, **more: Any) -> None:
    async with connect(address, **more):
        pass


async def test_a_stranger_with_a_capability_has_its_subtree_with_its_ops_and_nothing_else(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant /k/k1/cpu rc for 3600")
        assert (await refused(attach(it.at(), cap="A" + text))).errno == errno.EACCES
        async with connect(it.at(), cap=text) as ns:
            assert sorted(await names(ns)) == ["ctl", "error", "status"]
            await ns.write("ctl", "do it")
            assert it.done == ["it"]
            assert (await refused(ns.walk("../fs"))).errno == errno.ENOENT
        async with connect(it.at(), aname=f"cap!{text}/status") as ns, await ns.open("") as file:
            assert await file.read(99) == b"0 online\n"


async def test_it_gives_what_the_one_who_granted_it_may_do(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        roots, anns = await it.say("grant /k/k1 rw"), await it.say("grant /k/k1 rw", ANN)
        async with connect(it.at(), cap=roots) as ns:
            assert await ns.read("secret") == "x"
        async with connect(it.at(ROOT), cap=anns) as ns:
            assert (await refused(ns.read("secret"))).errno == errno.EACCES
            assert await ns.read("cpu/status") == "0 online\n"


async def test_one_for_a_principal_is_for_nobody_else(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant /k/k1/cpu r to ann")
        async with connect(it.at(ANN), cap=text) as ns:
            assert await ns.read("status") == "0 online\n"
        for other in (BOB, ROOT, STRANGER):
            said = await refused(attach(it.at(other), cap=text, version="9P2000.u"))
            assert (said.errno, said.ename) == (
                errno.EACCES,
                f"capability refused: it is for ann, and not for {other.who.name}",
            )


async def test_a_name_that_nobody_has_proved_is_not_believed(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant /k/k1/cpu r to ann")
        address = address_of(it.server, Peer(TRANSPORTS["tcp"], "192.0.2.1!5"), Policy())
        assert (await refused(attach(address, uname="ann", cap=text))).errno == errno.EACCES


async def test_a_guest_may_show_one_and_reach_what_its_own_tree_has_not(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant /k/k1/cpu r to guest:k2 in k2")
        async with connect(_guest(it.server, "k2"), cap=text) as ns:
            assert await ns.read("status") == "0 online\n"
        assert (await refused(attach(_guest(it.server, "k3"), cap=text))).errno == errno.EACCES
        text = narrow(await it.say("grant / r"), Terms(kernel="k2"))
        assert (await refused(attach(it.at(ROOT), cap=text))).errno == errno.EACCES


def _guest(server: Server, kernel: str) -> str:
    """Return the line of a guest, who has an empty tree of its own."""
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    ours.setblocking(False)
    theirs.setblocking(False)
    server.add(SocketLink(theirs, PRIVATE), GuestPolicy(kernel=kernel), root=Dir({}))
    number = ours.detach()
    return f"fd!{number}!{number}"


async def test_it_ends_with_its_term_and_has_not_begun_before(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant /k/k1/cpu r from 600 for 3600")
        assert "not valid before" in (await refused(attach(it.at(), cap=text, version="9P2000"))).ename
        it.clock.now += 600
        await attach(it.at(), cap=text)
        it.clock.now += 3600
        assert "it ended at" in (await refused(attach(it.at(), cap=text, version="9P2000"))).ename


async def test_revoking_ends_live_sessions_of_it_and_of_all_narrowed_from_it_and_no_others(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        text, other = await it.say("grant /k/k1 r"), await it.say("grant /k/k1 r")
        child = narrow(text, Terms(ops="r"))
        sessions = [it.at() for _ in range(3)]
        async with (
            connect(sessions[0], cap=text) as one,
            connect(sessions[1], cap=child) as two,
            connect(sessions[2], cap=other) as three,
            connect(it.at(ROOT)) as root,
        ):
            assert await one.read("cpu/status") == await two.read("cpu/status")
            name = it.ledger.read(text).id
            assert await it.say(f"revoke {name}") == ""
            # who revokes has no answer before the sessions have ended
            assert it.server.authority.end(lambda who: who.scope is not None and who.scope.revoked([name]), "late") == 0
            await one.wait_closed()
            await two.wait_closed()
            assert await three.read("cpu/status") == "0 online\n"
            await root.stat("k")
        for gone in (text, child):
            assert "is revoked" in (await refused(attach(it.at(), cap=gone, version="9P2000"))).ename


async def test_revoking_a_narrowed_one_by_its_text_leaves_the_one_it_was_narrowed_from(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant /k/k1 r")
        child = narrow(text, Terms(ops="r"))
        await it.say(f"revoke {child}")
        assert (await refused(attach(it.at(), cap=child))).errno == errno.EACCES
        await attach(it.at(), cap=text)


async def test_what_another_program_revokes_ends_here_too(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant /k/k1 r")
        async with connect(it.at(), cap=text) as ns:
            Ledger(it.ledger.path, it.clock).revoke(it.ledger.read(text).id, "root")
            await ns.wait_closed()
    assert LOOK < 1, "it ends within a second"


async def test_a_ledger_that_others_can_read_ends_the_sessions_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant /k/k1 r")
        async with connect(it.at(), cap=text) as ns:
            it.ledger.path.chmod(0o644)
            await ns.wait_closed()
        assert (await refused(attach(it.at(), cap=text))).errno == errno.EACCES
    assert "others can read it" in caplog.text


async def test_nobody_who_is_limited_grants_or_revokes(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        whole = await it.say("grant / rwcnd")
        name = it.ledger.read(whole).id
        async with connect(it.at(), cap=whole, version="9P2000.u") as ns, await ns.open("auth/ctl", "r+") as ctl:
            for line in ("grant / r", f"revoke {name}", f"narrow {name} r"):
                said = await refused(answer(ctl, line))
                assert (said.errno, said.ename) == (errno.EACCES, "narrow your capability instead: `mk9p narrow`")
        for policy in (STRANGER, user("guest:k2", NO_ID, "guest"), user("cert:ann", NO_ID, "cert")):
            assert (await refused(it.say("grant / r", policy))).errno == errno.EACCES
        assert [each.id for each in it.ledger.lives()] == [name]


async def test_a_user_sees_and_ends_only_what_they_granted(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        roots = it.ledger.read(await it.say("grant / r")).id
        anns = it.ledger.read(await it.say("grant /k/k1 r", ANN)).id
        for policy, seen in ((ROOT, [roots, anns]), (ANN, [anns]), (BOB, []), (STRANGER, [])):
            async with connect(it.at(policy)) as ns:
                assert [line.split()[0] for line in (await ns.read("auth/grants")).splitlines()] == seen
        for name in (roots, anns):
            for word in ("revoke", "narrow"):
                assert (await refused(it.say(f"{word} {name}", BOB))).errno == errno.ENOENT
        assert (await refused(it.say(f"revoke {roots}", ANN))).errno == errno.ENOENT
        await it.say(f"revoke {anns}", ANN)
        assert [each.id for each in it.ledger.lives()] == [roots]


async def test_grants_says_what_lives_by_whom_and_its_last_use(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant '/k/k1/a b' cr to ann in k2 for 60")
        name = it.ledger.read(text).id
        async with connect(it.at(ROOT)) as ns:
            line = f"{name} '/k/k1/a b' rc root ann k2 {NOW + 60}000000000"
            assert await ns.read("auth/grants") == f"{line} - -\n"
            used = await it.say("grant /k/k1/cpu r")
            await attach(it.at(), cap=used)
            found = it.ledger.read(used).id
            assert (await ns.read("auth/grants")).splitlines()[1] == (
                f"{found} /k/k1/cpu r root - - - {NOW}000000000 cap:{found}"
            )
            it.clock.now += 60
            assert len((await ns.read("auth/grants")).splitlines()) == 1


@pytest.mark.parametrize(
    "line",
    [
        "grant",
        "grant /k",
        "grant k r",
        "grant /k x",
        "grant /k rr",
        "grant /k r to",
        "grant /k r for",
        "grant /k r for 0",
        "grant /k r for -1",
        "grant /k r for 1h",
        "grant /k r for 9999999999999",
        "grant /k r to ann to bob",
        "grant /k r until 5",
        "grant /k/../x r",
        "narrow",
        "revoke",
        "revoke a b",
    ],
)
async def test_a_line_that_does_not_fit_grants_nothing(tmp_path: Path, line: str) -> None:
    async with served(tmp_path) as it:
        assert (await refused(it.say(line))).errno == errno.EINVAL
        assert not it.ledger.path.exists()


async def test_ctl_narrows_too(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        name = it.ledger.read(await it.say("grant /k/k1 rw")).id
        child = it.ledger.read(await it.say(f"narrow {name} /k/k1/cpu r for 60 to ann"))
        assert (child.path, child.ops, child.to, child.until) == ("/k/k1/cpu", "r", "ann", NOW + 60)
        assert (await refused(it.say(f"narrow {name} /k/k2"))).errno == errno.EACCES


async def test_whoami_tells_who_holds_it(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant / r for 60")
        name = it.ledger.read(text).id
        for policy, shown in ((STRANGER, f"cap:{name}"), (ANN, "ann")):
            async with connect(it.at(policy), cap=text) as ns:
                assert await ns.read("auth/whoami") == (
                    f"principal {shown}\nproof token\nsubtree /\nops r\nuntil {NOW + 60}000000000\n"
                )


async def test_a_readonly_listener_stays_readonly_whatever_is_shown(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant /k/k1/cpu rc")
        policy = Known(who=attrs.evolve(NONE, readonly=True))
        async with connect(it.at(policy), cap=text) as ns:
            assert (await refused(ns.write("ctl", "do it"))).errno == errno.EROFS
        assert not it.done


@asynccontextmanager
async def composed(folder: Path) -> AsyncIterator[tuple[Served, list[str]]]:
    """Serve a composed namespace, whose kernel k1 is another server."""
    done: list[str] = []
    async with trio.open_nursery() as nursery:
        ns = namespace(nursery)
        async with serving_at(f"unix!{folder}/k1", Dir(kernel(done))) as host, served(folder) as it:
            ns.mount(host.address, "/k/k1")
            auth = it.server.authority
            async with serving(ns.root, authority=auth) as server:
                yield attrs.evolve(it, server=server, done=done), done
        nursery.cancel_scope.cancel()


async def test_all_this_holds_on_the_kernels_that_a_composer_relays(tmp_path: Path) -> None:
    async with composed(tmp_path) as (it, done):
        granted = it.ledger.grant(Terms.of("/k/k1/cpu", "r"), "root", 0)
        async with connect(it.at(), cap=granted.text) as ns:
            assert await ns.read("status") == "0 online\n"
            assert (await refused(ns.write("ctl", "do it"))).errno in (errno.EACCES, errno.EROFS)
            assert (await refused(ns.walk("../fs"))).errno == errno.ENOENT
            file = await ns.open("status")
            it.ledger.revoke(granted.id, "root")
            Capabilities(it.server.authority, it.ledger)._end()
            await ns.wait_closed()
            assert (await refused(file.read(1))).errno != 0
        writer = it.ledger.grant(Terms.of("/k/k1/cpu", "c"), "root", 0)
        async with connect(it.at(), cap=writer.text) as ns:
            await ns.write("ctl", "do it")
            assert done == ["it"]
            assert (await refused(ns.read("status"))).errno == errno.EACCES


async def test_sixteen_clients_at_once_and_one_after_another_are_each_limited(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant /k/k1/cpu r")

        async def one() -> None:
            async with connect(it.at(), cap=text) as ns:
                assert await ns.read("status") == "0 online\n"
                assert (await refused(ns.write("ctl", "do it"))).errno in (errno.EACCES, errno.EROFS)

        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(one)
        await until(lambda: not it.server.connections)
        assert not it.server.authority.limited


async def test_a_file_with_a_capability_that_others_can_read_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        path = tmp_path / "mine"
        path.write_text(await it.say("grant /k/k1/cpu r") + "\n")
        path.chmod(0o600)
        async with connect(it.at(), cap=str(path)) as ns:
            assert await ns.read("status") == "0 online\n"
        for mode in (0o640, 0o604, 0o644):
            path.chmod(mode)
            said = await refused(attach(it.at(), cap=str(path)))
            assert said.errno == errno.EACCES
            assert "others can read it" in said.ename
        assert (await refused(attach(it.at(), cap=str(tmp_path / "none")))).errno == errno.ENOENT
        assert (await refused(attach(it.at(), cap="two words"))).errno == errno.EINVAL


async def test_the_environment_has_one_for_the_own_server_and_for_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant /k/k1/cpu r")
        monkeypatch.setenv("MK9P_CAP", text)
        async with connect(it.at(ROOT)) as ns:
            assert "auth" in await names(ns), "another server is not told"
        monkeypatch.setenv("MK9P", it.at(ROOT))
        async with connect() as ns:
            assert sorted(await names(ns)) == ["ctl", "error", "status"]
        monkeypatch.setenv("MK9P", it.at(ROOT))
        async with connect(cap="") as ns:
            assert "auth" in await names(ns)


async def test_a_composer_mounts_with_the_capability_of_a_file_and_shows_nobody_its_text(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant /k/k1/cpu r")
        file = tmp_path / "cap"
        file.write_text(text)
        file.chmod(0o600)
        async with (
            trio.open_nursery() as nursery,
            serving_at(f"unix!{tmp_path}/far", it.server.root, STRANGER, authority=it.server.authority) as far,
        ):
            ns, address = namespace(nursery), far.address
            ns.mount(address, "/k/far", f"cap!{file}")
            async with serving(ns.root) as server, connect(address_of(server)) as client:
                assert await client.read("k/far/status") == "0 online\n"
                assert text[:40] not in await client.read("ns") + await client.read("ctl")
                for spec, number in ((f"cap!{text}", errno.EINVAL), (f"cap!{tmp_path}/none", errno.ENOENT)):
                    assert (await refused(client.write("ctl", f"mount {address} /k/x {spec}"))).errno == number
                seen = tmp_path / "seen"
                seen.write_text(text)
                said = await refused(client.write("ctl", f"mount {address} /k/x cap!{seen}"))
                assert said.errno == errno.EACCES
            nursery.cancel_scope.cancel()
