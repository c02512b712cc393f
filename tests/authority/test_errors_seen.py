"""Whoever is refused reads why in one line, and so does `auth/log`: a table of all the ways to be refused, each tried by a command."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from mk9p.__main__ import main
from mk9p.authority.book import Book
from mk9p.authority.capabilities import Capabilities
from mk9p.authority.deciding import Authority
from mk9p.authority.files import Auth
from mk9p.authority.grants import Terms, narrow
from mk9p.authority.ledger import Ledger
from mk9p.authority.policy import Rules
from mk9p.dial import Keys
from mk9p.testing import in_thread, serving_at, until_true
from mk9p.testing.serving import Host, address_of
from mk9p.tree import Ctl, Dir, Text
from mk9p.tree import split as words_of
from tests.dial.keyring import Keyring

CPU = Terms.of("/k/k1/cpu", "r")
READ = ("cat", "status")


@attrs.define(eq=False)
class World:
    """A server by tls, with rules and capabilities; `ahead` is how much later its clock is for capabilities."""

    folder: Path
    ring: Keyring
    ahead: float = 0.0
    ledger: Ledger = attrs.field(init=False)
    authority: Authority = attrs.field(init=False)
    host: Host = attrs.field(init=False)
    call: Callable[..., Any] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.ledger = Ledger(self.folder / "grants", lambda: time.time() + self.ahead)
        self.authority = Authority(book=Book(Rules.parse("allow cert:ann r /auth/*", lambda name: 0)))

    def tree(self) -> Dir:
        auth = Auth(self.authority)
        Capabilities(self.authority, self.ledger).add_to(auth)
        done: list[str] = []
        cpu = Dir({"ctl": Ctl({"do": done.append}, mode=0o666), "status": Text("0 online\n")})
        return Dir({"k": Dir({"k1": Dir({"cpu": cpu})}), "auth": auth.tree()})

    def log(self) -> list[list[str]]:
        """Return the lines of `auth/log`, without numbers and times."""
        return [words_of(line.decode())[2:] for line in self.authority.audit.log.lines]

    def come(self, keys: Keys | None = None, at: str = "", *words: str) -> list[str]:
        """Return a command's words for who has these keys, by default those of ann."""
        keys = keys or self.ring.issue("ann")
        flags = [
            word for name in ("ca", "cert", "key") if (value := getattr(keys, name)) for word in (f"--{name}", value)
        ]
        return [*flags, "-a", at or self.host.address, *(words or ("cat", "auth/whoami"))]

    def show(self, text: str, *words: str, mode: int = 0o600) -> list[str]:
        """Return a command's words for ann, who shows a capability."""
        file = self.folder / "cap"
        file.touch(mode)
        file.write_text(text)
        return ["--cap", str(file), *self.come(None, "", *(words or READ))]

    def granted(self, terms: Terms = CPU) -> str:
        """Return a capability of root's."""
        return self.ledger.grant(terms, "root", 0).text


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("MK9P", "MK9P_CONTEXT", "MK9P_CA", "MK9P_CERT", "MK9P_KEY", "MK9P_CRL", "MK9P_CAP"):
        monkeypatch.setenv(name, "x")  # so that what a command sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    made = World(tmp_path, Keyring(tmp_path))
    keys = made.ring.issue("here", "127.0.0.1")
    block = serving_at("tls!127.0.0.1!0", made.tree(), keys=keys, authority=made.authority)
    with in_thread(block) as (made.host, made.call):
        yield made


def elsewhere(w: World) -> str:
    """Return the server's address by a name that its certificate has not."""
    return w.host.address.replace("127.0.0.1", "localhost")


def stranger(w: World) -> Keys:
    return Keyring(w.folder / "other").issue("ann")


def revoked_keys(w: World) -> list[str]:
    words = w.come()
    w.ring.authority.revoke("ann")
    return words


def ended(w: World) -> list[str]:
    text = w.granted(attrs.evolve(CPU, until=int(time.time()) + 60))
    w.ahead = 60
    return w.show(text)


def revoked(w: World) -> list[str]:
    text = w.granted()
    w.ledger.revoke(w.ledger.read(text).id, "root")
    return w.show(narrow(text, Terms(ops="r")))


def altered(w: World) -> list[str]:
    text = w.granted()
    return w.show(text[:-5] + ("A" if text[-5] != "A" else "B") + text[-4:])


def foreign(w: World) -> list[str]:
    w.granted()
    return w.show(Ledger(w.folder / "another").grant(CPU, "root", 0).text)


def wrong_line(w: World) -> list[str]:
    at = w.call(address_of, w.host.server)
    return ["-a", at, "write", "auth/policy", "deny * rwcnd /**\nallow none x /\n"]


