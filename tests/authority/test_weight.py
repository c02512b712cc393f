"""Whoever is limited pays little for it: the bytecodes of walk, open, read and clunk, which are as many on every machine."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import trio

import mk9p
from mk9p.authority.deciding import Authority
from mk9p.testing import SOON, Line, joined, serving
from mk9p.wire import Dialect, codec
from mk9p.wire import messages as m
from tests.bench.served import Given, plain, ruled

OURS = Path(mk9p.__file__).parent
# What runs for each request. What runs for each batch of them depends on how many come together.
COUNTED = tuple(
    str(OURS / part)
    for part in (
        "authority/",
        "tree/",
        "auth.py",
        *(f"server/{name}" for name in ("ops", "permitted", "steps", "fids", "closing")),
    )
)
MOST = 60  # a walk, open, read and clunk take 3,000 in all, and 3 % of that are allowed
READS = 10


def reads(count: int) -> bytes:
    """Return the requests of a client that reads a small file again and again."""
    frames = []
    for tag in range(0, 4 * count, 4):
        fid = 100 + tag
        frames += [
            codec(Dialect.L, m.Twalk.type).pack(tag, 0, fid, ("small",)),
            codec(Dialect.L, m.Tlopen.type).pack(tag + 1, fid, 0),
            codec(Dialect.L, m.Tread.type).pack(tag + 2, fid, 0, 64),
            codec(Dialect.L, m.Tclunk.type).pack(tag + 3, fid),
        ]
    return b"".join(frames)


async def executed(authority: Authority, aname: str) -> float:
    """Return how many bytecodes of mk9p one read takes."""
    counted = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal counted
        if not frame.f_code.co_filename.startswith(COUNTED):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        counted += event == "opcode"
        return trace

    async def take(line: Line, count: int) -> int:
        nonlocal counted
        counted = 0
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            await line.raw(reads(count))
            for i in range(4 * count):
                assert (await line.frame())[4] == (m.Rwalk, m.Rlopen, m.Rread, m.Rclunk)[i % 4].type
        finally:
            sys.settrace(before)
        return counted

    with trio.fail_after(SOON):
        async with (
            serving(plain(), authority=authority) as server,
            trio.SocketStream(trio.socket.from_stdlib_socket(joined(server))) as stream,
        ):
            line = Line(stream)
            await line.rpc(m.Tversion, 0xFFFF, 65536, "9P2000.L")
            assert isinstance(await line.rpc(m.Tattach, 1, 0, 0xFFFFFFFF, "root", aname, 0), m.Rattach)
            await take(line, 2)
            return (await take(line, 2 * READS) - await take(line, READS)) / READS


async def test_rules_and_capabilities_add_few_bytecodes_to_a_walk_and_an_open() -> None:
    free = await executed(Authority(), "")
    for authority, aname in ((ruled(), ""), (Authority(Given()), "cap!x")):
        assert free < await executed(authority, aname) <= free + MOST
