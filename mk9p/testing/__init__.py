"""For authors of resource servers and other 9P programs: servers and files for their tests, checks that every tree must pass, and bad peers.

    async with mounted(Counter().tree()) as tree:
        await tree.write("ctl", "add 2")
        assert await tree.read("count") == "2\\n"

    stored = Memory({"f": "text"})
    async with serving_at("tcp!127.0.0.1!0", stored) as host, connect(host.address) as client:
        await client.write("f", "more")
        await until(lambda: stored.at("f").open_now == 0)

    with child([sys.executable, "-m", "mk9p", "serve", "-l", address, "counter"], "listening on"):
        ...

    await check_tree(lambda: Counter().tree())

    await check_page(Path("counter.md").read_text(), tree)

mounted.py    a tree, served to a client of this process
serving.py    a tree, served at an address, or to clients that are joined by hand; stopped, and started again; in a thread
memory.py     a directory tree in memory, with all that can be done to stored files
waiting.py    wait until something is true
processes.py  a process that always ends with its test
check.py      what every tree must do, whatever it is of
line.py       one end of a connection by hand: any message, and bytes that are none
faults.py     links and streams of which the nth operation fails
manual.py     a manual page against the tree that it is of (page.py reads it)
odd.py        a server without manners: replies that are changed, untrue, late, unasked, or more than was asked for (replies.py)
rude.py       a client without manners: tags used again, floods, mutated frames, hanging up in the middle
"""

from mk9p.testing.check import check_tree
from mk9p.testing.faults import Faults, FlakyLink, FlakyStream
from mk9p.testing.line import Line
from mk9p.testing.manual import check_page
from mk9p.testing.memory import Memory, MemoryHandle
from mk9p.testing.mounted import mounted
from mk9p.testing.odd import Oddity, odd
from mk9p.testing.processes import child, hear
from mk9p.testing.replies import Replies
from mk9p.testing.rude import Frames, rude
from mk9p.testing.serving import PRIVATE, Host, address_of, in_thread, joined, serving, serving_at
from mk9p.testing.waiting import SOON, until, until_true

__all__ = [
    "PRIVATE",
    "SOON",
    "Faults",
    "FlakyLink",
    "FlakyStream",
    "Frames",
    "Host",
    "Line",
    "Memory",
    "MemoryHandle",
    "Oddity",
    "Replies",
    "address_of",
    "check_page",
    "check_tree",
    "child",
    "hear",
    "in_thread",
    "joined",
    "mounted",
    "odd",
    "rude",
    "serving",
    "serving_at",
    "until",
    "until_true",
]
