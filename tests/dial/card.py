"""card!HOST!PORT: tcp, wrapped as TLS will wrap it.

Who dials says a name first; nobody should believe it, but it stands for the name of a certificate.
"""

from mk9p.dial import Dial, Link, Listener, SocketLink, tcp
from mk9p.dial.sockets import SocketListener


async def dial(where: Dial) -> SocketLink:
    return _said(await tcp.dial(where))


def dial_now(where: Dial, deadline: float) -> SocketLink:
    return _said(tcp.dial_now(where, deadline))


async def listen(where: Dial, mode: int) -> Listener:
    return CardListener(await tcp.listen(where, mode))


def _said(link: SocketLink) -> SocketLink:
    link.send(b"cert:ann\n")
    return link


class CardListener:
    def __init__(self, inner: SocketListener) -> None:
        self.inner = inner
        self.address, self.transport, self.loopback = inner.address, inner.transport, inner.loopback

    async def accept(self) -> Link:
        link = await self.inner.accept()
        name = bytearray(9)
        await link.wait_readable()
        link.recv_into(memoryview(name))
        link.peer = link.peer._replace(user=name.decode().strip())
        return link

    async def aclose(self) -> None:
        await self.inner.aclose()
