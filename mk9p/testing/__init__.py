"""For anyone who writes a resource server, or another 9P program: its tree served in one process, the checks of every tree, and bad neighbours.

    async with mounted(Counter().tree()) as tree:
        await tree.write("ctl", "add 2")
        assert await tree.read("count") == "2\\n"

    await check_tree(lambda: Counter().tree())

    await check_page(Path("counter.md").read_text(), tree)

mounted.py  a tree, served to a client of this process
check.py    what every tree must do, whatever it is of
faults.py   links and streams of which the nth operation fails
manual.py   a manual page against the tree that it is of (page.py reads it)
odd.py      a server without manners: replies that are changed, untrue, late, unasked, or more than was asked for (replies.py)
rude.py     a client without manners: tags used again, floods, mutated frames, hanging up in the middle
"""

from mk9p.testing.check import check_tree
from mk9p.testing.faults import Faults, FlakyLink, FlakyStream
from mk9p.testing.manual import check_page
from mk9p.testing.mounted import PRIVATE, joined, mounted
from mk9p.testing.odd import Oddity, odd
from mk9p.testing.replies import Replies
from mk9p.testing.rude import Frames, rude

__all__ = [
    "PRIVATE",
    "Faults",
    "FlakyLink",
    "FlakyStream",
    "Frames",
    "Oddity",
    "Replies",
    "check_page",
    "check_tree",
    "joined",
    "mounted",
    "odd",
    "rude",
]
