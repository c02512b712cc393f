"""A state comes from anywhere: what is cut, altered, of another version or made up is one error, and nothing else happens."""

import errno
import hashlib
import json
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import trio

from mk9p.clients.wasm.showing import show
from mk9p.errors import NineError
from mk9p.servers.wasm.container import State, head_of, packed, unpacked
from mk9p.servers.wasm.settings import MEMORY, Settings
from mk9p.servers.wasm.snapshot_head import head_of as snapshot_of
from mk9p.servers.wasm.snapshot_head import packed as snapshot_packed
from tests.wasm.conftest import Compiled
from tests.wasm.programs_of import Kernel


async def frozen(kernel: Kernel, program: Compiled) -> bytes:
    async with kernel.program("arg primes 3000000", "env A=b", "start", module=program("primes")) as p:
        await trio.sleep(0.05)
        return await p.frozen()


def whole(state: State) -> bytes:
    return b"".join(packed(state))


async def refused(kernel: Kernel, state: bytes) -> NineError:
    async with kernel.program(state=state) as p:
        with pytest.raises(NineError) as caught:
            await p.order("start")
        assert await p.state() in ("open", "frozen")
    return caught.value


async def test_a_state_that_was_cut_or_altered_is_no_state(kernel: Kernel, program: Compiled) -> None:
    state = await frozen(kernel, program)
    assert head_of(memoryview(state))["args"] == ["primes", "3000000"]
    for at in (1, 7, 8, 15, 16, 60, len(state) // 2, len(state) - 1):
        assert (await refused(kernel, state[:at])).errno == errno.EBADMSG
    for at in random.sample(range(len(state)), 300):
        bent = bytearray(state)
        bent[at] ^= 1 << random.randrange(8)
        with pytest.raises(NineError) as caught:
            unpacked(memoryview(bent))
        assert caught.value.errno in (errno.EBADMSG, errno.EPROTO)
    assert (await refused(kernel, state + b"more")).errno == errno.EBADMSG
    later = bytearray(state)
    later[8] = 2
    said = await refused(kernel, bytes(later))
    assert (said.errno, said.ename) == (errno.EPROTO, "a state of version 2, and this kernel reads version 1")
    async with kernel.program("start", "kill", state=state) as p:
        assert await p.ending() == "signal SIGKILL"


@pytest.mark.parametrize(
    "head",
    [
        {"args": "primes"},
        {"args": [1]},
        {"env": ["no variable"]},
        {"limits": {"memory": -1}},
        {"limits": {"memory": 1 << 70}},
        {"limits": {"memory": True}},
        {"limits": {"nothing": 5}},
        {"limits": {"memory": 65536}},
        {"grants": [["/a", "/b"]]},
        {"grants": [["/a/../..", "/b", True]]},
        {"used": None},
        {"ended": 3},
        {"time": "noon"},
        {"time": 1 << 70},
        {"from": None},
    ],
)
async def test_a_state_whose_head_was_made_up_is_refused(
    kernel: Kernel, program: Compiled, head: dict[str, Any]
) -> None:
    state = unpacked(memoryview(await frozen(kernel, program)))
    said = await refused(kernel, whole(attrs.evolve(state, head={**state.head, **head})))
    assert said.errno in (errno.EBADMSG, errno.EINVAL, errno.ENOMEM, errno.ENOEXEC), said


CHANGES: list[Callable[[dict[str, Any]], Any]] = [
    lambda head: head.pop("memories"),
    lambda head: head["memories"].pop(),
    lambda head: head["memories"][0].update(size=head["memories"][0]["size"] + 1),
    lambda head: head["memories"][0].update(size=1 << 40),
    lambda head: head["memories"][0].update(size=1 << 32),
    lambda head: head["memories"][0].update(size="many"),
    lambda head: head["memories"][0]["runs"].insert(0, [0, 1 << 40]),
    lambda head: head["memories"][0]["runs"].insert(0, [-4096, 4096]),
    lambda head: head["memories"][0]["runs"].append([0, 4096]),
    lambda head: head["globals"].update({"mk9p.g0": "00"}),
    lambda head: head["globals"].update({"mk9p.g77": "00000000"}),
    lambda head: head.update(globals=[1, 2]),
    lambda head: head.update(open="everything"),
    lambda head: head["open"].append([3, {"at": "/d", "names": [".."], "directory": True}]),
    lambda head: head["open"].append([3, {}]),
    lambda head: head["open"].append([-1, {"stream": 0, "flags": 0}]),
    lambda head: head["open"].append([5, {"stream": 7, "flags": 0}]),
    lambda head: head.update(clock="noon"),
    lambda head: head.update(clock=-1),
    lambda head: head.update(cpu=1.5),
    lambda head: head.update(began="never"),
    lambda head: head["memories"][0].update(size=head["memories"][0]["size"] + 65536.0),
    lambda head: head["memories"][0].update(runs=[5]),
    lambda head: head["globals"].update({"mk9p.g0": "0x"}),
    lambda head: head["globals"].update({"mk9p.g0": 5}),
    lambda head: head["open"].append([True, {"stream": 0, "flags": 0}]),
    lambda head: head["open"].append({"stream": 0, "flags": 0}),
]


@pytest.mark.parametrize("change", CHANGES)
async def test_a_snapshot_that_was_made_up_is_refused(kernel: Kernel, program: Compiled, change: Any) -> None:
    state = unpacked(memoryview(await frozen(kernel, program)))
    head, pages = snapshot_of(state.snapshot)
    change(head)
    said = await refused(kernel, whole(attrs.evolve(state, snapshot=snapshot_packed(head, pages))))
    assert said.errno in (errno.EBADMSG, errno.ESTALE, errno.ENOMEM), said


async def test_pages_and_modules_that_were_made_up_harm_nobody(kernel: Kernel, program: Compiled) -> None:
    state = unpacked(memoryview(await frozen(kernel, program)))
    head, pages = snapshot_of(state.snapshot)
    for wrong in (b"", pages[: len(pages) // 2], b"\x78\x01nonsense", random.randbytes(4000)):
        bent = attrs.evolve(state, snapshot=snapshot_packed(head, wrong))
        assert (await refused(kernel, whole(bent))).errno == errno.EBADMSG
    for module in (b"", b"\0asm\1\0\0\0", program("greedy"), random.randbytes(4000)):
        said = await refused(kernel, whole(attrs.evolve(state, module=module)))
        assert said.errno in (errno.EBADMSG, errno.ENOEXEC), said
    # a stack that was made up: the program does something else, or traps, and that is all
    stack = {**head, "memories": [*head["memories"][:-1], {**head["memories"][-1], "runs": []}]}
    less = sum(length for one in head["memories"][:-1] for _, length in one["runs"])
    assert less
    async with kernel.program(state=whole(attrs.evolve(state, snapshot=snapshot_packed(stack, pages)))) as p:
        await p.order("limit time 20000", "start")
        assert (await p.ending()).split()[0] in ("trap", "exit", "limit")
    async with kernel.program("arg greedy sleep 0", "start", module=program("greedy")) as p:
        assert await p.read("stdout") == "enough\n", "the server goes on"


@pytest.mark.parametrize("change", [None, *CHANGES])
@pytest.mark.parametrize("json_", [False, True])
def test_show_tells_what_is_wrong_with_any_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, json_: bool
) -> None:
    path = tmp_path / "state"
    file = {"at": "/d", "names": ["in"], "directory": False, "read": True, "write": False, "flags": 0, "position": 3}
    head: dict[str, Any] = {
        "clock": 5,
        "began": None,
        "memories": [{"size": 65536, "runs": [[0, 4096]]}, {"size": 65536, "runs": []}],
        "globals": {"mk9p.g0": "00000000"},
        "open": [
            [0, {"stream": 0, "flags": 0}],
            [3, {**file, "ahead": "", "marked": False, "granted": False, "listing": None, "path": 1 << 63}],
        ],
    }
    if change is not None:
        change(head)
    outer = {
        "args": ["x"],
        "env": [],
        "limits": {},
        "grants": [],
        "used": {},
        "ended": False,
        "module": "",
        "from": "here",
        "time": 5,
    }
    path.write_bytes(whole(State(outer, b"", snapshot_packed(head, b""))))
    status = show(SimpleNamespace(file=str(path), json=json_))
    said = capsys.readouterr()
    if status == 0:
        assert said.out
        assert not said.err
    else:
        assert re.fullmatch(rf"mk9p wasm: {path}: the state was altered: [a-z ]+\n", said.err)
    assert status == 0 if change is None else True


@pytest.mark.parametrize(("said", "came", "holds"), [(None, 5, 5), (5, 9, 5), (9, 5, 5), (MEMORY, 2 * MEMORY, MEMORY)])
def test_of_a_limit_that_was_said_and_one_that_came_the_narrower_holds(said: int | None, came: int, holds: int) -> None:
    settings = Settings()
    if said is not None:
        settings.set_limit("memory", said)
    settings.come({"args": [], "env": [], "grants": [], "limits": {"memory": came, "fuel": 7}})
    assert settings.limits == {"memory": holds, "fuel": 7}


def test_a_head_that_is_deep_or_long_is_refused() -> None:
    for text in (b"[" * 100_000, b'{"sizes": [1, 2, 3, 4, 99999999999]}', b'{"sizes": "many"}', b"5"):
        data = b"mk9pwasm" + struct.pack("<II", 1, len(text)) + text
        with pytest.raises(NineError) as caught:
            head_of(memoryview(data + hashlib.sha256(data).digest()))
        assert caught.value.errno == errno.EBADMSG
    with pytest.raises(NineError):
        snapshot_of(struct.pack("<I", 1 << 31) + json.dumps({}).encode())