TLS = ["none", "none:tls!127.0.0.1!"]
ANN = ["cert:ann", "cert:tls!127.0.0.1!"]
SHOWN = ["cert:ann", "token:tls!127.0.0.1!"]
TABLE: dict[str, tuple[Callable[[World], list[str]], str, list[str]]] = {
    "expired": (
        lambda w: w.come(w.ring.issue("ann", days=1, start=-2)),
        "it refuses our certificate, which has expired by its clock",
        [*TLS, "tls:the client's certificate is refused: it has expired (by this machine's clock it is 20", "-"],
    ),
    "not yet valid": (
        lambda w: w.come(w.ring.issue("ann", start=2)),
        "it refuses our certificate: not valid yet by its clock, for another name, or damaged",
        [*TLS, "tls:the client's certificate is refused: it is not valid yet (by this machine's clock", "-"],
    ),
    "unknown authority": (
        lambda w: w.come(stranger(w)._replace(ca=w.ring.server.ca)),
        "it refuses our certificate: it does not know the authority",
        [*TLS, "tls:the client's certificate is refused: it comes from an authority that is not in --ca", "-"],
    ),
    "revoked": (
        revoked_keys,
        "it refuses our certificate, which was revoked",
        [*TLS, "tls:the client's certificate is refused: it was revoked", "-"],
    ),
    "no client certificate": (
        lambda w: w.come(Keys(ca=w.ring.server.ca)),
        "it lets in only who has a certificate: give --cert and --key",
        [*TLS, "tls:the client has no certificate", "-"],
    ),
    "wrong name of the server": (
        lambda w: w.come(None, elsewhere(w)),
        "the server's certificate is refused: it is not for the name localhost",
        [*TLS, "tls:it refuses our certificate: not valid yet by its clock, for another name, or damaged", "-"],
    ),
    "unknown authority of the server": (
        lambda w: w.come(stranger(w)),
        "the server's certificate is refused: it comes from an authority that is not in --ca",
        [*TLS, "tls:it refuses our certificate: it does not know the authority", "-"],
    ),
    "a capability that has ended": (
        ended,
        "capability refused: it ended at 20",
        [*ANN, "attach:it ended at 20", "cap!..."],
    ),
    "clock skew": (
        lambda w: w.show(w.granted(attrs.evolve(CPU, since=int(time.time()) + 3600))),
        "capability refused: it is not valid before 20",
        [*ANN, "attach:it is not valid before 20", "cap!..."],
    ),
    "a capability that is revoked, narrowed": (revoked, "is revoked", [*ANN, "attach:", "cap!..."]),
    "altered": (
        altered,
        "capability refused: it is altered, or no capability",
        [*ANN, "attach:it is altered, or no capability", "cap!..."],
    ),
    "of another server": (foreign, "capability refused: ", [*ANN, "attach:", "cap!..."]),
    "replayed by another": (
        lambda w: w.show(w.granted(attrs.evolve(CPU, to="cert:bob"))),
        "capability refused: it is for cert:bob, and not for cert:ann",
        [*ANN, "attach:it is for cert:bob, and not for cert:ann", "cap!..."],
    ),
    "replayed from another line": (
        lambda w: w.show(w.granted(attrs.evolve(CPU, kernel="k2"))),
        "capability refused: it is for the line of kernel k2",
        [*ANN, "attach:it is for the line of kernel k2", "cap!..."],
    ),
    "narrowed, used beyond it": (
        lambda w: w.show(narrow(w.granted(attrs.evolve(CPU, ops="rc")), Terms(ops="r")), "write", "ctl", "do it"),
        "ctl: Read-only file system",
        [*SHOWN, "open", "/k/k1/cpu/ctl", "EROFS"],
    ),
    "a letter that it has not": (
        lambda w: w.show(narrow(w.granted(attrs.evolve(CPU, ops="rc")), Terms(ops="c")), *READ),
        "status: permission denied",
        [*SHOWN, "open", "/k/k1/cpu/status", "EACCES"],
    ),
    "a wrong line in a policy": (
        wrong_line,
        "auth/policy: line 2: OPS are letters of rwcnd, not 'x'",
        ["root", "private:", "policy", "/auth/policy", "EINVAL"],
    ),
    "an unknown principal": (
        lambda w: w.come(w.ring.issue("carol"), "", "cat", "k/k1/cpu/status"),
        "k/k1/cpu/status: permission denied",
        ["cert:carol", "cert:tls!127.0.0.1!", "walk", "/k", "EACCES"],
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_whoever_is_refused_reads_why_and_so_does_auth_log(
    world: World, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    command, client, log = TABLE[case]
    words = command(world)
    capfd.readouterr()
    assert main(words) == 1
    out, err = capfd.readouterr()
    told = [line for line in err.splitlines() if line.startswith("mk9p")]
    assert (out, len(told)) == ("", 1), err
    assert client in told[0]

    def lines() -> list[list[str]]:
        return [line for line in world.log() if line[-1] != "ok"]

    until_true(lines)
    (line,) = lines()
    assert [found.startswith(wanted) for found, wanted in zip(line, log, strict=False)] == [True] * len(log), line
    assert len(log) == 5 or line[4] == "EACCES"


def test_a_text_that_others_can_read_goes_nowhere(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """The client refuses it before it dials, so the server has nothing to write down."""
    words = world.show(world.granted(), mode=0o644)
    assert main(words) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith("/cap: others can read it: chmod 600, and take it for known")
    assert world.log() == []
