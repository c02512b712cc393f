"""What a client that does not read its replies costs: memory that is bounded, and measured here. `--long`: a flood of a million requests."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from mk9p.server import Limits
from mk9p.testing import Line, child
from mk9p.wire import Dialect, codec
from mk9p.wire import messages as m

READERS = 1000
MIB = 1 << 20


@contextmanager
def serving(path: Path) -> Iterator[int]:
    """Start the server; gives its process."""
    program = Path(__file__).with_name("waiting_server.py")
    with child([sys.executable, program, path], "ready", stdout=subprocess.PIPE) as process:
        yield process.pid


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


async def test_a_client_that_does_not_read_costs_bounded_memory(
    long: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flood = 1_000_000 if long else 100_000
    with serving(tmp_path / "s") as pid:
        talk, other = [Line(await trio.open_unix_socket(tmp_path / "s")) for _ in range(2)]
        await talk.start()
        await other.start()
        await other.open(1, "ctl", mode=1)
        await talk.open(5000, "text")
        await talk.open(5001, "ctl", mode=1)
        first = resident(pid)
        for fid in range(1, READERS + 1):
            await talk.open(fid, "events")
            await talk.send(m.Tread, 10_000 + fid, fid, 0, 8192)
        assert isinstance(await talk.rpc(m.Twrite, 1, 5001, 0, b"say one\n"), m.Rwrite)
        waiting = resident(pid)

        requests = codec(Dialect.L, m.Tread.type).pack(7, 5000, 0, 4000) * 1000
        stuck = trio.Event()

        async def send() -> None:
            for _ in range(flood // 1000):
                with trio.move_on_after(0.5) as scope:
                    await talk.stream.wait_send_all_might_not_block()
                if scope.cancelled_caught:
                    stuck.set()
                await talk.stream.send_all(requests)

        async def watch() -> None:
            """Nobody has read for a while when this client's sending is stuck: measure, and only then begin to read."""
            with trio.move_on_after(5):
                await stuck.wait()

        most = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await watch()
            most = max(most, resident(pid))
            assert isinstance(await other.rpc(m.Twrite, 1, 1, 0, b"say two\n"), m.Rwrite)  # nobody else notices
            size = 0
            while size < flood * 4011:
                size += len(await talk.stream.receive_some(1 << 20))
                if size >> 24 != (size - 65536) >> 24:
                    most = max(most, resident(pid))
        assert size == flood * 4011
        assert isinstance(await talk.rpc(m.Twrite, 1, 5001, 0, b"say three\n"), m.Rwrite)
        await talk.stream.aclose()
        await other.stream.aclose()
    with capsys.disabled():
        print(
            f"\n{READERS} blocked readers: {(waiting - first) / READERS / 1024:.1f} KiB each; "
            f"unread replies of {flood} requests: {(most - waiting) / MIB:.1f} MiB more (whole server {most / MIB:.0f} MiB)"
        )
    assert waiting - first < READERS * 32 * 1024
    assert most - waiting < 3 * Limits().out
