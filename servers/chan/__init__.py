"""Messages between kernels: `clone`, and `NAME/{ctl data bell status}` for each channel, which `mkdir NAME` or opening `clone` makes.

The manual is docs/files/chan.md. lines.py holds waiting messages and rings, channel.py the rules and words of a channel, files.py its open files.

A channel is in one kernel, and all others reach it through 9P. So one server keeps messages whole and in order and handles flushes, and the
kernels need not agree on anything. The models are mq_overview(7), for messages and their limits, and eventfd(2), for the bell.
"""

import os

from mk9p.servers.chan.files import Channels
from mk9p.tree import Dir


def tree(*, root: str = "/") -> Dir:
    """Give the directory of channels. `root` has no effect: channels are in this server's memory."""
    channels = Channels()
    # the user that the server runs as makes channels; others get what that user lets them
    channels.owned(os.geteuid(), os.getegid())
    return channels
