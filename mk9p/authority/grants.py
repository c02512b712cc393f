"""Capabilities: text that gives whoever holds it some OPS on one subtree, and nothing else. Pure: no file, no clock, no tree.

Theory
* A capability is a biscuit: blocks, each signed with a key that the block before it names. The first block is signed by the server's key. Anybody
  who holds the text can add a block (`narrow`), and nobody can take one away. What holds is what all blocks allow, so a later block never widens.
* A block has an id, the beginning of its signature. Revoking an id ends every capability that has this block: the one that was granted, and all
  that was narrowed from it.
* The text is `KEY.BISCUIT`, both in base64url. KEY is the public key that the server signs with. The holder needs it to narrow. The server compares
  it with its own, and believes nothing because of it.
* A block is a list of checks in biscuit's own language, so other programs that know biscuits judge it as we do (tests/authority compares the two).
  But only these forms of checks are taken. Of anything else we would not know which files it gives, so a capability with it is refused.
* A name in a block is percent-encoded (RFC 3986), because biscuit prints a string without escaping it.
"""

import base64
import binascii
import errno
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import reduce
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

import attrs

from mk9p.errors import NineError
from mk9p.scope import REFUSED

if TYPE_CHECKING:
    from biscuit_auth import Biscuit, PrivateKey, PublicKey

OPS: Final = "rwcnd"
"""What a capability may give: r read, w write stored data, c write to ctl files, n create, d remove."""

PREFIX: Final = "cap!"
"""What the aname of an attach with a capability begins with."""

LONGEST: Final = 3840
"""Characters of a capability. v9fs has 4096 for all its options, and an attach as many for its aname."""
DEEPEST: Final = 16  # blocks
TERM: Final = 10 * 366 * 86400
"""Seconds: the longest term, ten years."""
SKEW: Final = 60
"""Seconds that the clocks of two machines may differ, for the beginning of a term. Its end has no such grace."""
ID: Final = 16  # hex digits of a block's signature that are its id
_NAME: Final = 255
_PATH: Final = 1024
_SAFE: Final = "/!:@,+="  # beside letters, digits and _.-~
INSTALL: Final = "capabilities need biscuit-python: pip install 'mk9p[caps]'"


@attrs.frozen
class Terms:
    """What one block says: each of these that is None says nothing.

    `path` begins with a slash and ends with none, so "" is everything. `ops` are letters of OPS. `to` is the only principal who may use it, `kernel`
    the only kernel from whose line. `since` and `until` are seconds since 1970.
    """

    path: str | None = None
    ops: str | None = None
    to: str | None = None
    kernel: str | None = None
    since: int | None = None
    until: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.path is not None and not _is_path(self.path):
            raise NineError(
                errno.EINVAL, f"a capability is for a full path of at most {_PATH} bytes, not {self.path!r}"
            )
        if self.ops is not None and not (self.ops and set(self.ops) <= set(OPS) and self.ops == ordered(self.ops)):
            raise NineError(errno.EINVAL, f"OPS are letters of {OPS}, not {self.ops!r}")
        for what, name in (("principal", self.to), ("kernel", self.kernel)):
            if name is not None and (
                name in ("", "-") or "\n" in name or len(name.encode(errors="surrogatepass")) > _NAME
            ):
                raise NineError(errno.EINVAL, f"a {what} has a name of 1 to {_NAME} bytes, on one line")
        for moment in (self.since, self.until):
            if moment is not None and not 0 < moment < 1 << 37:  # the calendar of Python ends in the year 9999
                raise NineError(errno.EINVAL, f"{moment} is no time")

    @classmethod
    def of(cls, path: str | None = None, ops: str | None = None, **more: Any) -> "Terms":
        """Return terms for a path and OPS as people write them: `//k/k1/`, "wr"."""
        if path is not None:
            path = "".join(f"/{name}" for name in path.split("/") if name) if path.startswith("/") else path
        return cls(path, None if ops is None else ordered(ops), **more)


def _is_path(path: str) -> bool:
    names = path.split("/")
    if path and (names[0] or {"", ".", ".."} & set(names[1:]) or "\0" in path or "\n" in path):  # the ledger has lines
        return False
    return len(path.encode(errors="surrogatepass")) <= _PATH


def ordered(ops: str) -> str:
    """Return letters of OPS in their order, each once; others stay, at the end."""
    return "".join(sorted(set(ops), key=lambda letter: (OPS.find(letter) % 99, letter)))


