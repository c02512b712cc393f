"""What the tests of links share."""

import trio

from mk9p.dial import Link, Listener, dial
from mk9p.testing import SOON


async def pair(listener: Listener) -> tuple[Link, Link]:
    """Return both ends of a new link, the dialler's first."""
    link = await dial(listener.address)
    return link, await listener.accept()


async def receive(link: Link, count: int) -> bytes:
    """Receive exactly `count` bytes, or fewer at the end."""
    buf = bytearray(count)
    got = 0
    with trio.fail_after(SOON):
        while got < count:
            try:
                more = link.recv_into(memoryview(buf)[got:])
            except BlockingIOError:
                await link.wait_readable()
                continue
            if not more:
                break
            got += more
    return bytes(buf[:got])


async def send_all(link: Link, data: bytes) -> None:
    with trio.fail_after(SOON):
        while data:
            try:
                data = data[link.send(data) :]
            except BlockingIOError:
                await link.wait_writable()


async def talk(one: Link, other: Link) -> None:
    """Check that bytes of every value, and more than any buffer holds, go both ways, and that nothing waiting is BlockingIOError."""
    every = bytes(range(256)) * 4096
    for a, b in ((one, other), (other, one)):
        try:
            b.recv_into(memoryview(bytearray(1)))
        except BlockingIOError:
            pass
        else:
            raise AssertionError("there was something to receive")
        got = b""

        async def take(link: Link = b) -> None:
            nonlocal got
            got = await receive(link, len(every))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await send_all(a, every)
        assert got == every


async def ended(link: Link) -> bool:
    return await receive(link, 1) == b""
