"""A small authority for those who have none: one directory, its own key, the certificates that it issued, the list of those that it revoked.

`ca.pem` is for everybody; `ca.crl` is for everybody who listens; `ca.key` is for nobody else: who reads it can make any name. `issued/SERIAL.pem`
is what the authority signed. PyPI's cryptography (the extra `tls`) makes keys and signs; TLS itself (mk9p/dial/tls.py) does not need it.

Everything begins five minutes before it is made, lists too: a machine whose clock is a little slow would otherwise refuse what is new, and a list
that is not valid yet refuses everybody.
"""

import errno
import ipaddress
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mk9p import contexts, state
from mk9p.dial.keys import NAME, Keys
from mk9p.errors import NineError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

YEARS: Final = 3650  # days of an authority: all that it issued ends with it
DAYS: Final = 365
SKEW: Final = timedelta(minutes=5)
NEEDS: Final = "certificates need cryptography: pip install 'mk9p[tls]'"


class Issued(NamedTuple):
    """A certificate that the authority signed: its number, the name in it, the hosts that it is for (none: only a client's), when it ends, and
    `good`, `expired` or `revoked`."""

    serial: int
    name: str
    hosts: tuple[str, ...]
    until: datetime
    state: str

    @property
    def number(self) -> str:
        """The serial number as people say it: hexadecimal, without a sign in front."""
        return f"{self.serial:x}"


def directory() -> Path:
    """Return where this user's authority is by default."""
    return contexts.directory() / "ca"


