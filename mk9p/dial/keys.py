"""Where the keys for TLS are: files in PEM, told by a caller, else by the environment, else by a context (contexts.py).

`$MK9P_CA`, `$MK9P_CERT`, `$MK9P_KEY` and `$MK9P_CRL` name the files; the flags of commands set these variables. Whoever listens never takes the
keys of a context, because a context is what a person uses to reach others.
"""

import os
import re
from typing import Final, NamedTuple

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
"""What a certificate may call its owner. With other letters a name could look like something else where names are listed."""

VARIABLES: Final = {"ca": "MK9P_CA", "cert": "MK9P_CERT", "key": "MK9P_KEY", "crl": "MK9P_CRL"}


class Keys(NamedTuple):
    """Paths of files in PEM; "" for none.

    `ca`: the authorities that are believed. `cert`: the certificate of this end, with those between it and an authority. `key`: its private key,
    by default in the same file. `crl`: what the authorities have revoked, by default the file beside `ca` that ends with `.crl`.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""
    crl: str = ""

    @property
    def revoked(self) -> str:
        """The file of what was revoked, "" if there is none."""
        if self.crl or not self.ca:
            return self.crl
        beside = os.path.splitext(self.ca)[0] + ".crl"
        return beside if os.path.exists(beside) else ""

    def over(self, other: "Keys") -> "Keys":
        """Return these keys, and of another's what is missing here: a certificate with its key, authorities with their list."""
        cert = self if self.cert else other
        ca = self if self.ca else other
        return Keys(ca.ca, cert.cert, cert.key, self.crl or ca.crl)


def tell(keys: Keys) -> None:
    """Put keys into the environment, for this process and those that it starts, wherever they run."""
    for field, path in keys._asdict().items():
        if path:
            os.environ[VARIABLES[field]] = os.path.abspath(path)


def told() -> Keys:
    """Return the keys that the environment names."""
    return Keys(**{field: os.environ.get(name, "") for field, name in VARIABLES.items()})


def to_dial() -> Keys:
    """Return the keys to dial with: those of the environment, and what is missing there from the context in use."""
    keys = told()
    if keys.ca and keys.cert:
        return keys
    from mk9p import contexts

    used = contexts.used()
    return keys if used is None else keys.over(Keys(used.ca, used.cert, used.key))
