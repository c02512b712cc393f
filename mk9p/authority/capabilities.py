"""`Capabilities`: grants, narrows and revokes for the users of a server, and tells at an attach what a capability gives.

Rules
* A user of this machine may grant what they may do themselves: whoever holds the capability acts as the one who granted it, within its subtree and
  OPS. Root grants what root may do.
* Nobody who is limited grants: neither somebody with a capability, who narrows theirs without asking, nor a guest, nor somebody whom nobody knows.
* Only root, the user that the server runs as, and whoever granted a capability may narrow or revoke it here, or see it in `auth/grants`.
* Another program of this user may revoke too. The ledger's file tells that, and its sessions end here within `LOOK` seconds.
"""

import errno
import logging
import os
from collections.abc import Sequence
from typing import Any, Final

import attrs
import trio

from mk9p.auth import LOCAL, NO_ID, NONE, Principal, Scope, Told
from mk9p.authority.audit import printable
from mk9p.authority.deciding import Authority
from mk9p.authority.files import Auth
from mk9p.authority.grants import Capability, Terms
from mk9p.authority.ledger import Granted, Ledger
from mk9p.errors import NineError
from mk9p.scope import cleaned, ops_of
from mk9p.tree import Handle, Maybe, Open, Text, join
from mk9p.tree.files import File
from mk9p.tree.words import Phrase

log = logging.getLogger("mk9p.authority")

LOOK: Final = 0.3  # seconds between two looks at whether another program has revoked something that is used here
_LIMITS: Final = "[to NAME] [in KERNEL] [from SECONDS] [for SECONDS]"
_GUEST: Final = "guest:"


