"""Who an attaching user is, and what the bits give to whom."""

import os
import pwd
import socket
import struct

import attrs
import pytest

from mk9p.auth import EXEC, NO_ID, NONE, READ, WRITE, Policy, Principal, may, owns
from mk9p.dial import TRANSPORTS, Peer
from mk9p.dial.unix import link_of
from mk9p.errors import NineError
from mk9p.tree import Conversations, Dir, Open

ALL = READ | WRITE | EXEC
HOST, HANDED = Peer(TRANSPORTS["tcp"], "10.0.0.7!5"), Peer(TRANSPORTS["fd"], "0!1")


def process(uid: int, gid: int | None = None, groups: tuple[int, ...] = ()) -> Peer:
    return Peer(TRANSPORTS["unix"], "pid 1", uid, gid, groups)


@pytest.mark.parametrize("who", [NONE, Principal.named("nobody-has-this-name"), Principal("guest:k1", NO_ID)])
@pytest.mark.parametrize("number", [0, 65534, 0xFFFFFFFE, NO_ID])
def test_who_has_no_number_owns_nothing(who: Principal, number: int) -> None:
    assert who.uid == NO_ID
    assert not who.groups
    assert not may(who, 0o770, number, number, READ)
    assert may(who, 0o007, number, number, ALL)


def test_strangers_are_none_by_any_transport_that_does_not_tell() -> None:
    policy = Policy()
    for uname, n_uname in (("root", 0), ("nobody", 65534), ("", NO_ID), ("none", NO_ID)):
        assert policy.attach(uname, n_uname, HOST) == NONE
    assert policy.attach("none", NO_ID, process(0)) == attrs.evolve(NONE, proof="peercred")
    assert Policy(trust=True).attach("nobody-has-this-name", NO_ID, HOST).uid == NO_ID
    assert policy.attach("", 1, HANDED) == attrs.evolve(Principal.of(1), proof="private")


def test_a_process_is_in_the_groups_that_it_has() -> None:
    """And not in those that it has dropped, though the user database has them."""
    one = Policy().attach("root", 0, process(1, 4301, (4302, 4303)))
    assert (one.uid, one.gid, set(one.groups)) == (1, 4301, {4301, 4302, 4303})
    assert Policy().attach("", NO_ID, process(1, 1)).groups == {1}


def test_the_user_of_the_server_is_in_the_groups_of_the_process_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """By number, and by name."""
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    for uname, n_uname in (("ann", 1), (pwd.getpwuid(1).pw_name, NO_ID)):
        one = Policy().attach(uname, n_uname, process(1, 4301, (NO_ID,)))
        assert (one.uid, set(one.groups), one.gid) == (1, {4301}, 4301)
    assert Policy().attach("", 2, process(1, 4301)).groups == Principal.of(2).groups


@pytest.mark.parametrize("who", [NONE, Principal("guest:k1", NO_ID)])
def test_who_has_no_number_owns_no_file_of_a_server_that_tells_no_owner(who: Principal) -> None:
    assert not owns(who, NO_ID)
    assert owns(Principal("ann", 4201), 4201)
    assert owns(Principal("root", 0), NO_ID)


def test_a_uid_that_nobody_has_is_in_no_group() -> None:
    one = Principal.of(4_000_000_123)
    assert (one.uid, one.groups, one.group) == (4_000_000_123, frozenset(), NO_ID)
    assert Principal("root", 0).group == 0


@pytest.mark.parametrize("count", [0, 1, 256, 257, 3000])
@pytest.mark.skipif(os.geteuid() != 0, reason="setgroups needs root")
def test_the_socket_tells_all_groups_of_its_peer(count: int) -> None:
    groups, before = tuple(range(10_000, 10_000 + count)), os.getgroups()
    os.setgroups(groups)
    try:
        near, far = socket.socketpair(socket.AF_UNIX)
    finally:
        os.setgroups(before)
    with near:
        assert struct.calcsize("I") == 4
        link = link_of(TRANSPORTS["unix"], far)
        assert link.peer.groups == groups
        link.close()


def test_who_has_no_number_begins_no_conversation() -> None:
    class Talk:
        def tree(self) -> Dir:
            return Dir({})

        def close(self) -> None:
            pass

    talks = Conversations(lambda number, who: Talk(), mode=0o666)
    with pytest.raises(NineError, match="own no conversation"):
        talks.walk("clone", NONE).open(Open(NONE, write=True))  # type: ignore[union-attr]
    assert not talks.talks
