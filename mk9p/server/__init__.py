"""The trio engine: a tree of Nodes served over links, many clients at once, all three dialects on one port."""

from mk9p.server.engine import Server
from mk9p.server.limits import Limits
from mk9p.server.stats import stats_tree
from mk9p.server.tally import Tally

__all__ = ["Limits", "Server", "Tally", "stats_tree"]
