"""What a failed handshake means, in one line that says what to do; and the name in a certificate.

OpenSSL's own words name functions of its own. A peer's refusal comes as an alert of RFC 8446, whose number says why.
"""

import errno
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final

from mk9p.dial.keys import NAME
from mk9p.dial.link import Refused

# X509_V_ERR_* of openssl/x509_vfy.h
_UNKNOWN: Final = "it comes from an authority that is not in --ca"
_VERIFY: Final = {
    2: _UNKNOWN,
    3: "its authority has no list of what it revoked in --crl",
    9: "it is not valid yet",
    10: "it has expired",
    11: "the list of what was revoked (--crl) is not valid yet",
    12: "the list of what was revoked (--crl) is out of date: get a newer one",
    18: "it is signed by itself alone, and not in --ca",
    19: _UNKNOWN,
    20: _UNKNOWN,
    21: _UNKNOWN,
    23: "it was revoked",
    26: "it is not made for this end of a connection (extended key usage)",
    62: "it has another name",
    64: "it has another name",
}
_CLOCK: Final = (9, 10, 11, 12)

# what the other end says of our certificate
_ALERTS: Final = {
    "CERTIFICATE_REQUIRED": "it lets in only who has a certificate: give --cert and --key",
    "CERTIFICATE_EXPIRED": "it refuses our certificate, which has expired by its clock",
    "CERTIFICATE_REVOKED": "it refuses our certificate, which was revoked",
    "CERTIFICATE_UNKNOWN": "it refuses our certificate",
    "BAD_CERTIFICATE": "it refuses our certificate: not valid yet by its clock, for another name, or damaged",
    "UNSUPPORTED_CERTIFICATE": "it refuses our certificate, which is not made for a client",
    "UNKNOWN_CA": "it refuses our certificate: it does not know the authority",
    "ACCESS_DENIED": "it refuses our certificate",
    "DECRYPT_ERROR": "it could not check our certificate's signature",
    "PROTOCOL_VERSION": "it does not speak TLS 1.3",
    "HANDSHAKE_FAILURE": "it does not speak TLS 1.3, or none of our ciphers",
    "INTERNAL_ERROR": "it has an internal error",
}
PLAIN: Final = "it does not speak TLS: dial tcp!"


def broken(error: Exception, host: str | None, *, shaking: bool) -> Refused:
    """Return the error to raise for one of ssl's; `host` is the name that was dialled, None at a listener."""
    who = "the server's certificate" if host is not None else "the client's certificate"
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        words = _VERIFY.get(code, error.verify_message)
        if code in (62, 64) and host is not None:
            words = f"it is not for the name {host}"
        if code in _CLOCK:
            words += time.strftime(" (by this machine's clock it is %Y-%m-%d %H:%M UTC)", time.gmtime())
        return Refused(errno.EACCES, f"{who} is refused: {words}")
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        end = "it hung up in the middle of the handshake: is it a port without TLS?"
        return Refused(errno.ECONNRESET, end if shaking else "it hung up")
    reason = getattr(error, "reason", None) or ""
    if "ALERT" in reason:
        name = reason.partition("ALERT_")[2]
        return Refused(errno.EACCES, _ALERTS.get(name, f"it ended TLS: {_plain(name)}"))
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return Refused(errno.EACCES, "the client has no certificate")
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "BAD_RECORD_TYPE", "RECORD_LAYER_FAILURE") and shaking:
        return Refused(errno.EPROTO, PLAIN if host is not None else "it does not speak TLS")
    if reason in ("UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"):
        return Refused(errno.EPROTO, "it does not speak TLS 1.3")
    return Refused(errno.EPROTO, f"TLS failed: {_plain(reason) or error}")


def _plain(reason: str) -> str:
    return reason.lower().replace("_", " ")


def name_in(certificate: Mapping[str, Any]) -> str:
    """Return the one name that a client's certificate is for. Raises Refused if it has none, several, or one that could be taken for something else.

    It is the common name of the subject (CN). A certificate without one has the only DNS or e-mail name among its subject alternative names.
    """
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    if not names:
        names = [value for key, value in certificate.get("subjectAltName", ()) if key in ("DNS", "email")]
    if len(names) != 1:
        found = "no name" if not names else "several names"
        raise Refused(errno.EACCES, f"the client's certificate is refused: it has {found} (CN, else one DNS or e-mail)")
    if not NAME.fullmatch(names[0]):
        raise Refused(
            errno.EACCES,
            f"the client's certificate is refused: its name {names[0]!r} has other than letters, digits and . _ @ -",
        )
    return str(names[0])
