"""The ledger outlives its program: what was granted and what was revoked, at whatever moment that program ends; and nobody else may know it."""

import errno
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from mk9p.authority import ledger as module
from mk9p.authority.grants import Terms, narrow
from mk9p.authority.ledger import Ledger
from mk9p.errors import NineError

NOW = 1_800_000_000
CPU = Terms.of("/k/k1/cpu", "rc", to="ops", until=NOW + 3600)


@attrs.define
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def at(tmp_path: Path) -> Path:
    return tmp_path / "state" / "grants"


@pytest.fixture
def ledger(at: Path, clock: Clock) -> Ledger:
    return Ledger(at, clock)


def refusal(call: Callable[..., Any], *args: Any, number: int = errno.EACCES) -> str:
    with pytest.raises(NineError) as caught:
        call(*args)
    assert caught.value.errno == number, caught.value
    return str(caught.value)


def test_what_was_granted_and_revoked_outlives_the_program(at: Path, ledger: Ledger, clock: Clock) -> None:
    one, two = ledger.grant(CPU, "root", 0), ledger.grant(Terms.of("/", "r"), "it's me", 1000)
    ledger.revoke(two.id, "root")
    other = Ledger(at, clock)
    assert other.read(one.text).path == "/k/k1/cpu"
    assert "is revoked" in refusal(other.read, two.text)
    assert other.lives() == [one]
    assert other.granted[one.id] == one
    assert (other.granted[two.id].by, other.granted[two.id].uid) == ("it's me", 1000)


@pytest.mark.parametrize("what", ["path", "to", "kernel"])
def test_no_name_makes_two_lines_of_one(at: Path, ledger: Ledger, clock: Clock, what: str) -> None:
    one = ledger.grant(CPU, "ann\nkey 00", 0)
    said = refusal(
        lambda: ledger.grant(Terms.of(**{"path": "/k", "ops": "r", what: "/a\nb"}), "ann", 1000), number=errno.EINVAL
    )
    assert "\n" not in said
    ledger.revoke(ledger.grant(CPU, "root", 0).id, "ann\nrevoked")
    other = Ledger(at, clock)
    assert other.read(one.text).path == "/k/k1/cpu"
    assert len(other.revoked) == 1
    assert "\n" not in other.lives()[0].by


def test_it_is_closed_to_others_from_the_first_moment(at: Path, ledger: Ledger) -> None:
    ledger.grant(CPU, "root", 0)
    ledger.revoke(ledger.grant(CPU, "root", 0).id, "root")
    for path in (at, at.parent):
        assert os.stat(path).st_mode & 0o077 == 0
    assert sorted(os.listdir(at.parent)) == ["grants", "grants.lock"]


@pytest.mark.parametrize("change", ["file", "directory", "link"])
def test_where_others_can_read_or_change_it_nothing_is_granted_and_nothing_taken(
    at: Path, ledger: Ledger, clock: Clock, change: str
) -> None:
    text = ledger.grant(CPU, "root", 0).text
    if change == "file":
        at.chmod(0o644)
    elif change == "directory":
        at.parent.chmod(0o777)
    else:
        at.rename(at.with_name("else"))
        at.symlink_to("else")
    for one in (Ledger(at, clock), ledger) if change != "directory" else (Ledger(at, clock),):
        for call in (partial(one.read, text), partial(one.grant, CPU, "root", 0)):
            with pytest.raises(OSError, match=r"others can|symbolic links"):
                call()


def test_revoking_ends_all_that_was_narrowed_from_it_and_not_what_it_was_narrowed_from(ledger: Ledger) -> None:
    granted = ledger.grant(CPU, "root", 0)
    child = ledger.narrow(granted.id, Terms(ops="r"))
    grandchild, sister = narrow(child, Terms(until=NOW + 5)), narrow(granted.text, Terms(ops="r"))
    assert ledger.revoke(child, "root") == ledger._key_or_refuse().read(child).id
    for text in (child, grandchild):
        assert "is revoked" in refusal(ledger.read, text)
    for text in (granted.text, sister):
        ledger.read(text)
    ledger.revoke(granted.id, "root")
    for text in (granted.text, sister, child, grandchild):
        assert "is revoked" in refusal(ledger.read, text)
    assert "is revoked" in refusal(ledger.narrow, granted.id, Terms(ops="r"))
    assert not ledger.lives()