@attrs.frozen
class Capability:
    """What a capability gives whose signatures are right: to its holder, below `path`, `ops`.

    `ids` are its blocks' ids, the first one's first. `since` is the latest beginning, `until` the earliest end, in seconds since 1970.
    """

    ids: tuple[str, ...]
    path: str
    ops: str
    to: str | None = None
    kernel: str | None = None
    since: int | None = None
    until: int | None = None

    @property
    def id(self) -> str:
        """The id of its last block: to revoke it, and what is narrowed from it, and nothing else."""
        return self.ids[-1]

    def check(self, *, who: str, kernel: str | None, now: float) -> None:
        """Raise EACCES, with the reason, unless it can be used now by `who`, as the server knows them, from the line of `kernel`."""
        if self.to is not None and self.to != who:
            raise refused(f"it is for {self.to}, and not for {who}")
        if self.kernel is not None and self.kernel != kernel:
            raise refused(f"it is for the line of kernel {self.kernel}")
        if self.since is not None and now < self.since - SKEW:
            raise refused(f"it is not valid before {_shown(self.since)}; the clock here says {_shown(int(now))}")
        if self.until is not None and now >= self.until:
            raise refused(f"it ended at {_shown(self.until)}; the clock here says {_shown(int(now))}")


def refused(why: str) -> NineError:
    """Return the error of a capability that is not taken."""
    return NineError(errno.EACCES, f"{REFUSED}{why}")


def _shown(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# A block's checks. The names of the facts are those that biscuit encodes in a byte.

_CHECKS: Final[tuple[tuple[str, str, Callable[[Any], str], Callable[[str], Any]], ...]] = (
    (
        "path",
        'check if path($path), $path.starts_with("{}")',
        lambda path: _quoted(path) + "/",
        lambda s: unquote(s[:-1]),
    ),
    ("ops", 'check if operation($operation), "{}".contains($operation)', str, str),
    ("to", 'check if user($user), $user == "{}"', lambda name: _quoted(name), unquote),
    ("kernel", 'check if node($node), $node == "{}"', lambda name: _quoted(name), unquote),
    ("since", "check if time($time), $time >= {}", _shown, lambda s: _seconds(s)),
    ("until", "check if time($time), $time < {}", _shown, lambda s: _seconds(s)),
)
_FORMS: Final = tuple(
    (field, re.compile(re.escape(form).replace(r"\{\}", r"([^\s\"\\]*)"), re.ASCII), back)
    for field, form, _, back in _CHECKS
)


def _quoted(text: str) -> str:
    return quote(text, safe=_SAFE, errors="surrogatepass")


def _seconds(text: str) -> int:
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())


def source(terms: Terms) -> str:
    """Return a block's checks in biscuit's language."""
    said = attrs.asdict(terms)
    return "".join(f"{form.format(put(said[field]))};\n" for field, form, put, _ in _CHECKS if said[field] is not None)


def terms_of(text: str) -> Terms:
    """Return what a block says, from its checks; raises EACCES for anything else than `source` makes."""
    said: dict[str, Any] = {}
    for line in text.strip("\n").split("\n") if text.strip("\n") else ():
        for field, form, back in _FORMS:
            found = form.fullmatch(line.removesuffix(";"))
            if found is not None:
                try:
                    said[field] = back(found[1])
                except ValueError:
                    raise refused("it has a check that is not understood") from None
    try:
        terms = Terms(**said)
    except NineError as error:
        raise refused(str(error)) from None
    if (
        source(terms).strip() != text.strip()
    ):  # a check twice, another order, another escape: nothing is read in two ways
        raise refused("it has a check that is not understood")
    return terms


def _together(one: Capability, terms: Terms) -> Capability:
    """Return what a capability with one more block gives; raises EACCES for nothing."""
    path, ops = one.path, "".join(op for op in one.ops if terms.ops is None or op in terms.ops)
    if terms.path is not None:
        if within(terms.path, path):
            path = terms.path
        elif not within(path, terms.path):
            raise refused(f"it gives nothing: {terms.path or '/'} is not in {path or '/'}")
    if not ops:
        raise refused(f"it gives nothing: of {one.ops!r} {terms.ops!r} leaves no OPS")
    for name, other in ((one.to, terms.to), (one.kernel, terms.kernel)):
        if None not in (name, other) and name != other:
            raise refused(f"it gives nothing: it is for {name}, and only for {other}")
    return attrs.evolve(
        one,
        path=path,
        ops=ops,
        to=one.to or terms.to,
        kernel=one.kernel or terms.kernel,
        since=max(filter(None, (one.since, terms.since)), default=None),
        until=min(filter(None, (one.until, terms.until)), default=None),
    )


def within(path: str, above: str) -> bool:
    """Tell whether a path is another one, or below it."""
    return path == above or path.startswith(f"{above}/")


# Signing and reading


def _biscuit() -> Any:
    try:
        import biscuit_auth
    except ImportError:
        raise NineError(errno.EOPNOTSUPP, INSTALL) from None
    return biscuit_auth


def require() -> None:
    """Raise EOPNOTSUPP, in one line, where biscuit-python is not installed."""
    _biscuit()


def new_key() -> bytes:
    """Return a new private key: 32 bytes, to be kept secret. Raises EOPNOTSUPP without biscuit-python, as all below do."""
    return bytes(_biscuit().KeyPair().private_key.to_bytes())


