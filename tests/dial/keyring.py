"""An authority and the keys that it issued, for the tests of TLS."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from mk9p.certificates import Authority
from mk9p.dial import Keys


class Keyring:
    """An authority in a directory, with a server's certificate for this machine."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.authority = Authority.make(where / "ca")
        self.server = self.issue("server", "localhost", "127.0.0.1", "::1")

    def issue(self, name: str, *hosts: str, days: float = 30.0, start: float = 0.0) -> Keys:
        """Issue a certificate that begins `start` days from now."""
        begins = datetime.now(UTC) + timedelta(days=start)
        return self.authority.issue(name, self.where, hosts, days=days, start=begins)
