"""Who was refused, from where, and why: one line for each connection, of `key=value` fields that programs can parse.

    refused why=handshake from=tcp!10.0.0.7!51234 user=- text="it did not attach within 30 s"

A value with blanks, quotes or anything unprintable stands between double quotes, with Python's escapes in it, so a line is a line whatever a peer
calls itself. `why` is one of these words: `connections`, `handshake`, `tls`, `protocol`, `version`, `attach`, `unread`, `partial`. A client that had
attached before is not refused any more, but `ended`. The log says each thing of a connection only once, so nobody fills a log over one connection.
"""

import logging
from typing import TYPE_CHECKING

from mk9p.auth import NO_ID
from mk9p.dial import Peer, Refused
from mk9p.server.tally import Tally

if TYPE_CHECKING:
    from mk9p.server.connection import Connection

log = logging.getLogger("mk9p.server")


def line(word: str, **fields: object) -> str:
    """Return a word and its fields on one line; `from_` is the key `from`."""
    return " ".join([word, *(f"{key.rstrip('_')}={_quoted(str(value))}" for key, value in fields.items())])


def _quoted(text: str) -> str:
    if text and text.isprintable() and not any(char in ' "=\\' for char in text):
        return text
    return '"' + text.encode("unicode_escape").decode().replace('"', '\\"') + '"'


def place(peer: Peer) -> str:
    """Return where a peer is, as one word: `tcp!10.0.0.7!51234`, `unix!pid_4321`."""
    return peer.place


def origin(peer: Peer) -> dict[str, object]:
    """Return the fields that say where a peer is, and who, as far as the transport knows."""
    found: dict[str, object] = {"from_": place(peer)}
    if peer.uid is not None:
        found["uid"] = peer.uid
    if peer.user is not None:
        found["proved"] = peer.user
    return found


def refuse_peer(tally: Tally, peer: Peer, why: str, text: str) -> None:
    """Count and log that a peer is refused that is no connection yet."""
    tally.refuse(why)
    log.warning(line("refused", why=why, **origin(peer), user="-", text=text))


def refuse(c: "Connection", why: str, text: str, *, user: str = "") -> None:
    """Count and log, once, that a connection is refused, or that the server ended it if somebody had attached; `user` is the user it would have
    been."""
    if c.refused:
        return
    c.refused = True
    c.common.refuse(why)
    word = "ended" if c.greeted else "refused"
    log.warning(line(word, why=why, **origin(c.link.peer), user=user or ",".join(c.users) or "-", text=text))


def refuse_keys(c: "Connection", error: Refused) -> None:
    """Count and log that TLS refused a peer, or was refused by it, also for who reads auth/log: no attach will tell them."""
    if c.refused:
        return
    text = error.strerror or ""
    refuse(c, "tls", text)
    peer = c.link.peer
    c.common.authority.refused(c.policy.attach("", NO_ID, peer), peer, f"tls:{text}", "-", error)
