"""All messages, and their base: message.py says how one is described; plan9.py, linux.py and linux_names.py describe them."""

from mk9p.wire.linux import *  # noqa: F403
from mk9p.wire.linux_names import *  # noqa: F403
from mk9p.wire.message import Message as Message
from mk9p.wire.plan9 import *  # noqa: F403

MESSAGES: tuple[type[Message], ...] = tuple(Message.__subclasses__())
