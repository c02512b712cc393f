"""The trio engine: a tree of Nodes served over links, many clients at once, all three dialects on one port."""

from mk9p.server.engine import Server
from mk9p.server.limits import Limits

__all__ = ["Limits", "Server"]
