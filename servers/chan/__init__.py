"""Messages between kernels: `clone`, and `NAME/{ctl data bell status}` for each channel, made by `mkdir NAME` or by opening `clone`.

The manual is docs/files/chan.md. lines.py holds messages and rings that wait, channel.py a channel's rules and words, files.py its open files.

A channel is in one kernel, and is reached from all through 9P: so whole messages, order and flush are those of one server, and nothing has to be
agreed on between kernels. The precedents are mq_overview(7), for messages and their limits, and eventfd(2), for the bell.
"""

import os

from mk9p.servers.chan.files import Channels
from mk9p.tree import Dir


def tree(*, root: str = "/") -> Dir:
    """Give the directory of channels. `root` changes nothing: they are in this server's memory."""
    channels = Channels()
    channels.owned(
        os.geteuid(), os.getegid()
    )  # whoever the server runs as makes channels; others get what he lets them
    return channels
