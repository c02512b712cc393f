"""What authorities have revoked, for links that are already there. OpenSSL itself asks only in a handshake.

PyPI's cryptography reads the lists (the extra `tls`). Without it a revoked certificate opens no connection any more, and those that it has go on.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mk9p.dial.keys import Keys
from mk9p.dial.sockets import log
from mk9p.dial.tls_context import stamp_of

if TYPE_CHECKING:
    from cryptography.x509 import CertificateRevocationList

_BEGIN: Final = b"-----BEGIN X509 CRL-----"
INSTALL: Final = "pip install 'mk9p[tls]'"


class Lists:
    """The lists that some keys name."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._seen: bytes | None = None
        self._lists: list[CertificateRevocationList] = []
        self._stamp: tuple[int, int, int] | None = None
        self._told = False

    def changed(self) -> bool:
        """Read the lists again if they have changed; tell whether they have. A file that is no list changes nothing."""
        path = self._keys.revoked
        now = stamp_of(path)
        if now == self._stamp:
            return False
        self._stamp = now
        text = b""
        if path:
            with suppress(OSError), open(path, "rb") as file:  # a handshake says what is wrong with it
                text = file.read()
        if text == (self._seen or b""):
            return False
        self._seen = text
        try:
            from cryptography import x509
        except ImportError:
            if not self._told:
                log().warning(
                    "tls: connections of revoked certificates go on until they end by themselves: %s", INSTALL
                )
            self._told = True
            return False
        try:
            self._lists = [x509.load_pem_x509_crl(_BEGIN + part) for part in text.split(_BEGIN)[1:]]
        except ValueError as error:
            log().error("tls: %s: no list of revoked certificates: %s", path, error)
            return False
        return True

    def has(self, certificate: bytes) -> bool:
        """Tell whether a certificate, in DER, was revoked."""
        from cryptography import x509

        found = x509.load_der_x509_certificate(certificate)
        return any(
            each.issuer == found.issuer and each.get_revoked_certificate_by_serial_number(found.serial_number)
            for each in self._lists
        )