@attrs.frozen
class Key:
    """A server's key: it mints, and it knows what it has minted."""

    private: "PrivateKey" = attrs.field(repr=False)
    public: "PublicKey"

    @classmethod
    def of(cls, private: bytes) -> "Key":
        """Return the key of 32 bytes from `new_key`; raises EINVAL for other bytes."""
        module = _biscuit()
        try:
            pair = module.KeyPair.from_private_key(module.PrivateKey.from_bytes(private, module.Algorithm.Ed25519))
        except (ValueError, module.BiscuitValidationError) as error:
            raise NineError(errno.EINVAL, f"no private key: {error}") from None
        return cls(pair.private_key, pair.public_key)

    def mint(self, terms: Terms) -> str:
        """Return the text of a new capability; raises EINVAL if the terms name no path or no OPS."""
        if terms.path is None or terms.ops is None:
            raise NineError(errno.EINVAL, "a capability needs a path and OPS")
        return _text(_biscuit().BiscuitBuilder(source(terms)).build(self.private), self.public)

    def read(self, text: str) -> Capability:
        """Return what a capability that this key has minted gives. Raises EACCES for every other text, whatever it is.

        Who may use it, and when, is not checked here: `Capability.check` does that. Nor whether it is revoked: the ledger knows.
        """
        public, token = _parsed(text)
        if public != bytes(self.public.to_bytes()):
            raise refused("another server has granted it")
        return _given(_verified(token, self.public))


def narrow(text: str, terms: Terms) -> str:
    """Return the text of a capability with one more block, without asking anybody.

    Raises EACCES if the result would give nothing or the text is no capability, EMSGSIZE if it would be too long.
    """
    public, token = _parsed(text)
    module = _biscuit()
    try:
        key = module.PublicKey.from_bytes(public, module.Algorithm.Ed25519)
    except (ValueError, module.BiscuitValidationError):
        raise refused("it is no capability") from None
    biscuit = _verified(token, key)
    _together(_given(biscuit), terms)
    if biscuit.block_count() >= DEEPEST:
        raise NineError(errno.EMSGSIZE, f"a capability is narrowed at most {DEEPEST - 1} times")
    return _text(biscuit.append(module.BlockBuilder(source(terms))), key)


def shown(text: str) -> Capability:
    """Return what a capability says it gives, for its holder. Raises EACCES for a text that is none. Only the server knows whether it holds."""
    public, token = _parsed(text)
    module = _biscuit()
    try:
        return _given(_verified(token, module.PublicKey.from_bytes(public, module.Algorithm.Ed25519)))
    except (ValueError, module.BiscuitValidationError):
        raise refused("it is no capability") from None


def _text(biscuit: "Biscuit", public: "PublicKey") -> str:
    text = f"{_encoded(bytes(public.to_bytes()))}.{_encoded(bytes(biscuit.to_bytes()))}"
    if len(text) > LONGEST:
        raise NineError(errno.EMSGSIZE, f"the capability would be longer than {LONGEST} characters")
    return text


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _encoded(data) != text:
        raise ValueError("there is another spelling of it")
    return data


def _parsed(text: str) -> tuple[bytes, bytes]:
    """Return the public key and the biscuit of a text, not verified; raises EACCES."""
    if len(text) <= LONGEST:
        key, dot, rest = text.partition(".")
        try:
            public, token = _decoded(key), _decoded(rest)
        except (ValueError, binascii.Error):
            dot = ""
        if dot and len(public) == 32:
            return public, token
    raise refused("it is no capability")


def _verified(token: bytes, public: "PublicKey") -> "Biscuit":
    """Return a biscuit whose signatures are right; raises EACCES."""
    module = _biscuit()
    try:
        biscuit: Biscuit = module.Biscuit.from_bytes(token, public)
    except (module.BiscuitValidationError, module.BiscuitSerializationError):
        raise refused("it is altered, or no capability") from None
    if bytes(biscuit.to_bytes()) != token:  # some bytes of it mean nothing: there is one text for one capability
        raise refused("it is altered, or no capability")
    return biscuit


def _given(biscuit: "Biscuit") -> Capability:
    count = biscuit.block_count()
    if count > DEEPEST or any(biscuit.block_external_key(at) is not None for at in range(count)):
        raise refused("it has a block that is not understood")
    first, *more = [terms_of(biscuit.block_source(at)) for at in range(count)]
    if first.path is None or first.ops is None:
        raise refused("it names no path or no OPS")
    ids = tuple(signature[:ID] for signature in biscuit.revocation_ids)
    return reduce(_together, more, Capability(ids, first.path, first.ops, *attrs.astuple(first)[2:]))


def revoked_by(ids: Iterable[str], revoked: Iterable[str]) -> str | None:
    """Return the first id of a capability's blocks that is revoked, or None."""
    gone = frozenset(revoked)
    return next((one for one in ids if one in gone), None)