def test_an_unknown_id_is_told_and_one_that_was_used_is_known(ledger: Ledger) -> None:
    assert "no capability" in refusal(ledger.revoke, "0" * 16, "root", number=errno.ENOENT)
    granted = ledger.grant(CPU, "root", 0)
    assert "no capability" in refusal(ledger.narrow, "0" * 16, Terms(ops="r"), number=errno.ENOENT)
    child = ledger.read(narrow(granted.text, Terms(ops="r")))
    refusal(ledger.revoke, child.id, "root", number=errno.ENOENT)
    ledger.note(child, "ops")
    assert ledger.used[granted.id].who == "ops"
    ledger.revoke(child.id, "root")
    ledger.revoke(child.id, "root")
    ledger.read(granted.text)


def test_two_programs_know_of_each_other_at_once(at: Path, ledger: Ledger, clock: Clock) -> None:
    other = Ledger(at, clock)
    text = ledger.grant(CPU, "root", 0).text
    granted = other.read(text)
    second = other.grant(CPU, "root", 0)
    ledger.read(second.text)
    ledger.revoke(granted.id, "root")
    assert "is revoked" in refusal(other.read, text)


def test_what_has_ended_is_forgotten_at_the_next_start_with_its_revocation(
    at: Path, ledger: Ledger, clock: Clock
) -> None:
    short, ever = ledger.grant(CPU, "root", 0), ledger.grant(Terms.of("/", "r"), "root", 0)
    gone = ledger.grant(Terms.of("/", "r"), "root", 0)
    for each in (short, gone):
        ledger.revoke(each.id, "root")
    clock.now += 3600
    size = at.stat().st_size
    other = Ledger(at, clock)
    assert other.lives() == [ever]
    assert at.stat().st_size < size
    assert "is revoked" in refusal(other.read, gone.text)
    assert other.revoked == {gone.id: None}
    ledger.read(ever.text)


@pytest.mark.parametrize("terms", [Terms("/k", "r", until=NOW), Terms("/k", "r", since=NOW + 9, until=NOW + 9)])
def test_a_term_that_is_over_before_it_begins_is_refused(ledger: Ledger, terms: Terms) -> None:
    assert "would end before it begins" in refusal(ledger.grant, terms, "root", 0, number=errno.EINVAL)


def test_nothing_is_taken_where_nothing_was_granted(ledger: Ledger, tmp_path: Path) -> None:
    text = Ledger(tmp_path / "else", Clock()).grant(CPU, "root", 0).text
    assert "has granted none" in refusal(ledger.read, text)
    assert not ledger.path.exists()


def test_a_line_without_its_end_is_dropped_and_all_before_it_holds(at: Path, ledger: Ledger, clock: Clock) -> None:
    one, two = ledger.grant(CPU, "root", 0), ledger.grant(CPU, "root", 0)
    before = at.read_bytes()
    ledger.revoke(one.id, "root")
    whole = at.read_bytes()
    for cut in range(len(before), len(whole)):
        at.write_bytes(whole[:cut])
        other = Ledger(at, clock)
        other.read(one.text)
        other.read(two.text)
        other.revoke(one.id, "root")
        refusal(Ledger(at, clock).read, one.text)


