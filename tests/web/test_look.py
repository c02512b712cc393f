"""What the live page looks at: a file that an operator must allow is not asked for at every look, and hides nothing else."""

from typing import Any

import pytest
import trio
import trio.testing

from mk9p.clients.web import look
from mk9p.testing import mounted
from mk9p.tree import Dir, Text


@pytest.mark.parametrize("answer", ["never", "no, late", "no, at once"])
async def test_an_operator_is_asked_for_a_file_now_and_then(
    answer: str, autojump_clock: trio.testing.MockClock
) -> None:
    asked = 0

    async def waits() -> str:
        nonlocal asked
        asked += 1
        await trio.sleep({"never": 1e6, "no, late": 1, "no, at once": 0}[answer])
        raise PermissionError

    tree = Dir({"status": Text("uptime 7\n"), "mem": Dir({"status": Text(waits)}), "cpu": Dir({})})
    async with mounted(tree) as client:
        eyes = look.Eyes(client)

        async def looked() -> dict[str, Any]:
            seen = await look.kernel(eyes, "")
            await trio.sleep(2)
            return seen

        for _ in range(7):
            seen = await looked()
            assert (seen["up"], seen["memory"]["total"]) == (7, None)
        # rules that change are seen soon
        assert asked == (7 if answer == "no, at once" else 1)
        await trio.sleep(look.REST)
        await looked()
        assert asked == (8 if answer == "no, at once" else 2)
