"""The trio client: a server's files by path (`connect`, `Client`, `File`), and below it connections, fids and requests for who builds on them."""

from mk9p.client.calls import Call
from mk9p.client.client import Client, connect
from mk9p.client.connection import Connection
from mk9p.client.files import File, Lines
from mk9p.client.handshake import attach, open_connection

__all__ = ["Call", "Client", "Connection", "File", "Lines", "attach", "connect", "open_connection"]
