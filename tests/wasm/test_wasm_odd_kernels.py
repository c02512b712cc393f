"""A kernel says what it likes, and only it is worse for that: no other kernel is written to, no command ends with a traceback."""

import errno

import pytest

from mk9p.clients.common import number_of
from mk9p.clients.net import translate
from mk9p.clients.wasm.again import Again, Begun
from mk9p.clients.wasm.moving import Frozen
from mk9p.clients.wasm.showing import FIELDS, fields
from mk9p.errors import NineError
from mk9p.testing import mounted
from mk9p.tree import Ctl, Dir, Text


@pytest.mark.parametrize("said", ["../../k0/cmd/0", "0/..", "", "-1", "\u0663", "0 1"])
async def test_a_conversation_has_a_number_and_no_path(said: str) -> None:
    async with mounted(Dir({"clone": Text(said + "\n"), "right": Text("12\n")})) as ns:
        async with await ns.open("clone") as file:
            with pytest.raises(NineError, match="clone: it has no number") as caught:
                await number_of(file)
            assert caught.value.errno == errno.EIO
        async with await ns.open("right") as file:
            assert await number_of(file) == "12"


async def test_the_network_of_an_answer_is_a_name() -> None:
    answer = "clone 1\n../clone 2\n/net/../clone 3\n/net/tcp/clone 10.0.0.1!80\n"
    async with mounted(Dir({"net": Dir({"cs": Text(answer, lambda text: None)})})) as ns:
        assert await translate(ns, "net", "tcp!h!80") == [("tcp", "10.0.0.1!80")]


@pytest.mark.parametrize("line", ["", "0 running", "0 running x 1 - 2 3 4 5"])
def test_a_line_of_a_status_has_all_fields(line: str) -> None:
    assert len(fields("k1", line)) == len(FIELDS)


async def test_a_program_goes_on_elsewhere_whatever_another_kernel_says() -> None:
    kernels = {
        name: Dir({"wasm": Dir({"status": Text(text)})}) for name, text in (("bad", "0 'unended\n"), ("good", ""))
    }
    async with mounted(Dir({"k": Dir(kernels)})) as ns:
        assert await Again(ns, Begun(b"")).place("k/gone") == "k/good"


async def test_a_status_that_says_nothing_is_no_frozen_program() -> None:
    files = {"status": Text("\n"), "state": Text("x"), "ctl": Ctl({"freeze": lambda: None, "start": lambda: None})}
    async with mounted(Dir(files)) as ns, await ns.open("ctl", "r+") as ctl, Frozen(ns, "", ctl) as frozen:
        assert not frozen.was
