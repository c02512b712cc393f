"""The client: a server's files by path (`connect`, `Client`, `File`), and below it connections, fids and requests for programs that use these
directly."""

from typing import TYPE_CHECKING, Final

from mk9p.lazy import lazily

if TYPE_CHECKING:
    from mk9p.client.agreement import attach
    from mk9p.client.calls import Call
    from mk9p.client.client import Client
    from mk9p.client.connection import Connection
    from mk9p.client.conversation import Conversation
    from mk9p.client.files import File, Lines
    from mk9p.client.handshake import open_connection
    from mk9p.client.opening import connect

__all__ = ["Call", "Client", "Connection", "Conversation", "File", "Lines", "attach", "connect", "open_connection"]

_HOMES: Final = {
    "agreement": ("attach",),
    "calls": ("Call",),
    "client": ("Client",),
    "connection": ("Connection",),
    "conversation": ("Conversation",),
    "files": ("File", "Lines"),
    "handshake": ("open_connection",),
    "opening": ("connect",),
}
__getattr__ = lazily(__name__, _HOMES)
