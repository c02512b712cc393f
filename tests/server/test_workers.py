"""The tasks of a server, when they end."""

import pytest
import trio

from mk9p.server import Server
from mk9p.testing import SOON
from mk9p.tree import Dir, Text
from mk9p.wire import messages as m
from tests.server.talk import talk_to


async def test_a_request_that_waits_while_the_server_ends_wakes_no_worker_that_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The idle worker is cancelled in the same step in which the leader looks for another one to lead."""
    asked, go, ended = trio.Event(), trio.Event(), trio.Event()

    async def waits() -> str:
        asked.set()
        await go.wait()
        return "text"

    async def ends() -> str:
        scope.cancel()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    server = Server(Dir({"waits": Text(waits), "ends": Text(ends)}))
    with trio.fail_after(SOON):
        async with trio.open_nursery() as outer:
            scope = trio.CancelScope()

            async def run(*, task_status: trio.TaskStatus[None]) -> None:
                with scope:
                    await server.run(task_status=task_status)

            await outer.start(run)
            talk = await talk_to(server)
            await talk.open(1, "waits")
            await talk.open(2, "ends")
            await talk.send(m.Tread, 1, 1, 0, 100)
            await asked.wait()
            go.set()
            assert isinstance(await talk.receive(), m.Rread)
            assert await talk.rpc(m.Tread, 1, 2, 0, 100) is None
            await talk.stream.aclose()
    assert ended.is_set()
    assert not caplog.records