class Authority:
    """The authority in a directory. Raises ENOENT if there is none, and ENOENT with how to install it where cryptography is missing."""

    def __init__(self, where: Path) -> None:
        _needs()
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        self.where = where
        try:
            self.certificate = x509.load_pem_x509_certificate((where / "ca.pem").read_bytes())
            key = load_pem_private_key((where / "ca.key").read_bytes(), None)
        except FileNotFoundError:
            raise NineError(errno.ENOENT, f"{where}: no authority here: `mk9p ca init` makes one") from None
        except (ValueError, TypeError) as error:
            raise NineError(errno.EINVAL, f"{where}: ca.pem or ca.key is damaged: {error}") from None
        if not isinstance(key, EllipticCurvePrivateKey):
            raise NineError(errno.EINVAL, f"{where}: ca.key is of another kind than mk9p makes")
        self._key = key

    @classmethod
    def make(cls, where: Path, name: str = "mk9p", *, days: int = YEARS) -> "Authority":
        """Make a new authority. Raises EEXIST if there is one: its certificates would be worth nothing any more."""
        _needs()
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        if (where / "ca.key").exists() or (where / "ca.pem").exists():
            raise NineError(errno.EEXIST, f"{where}: an authority is here already")
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        key, now = ec.generate_private_key(ec.SECP256R1()), _now()
        subject = _subject(_checked(name) + " authority")
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        state.make(where / "ca.key", _pem(key))
        state.make(where / "ca.pem", _pem(certificate), mode=0o644)
        made = cls(where)
        made._list({})
        return made

    @property
    def keys(self) -> Keys:
        """What others need to believe it."""
        return Keys(ca=str(self.where / "ca.pem"), crl=str(self.where / "ca.crl"))

    def issue(
        self,
        name: str,
        into: Path,
        hosts: Sequence[str] = (),
        *,
        days: float = DAYS,
        renew: bool = False,
        start: datetime | None = None,
    ) -> Keys:
        """Sign a certificate, into NAME.pem and NAME.key of a directory, and return where they are.

        With `hosts` it is for a server that is dialled by these names and addresses, which may also dial others; without, for a client alone. `renew`
        takes the key that is there. Raises EEXIST for a name that has files there, EINVAL for a name that no certificate may have.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from cryptography.x509.oid import ExtendedKeyUsageOID

        files = Keys(cert=str(into / f"{_checked(name)}.pem"), key=str(into / f"{name}.key"), **_trusted(self.keys))
        if renew:
            try:
                key = load_pem_private_key(Path(files.key).read_bytes(), None)
            except FileNotFoundError:
                raise NineError(errno.ENOENT, f"{files.key}: no key to renew the certificate of") from None
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise NineError(errno.EINVAL, f"{files.key}: of another kind than mk9p makes")
        else:
            for path in (files.cert, files.key):
                if os.path.lexists(path):
                    raise NineError(errno.EEXIST, f"{path}: is there already: --renew takes the same key again")
            key = ec.generate_private_key(ec.SECP256R1())
        begins = (start or _now()) - SKEW
        ends = min(begins + SKEW + timedelta(days=days), self.certificate.not_valid_after_utc)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
        builder = (
            x509.CertificateBuilder(
                self.certificate.subject, _subject(name), key.public_key(), x509.random_serial_number()
            )
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_host, hosts))), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        # First the book, then the files: there is no certificate that the authority could not revoke.
        book = self.where / "issued"
        state.make(book / f"{certificate.serial_number:x}.pem", _pem(certificate))
        if not renew:
            state.make(Path(files.key), _pem(key))
        state.make(Path(files.cert), _pem(certificate), over=renew, mode=0o644)
        return files

    def issued(self) -> list[Issued]:
        """Return all certificates that it signed, by name, the newest of a name last."""
        from cryptography import x509

        revoked, now, found = self._revoked(), _now(), list[Issued]()
        try:
            paths = sorted((self.where / "issued").glob("*.pem"))
        except OSError as error:
            raise NineError(error.errno or errno.EIO, f"{self.where}: {error.strerror}") from None
        for path in paths:
            try:
                each = x509.load_pem_x509_certificate(path.read_bytes())
            except ValueError as error:
                raise NineError(errno.EINVAL, f"{path}: damaged: {error}") from None
            (name,) = each.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            state = "revoked" if each.serial_number in revoked else "good"
            if state == "good" and each.not_valid_after_utc < now:
                state = "expired"
            found.append(Issued(each.serial_number, str(name.value), _hosts(each), each.not_valid_after_utc, state))
        return sorted(found, key=lambda each: (each.name, each.until, each.serial))

    def revoke(self, which: str) -> list[Issued]:
        """Revoke all good certificates of a name, or the one of a number, and return them. Raises ENOENT if there is none."""
        with state.locked(self.where / "lock"):
            found = [each for each in self.issued() if which in (each.name, each.number)]
            good = [each for each in found if each.state == "good"]
            if not good:
                words = f"all are {found[0].state} already" if found else "`mk9p ca list` shows what it issued"
                raise NineError(errno.ENOENT, f"no certificate to revoke for {which!r}: {words}")
            self._revoke([each.serial for each in good])
        return good

    def _revoked(self) -> "dict[int, x509.RevokedCertificate]":
        from cryptography import x509

        try:
            listed = x509.load_pem_x509_crl((self.where / "ca.crl").read_bytes())
        except FileNotFoundError:  # without it, a new one would let everybody in again
            words = "it is gone, and so is what was revoked: copy it back from who listens"
            raise NineError(errno.ENOENT, f"{self.where}/ca.crl: {words}") from None
        except ValueError as error:
            raise NineError(errno.EINVAL, f"{self.where}/ca.crl: damaged: {error}") from None
        return {each.serial_number: each for each in listed}

    def _revoke(self, serials: Iterable[int]) -> None:
        """Write the list again, with these numbers too."""
        from cryptography import x509

        now = _now()
        self._list(
            self._revoked() | {serial: x509.RevokedCertificateBuilder(serial, now).build() for serial in serials}
        )

    def _list(self, listed: "Mapping[int, x509.RevokedCertificate]") -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        now = _now()
        builder = x509.CertificateRevocationListBuilder(
            self.certificate.subject, now - SKEW, self.certificate.not_valid_after_utc
        )
        for each in listed.values():
            builder = builder.add_revoked_certificate(each)
        state.make(self.where / "ca.crl", _pem(builder.sign(self._key, hashes.SHA256())), over=True, mode=0o644)


def _needs() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise NineError(errno.ENOENT, NEEDS) from None


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _trusted(keys: Keys) -> dict[str, str]:
    return {"ca": keys.ca, "crl": keys.crl}


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise NineError(errno.EINVAL, f"bad name {name!r}: letters, digits and . _ @ - (64 at most)")
    return name


def _subject(name: str) -> "x509.Name":
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _host(text: str) -> "x509.GeneralName":
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text)
    except ValueError:
        raise NineError(errno.EINVAL, f"bad host {text!r}: want a name in ASCII, or an address") from None


def _hosts(certificate: "x509.Certificate") -> tuple[str, ...]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(each.value) for each in names)


def _usage(*, signs: bool) -> "x509.KeyUsage":
    from cryptography import x509

    no = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, **no)


def _pem(what: "EllipticCurvePrivateKey | x509.Certificate | x509.CertificateRevocationList") -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if isinstance(what, EllipticCurvePrivateKey):
        return what.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return what.public_bytes(Encoding.PEM)
