"""What the fixtures of `conftest.py` give: our server in a thread, and diod on a socketpair."""

from pathlib import Path

import attrs

from tests.interop.tree_interop import Everything


@attrs.frozen
class Served:
    """A server in a thread of its own: where it listens, and the state behind its tree."""

    port: int
    state: Everything

    @property
    def host_port(self) -> str:
        return f"127.0.0.1:{self.port}"


@attrs.frozen
class Diod:
    """diod serving one connection: the dial string of its other end, and the directory that it exports."""

    address: str
    root: Path
