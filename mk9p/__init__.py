"""mk9p: the devices and state of several Linux kernels as one 9P file tree."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mk9p.client import connect as connect

__all__ = ["connect"]


def __getattr__(name: str) -> Any:
    """Import `connect` when somebody first asks for it: a server does not need it, and so starts faster in a slow guest."""
    if name == "connect":
        from mk9p.client import connect

        return connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