@pytest.mark.parametrize("damage", ["zeros", "byte", "middle", "no key", "key", "empty", "not utf-8", "quote"])
def test_a_damaged_one_is_put_aside_and_every_capability_has_ended(
    at: Path, ledger: Ledger, clock: Clock, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    granted = ledger.grant(CPU, "root", 0)
    ledger.revoke(granted.id, "root")
    data = at.read_bytes()
    lines = data.split(b"\n")
    at.write_bytes(
        {
            "zeros": data + b"\0" * 100 + b"\n",
            "byte": data.replace(b"revoked", b"revokee"),
            "middle": b"\n".join((*lines[:1], lines[1][:50], *lines[2:])),
            "no key": b"\n".join(lines[1:]),
            "key": b"\n".join((lines[0][:-2], *lines[1:])),
            "empty": b"",
            "not utf-8": data + b"\xff\n",
            "quote": data + b"'\n",
        }[damage]
    )
    other = Ledger(at, clock)
    assert "has granted none" in refusal(other.read, granted.text)
    assert "is damaged" in caplog.text
    assert "every capability has ended" in caplog.text
    assert at.with_name(f"grants.damaged.{NOW}").exists()
    new = other.grant(CPU, "root", 0)
    other.read(new.text)
    assert "another server" in refusal(other.read, granted.text)


class Stop(BaseException):
    """The program ends here, as by SIGKILL."""


CALLS = ("open", "write", "fsync", "link", "rename", "ftruncate", "close")


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("word", ["first", "grant", "revoke", "forget"])
def test_whatever_call_fails_or_is_the_last_what_was_told_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: bool, word: str
) -> None:
    """The nth call of the system fails, or the program ends there, for each n."""
    for n in range(1, 100):
        at, clock = tmp_path / str(n) / "grants", Clock()
        at.parent.mkdir(mode=0o700)
        one = two = ever = None
        if word != "first":
            ledger = Ledger(at, clock)
            one, two, ever = (
                ledger.grant(CPU, "root", 0),
                ledger.grant(CPU, "root", 0),
                ledger.grant(Terms("", "r"), "root", 0),
            )
            ledger.revoke(two.id, "root")
            ledger.revoke(ever.id, "root")
        if word == "forget":
            clock.now += 7200
        fault = Fault(n, kill)
        told = None
        with monkeypatch.context() as patched:
            for name in CALLS:
                patched.setattr(os, name, fault.wrap(getattr(os, name), name))
            try:
                ledger = Ledger(at, clock)
                if word == "revoke":
                    assert one is not None
                    told = ledger.revoke(one.id, "root")
                elif word == "forget":
                    ledger.look()
                else:
                    told = ledger.grant(attrs.evolve(CPU, until=None), "root", 0).text
            except (OSError, Stop):
                pass
        other = Ledger(at, clock)
        if told is not None and word != "revoke":
            other.read(told)
        if one is not None and two is not None and ever is not None:
            refusal(other.read, ever.text)
            assert word == "forget" or "is revoked" in refusal(other.read, two.text)
            if word == "revoke" and told is not None:
                assert "is revoked" in refusal(other.read, one.text)
            elif word == "grant":
                other.read(one.text)
        other.read(other.grant(Terms("", "r"), "root", 0).text)
        assert not [name for name in os.listdir(at.parent) if "damaged" in name]
        if not fault.came:
            assert n > 5
            return
    pytest.fail("it never ends")


@attrs.define
class Fault:
    """Fails the nth of the calls it wraps; a kill fails all that come after it too, and a write may have done half."""

    n: int
    kill: bool
    came: bool = False

    def wrap(self, call: Any, name: str) -> Any:
        def wrapped(*args: Any, **more: Any) -> Any:
            if name == "close":
                return call(*args, **more)
            self.n -= 1
            if self.n == 0 or (self.kill and self.n < 0):
                if name == "write" and self.n == 0:
                    call(args[0], args[1][: len(args[1]) // 2])
                self.came = True
                raise Stop if self.kill else OSError(errno.EIO, "made up")
            return call(*args, **more)

        return wrapped


def test_a_full_one_grants_no_more_and_still_revokes_what_it_can(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted = ledger.grant(CPU, "root", 0)
    monkeypatch.setattr(module, "MOST", ledger.path.stat().st_size + 10)
    assert "is full" in refusal(ledger.grant, CPU, "root", 0, number=errno.EFBIG)
    ledger.read(granted.text)


def test_one_user_has_a_share_of_it_and_root_keeps_a_reserve(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARE", 2)
    first = ledger.grant(CPU, "ann", 41001)
    ledger.grant(CPU, "ann", 41001)
    assert "has granted 2" in refusal(ledger.grant, CPU, "ann", 41001, number=errno.ENOSPC)
    for _ in range(3):
        ledger.grant(CPU, "root", 0)
    monkeypatch.setattr(module, "MOST", ledger.path.stat().st_size + 2000)
    monkeypatch.setattr(module, "RESERVE", 1999)
    assert "is full" in refusal(ledger.grant, CPU, "bob", 41002, number=errno.EFBIG)
    ledger.grant(CPU, "root", 0)
    ledger.revoke(first.id, "root")


def test_uses_are_not_kept_without_bound(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    granted = ledger.grant(CPU, "root", 0)
    for number in range(9):
        ledger.note(ledger.read(narrow(granted.text, Terms(until=NOW + 9 + number))), "ops")
    assert len(ledger.used) == 3


def test_without_the_package_it_is_left_alone(
    at: Path, ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted = ledger.grant(CPU, "root", 0)
    before = at.read_bytes()
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "biscuit_auth", None)
        other = Ledger(at, clock)
        for call in (partial(other.read, granted.text), partial(other.grant, CPU, "root", 0), other.lives):
            assert "pip install" in refusal(call, number=errno.EOPNOTSUPP)
    assert at.read_bytes() == before
    assert sorted(os.listdir(at.parent)) == ["grants", "grants.lock"]
    Ledger(at, clock).read(granted.text)
