"""mk9p: the devices and state of several Linux kernels as one 9P file tree."""

import sys
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 11):  # noqa: UP036 - who runs a clone with an old Python is told so, and not by the syntax of some module
    _OLD = "this is Python %d.%d, and mk9p needs 3.11 or newer" % sys.version_info[:2]  # noqa: UP031
    if sys.argv[:1] == ["-m"]:
        sys.exit("mk9p: " + _OLD + ": python3.11 -m mk9p")
    raise ImportError(_OLD)

if TYPE_CHECKING:
    from mk9p.client import connect as connect
    from mk9p.dial.keys import Keys as Keys
    from mk9p.serving import serve as serve

__all__ = ["Keys", "connect", "serve"]


def __getattr__(name: str) -> Any:
    """Import a name when somebody first asks for it: a server does not need it, and so starts faster in a slow guest."""
    if name == "connect":
        from mk9p.client import connect

        return connect
    if name == "Keys":
        from mk9p.dial.keys import Keys

        return Keys
    if name == "serve":
        from mk9p.serving import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