@attrs.define(eq=False)
class Capabilities:
    """The capabilities of one server, by its ledger. It is the `verifier` of the server's authority."""

    authority: Authority
    ledger: Ledger = attrs.field(factory=Ledger)

    def add_to(self, auth: Auth) -> None:
        """Put its words and its file into `auth/`."""
        auth.authority.verifier = self
        auth.authority.watchers.append(self.watch)
        self.ledger.heard.append(self._end)
        for name, function, usage in (
            ("grant", self._grant, f"grant PATH OPS {_LIMITS}"),
            ("narrow", self._narrow, f"narrow ID [PATH] [OPS] {_LIMITS}"),
            ("revoke", self._revoke, "revoke ID"),
        ):
            auth.add(Phrase(name, function, (), text=usage))
        auth.files["grants"] = Grants(self)

    # for attaches

    def verify(self, text: str, known: Principal, peer: Told) -> Principal:
        """Return the principal that a capability makes of somebody (deciding.py). Raises EACCES, with the reason."""
        capability = self.ledger.read(text)
        kernel = known.name.removeprefix(_GUEST) if known.proof == "guest" else None
        capability.check(who=known.name, kernel=kernel, now=self.ledger.clock())
        name = f"cap:{capability.id}" if known.proof == "none" else known.name
        self.ledger.note(capability, name)
        return self._principal(capability, name, known.readonly)

    def _principal(self, capability: Capability, name: str, readonly: bool) -> Principal:
        granted = self.ledger.granted[capability.ids[0]]
        until = None if capability.until is None else capability.until * 10**9
        scope = Scope(capability.path, ops_of(capability.ops), until, capability.ids, as_root=granted.uid == 0)
        if granted.uid == 0:
            return Principal(name, NONE.uid, readonly=readonly, proof="token", scope=scope)
        as_whom = Principal.of(granted.uid)
        return attrs.evolve(as_whom, name=name, readonly=readonly, proof="token", scope=scope)

    async def watch(self) -> None:
        """End the sessions of what other programs revoke, until cancelled."""
        while True:
            await trio.sleep(LOOK)
            if self.authority.limited:
                try:
                    changed = self.ledger.look()
                except OSError as error:
                    log.error("capabilities are no longer taken: %s", error)
                    self.authority.end(_limited, "its capability can no longer be checked")
                    continue
                if changed:
                    self._end()

    def _end(self) -> None:
        """End the sessions of what is revoked, or no longer known."""
        gone, known = self.ledger.gone, self.ledger.granted

        def over(who: Principal) -> bool:
            return (
                who.scope is not None
                and bool(who.scope.ids)
                and (who.scope.revoked(gone) or who.scope.ids[0] not in known)
            )

        self.authority.end(over, "its capability was revoked")

    # the words of auth/ctl

    def _grant(self, words: list[str], who: Principal) -> Any:
        if len(words) < 2:
            return NotImplemented
        _may_grant(who)
        said = self._said(words[2:])
        if said is None:
            return NotImplemented
        granted = self.ledger.grant(Terms.of(cleaned(words[0]), _ops(words[1]), **said), who.name, who.uid)
        return f"{granted.text}\n"

    def _narrow(self, words: list[str], who: Principal) -> Any:
        if not words:
            return NotImplemented
        name, *rest = words
        path = cleaned(rest.pop(0)) if rest and rest[0].startswith("/") else None
        ops = _ops(rest.pop(0)) if rest and rest[0] not in _WORDS else None
        said = self._said(rest)
        if said is None:
            return NotImplemented
        self._may_change(name, who)
        return f"{self.ledger.narrow(name, Terms.of(path, ops, **said))}\n"

    def _revoke(self, words: list[str], who: Principal) -> Any:
        if len(words) != 1:
            return NotImplemented
        self._may_change(words[0], who)
        self.ledger.revoke(words[0], who.name)
        self._end()
        return None

    def _said(self, words: Sequence[str]) -> dict[str, Any] | None:
        """Read the limits behind PATH and OPS; None if they do not fit."""
        given = dict(zip(words[::2], words[1::2], strict=False))
        if len(words) % 2 or len(given) != len(words) // 2 or not given.keys() <= _WORDS:
            return None
        now, said = self.ledger.clock(), dict[str, Any]()
        if "to" in given:
            said["to"] = given["to"]
        if "in" in given:
            said["kernel"] = given["in"]
        try:
            begins = int(now) + _seconds(given["from"]) if "from" in given else None
            if "for" in given:
                said["until"] = (begins or int(now)) + _seconds(given["for"])
        except ValueError:
            return None
        return said if begins is None else said | {"since": begins}

    def _may_change(self, name: str, who: Principal) -> None:
        """Raise EACCES for somebody who may not narrow or revoke a capability, ENOENT for one that is not known to them."""
        _may_grant(who)
        first = self.ledger.origin(name)
        if first is None or not self.shows(first, who):
            raise NineError(errno.ENOENT, "no such capability is known here: if it was narrowed, give its text")

    # auth/grants

    def shows(self, granted: Granted, who: Principal) -> bool:
        """Tell whether a capability is somebody's business."""
        return (
            who.scope is None and who.proof in LOCAL and who.uid in (0, os.geteuid(), granted.uid) and who.uid != NO_ID
        )

    def lines(self, who: Principal) -> str:
        """Return what lives of what they granted, and of all for root, a line each."""
        return "".join(f"{self._line(granted)}\n" for granted in self.ledger.lives() if self.shows(granted, who))

    def _line(self, granted: Granted) -> str:
        said, use = granted.terms, self.ledger.used.get(granted.id)
        until = None if said.until is None else said.until * 10**9
        used = (use.time_ns, use.who) if use is not None else (None, None)
        values = (granted.by, said.to, said.kernel, until, *used)
        words = [granted.id, said.path or "/", said.ops, *("-" if value is None else value for value in values)]
        return join([printable(str(word)) for word in words])


_WORDS: Final = frozenset({"to", "in", "from", "for"})


def _ops(text: str) -> str:
    ops_of(text)
    return text


def _seconds(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or (seconds := int(text[:12])) <= 0:
        raise ValueError(text)
    return seconds


def _may_grant(who: Principal) -> None:
    """Raise EACCES for somebody who is limited, or whom nobody knows."""
    if who.scope is not None:
        raise NineError(errno.EACCES, "narrow your capability instead: `mk9p narrow`")
    if who.proof not in LOCAL or who.uid == NO_ID:
        raise NineError(errno.EACCES, "only a user of this machine grants and revokes")


def _limited(who: Principal) -> bool:
    return who.scope is not None and bool(who.scope.ids)


class Grants(File):
    """`auth/grants`: what lives of what a user granted."""

    def __init__(self, capabilities: Capabilities) -> None:
        super().__init__(0o444)
        self.capabilities = capabilities

    def open(self, how: Open) -> Maybe[Handle]:
        who = how.who
        return Text(lambda: self.capabilities.lines(who)).open(how)
