"""Values and numbers with units: what is written is of its kind; and functions that block, in threads."""

import enum
import time
from typing import Annotated, Any

import pytest
import trio

from mk9p.errors import NineError
from mk9p.testing import mounted
from mk9p.tree import SIZE, TIME, Ctl, Dir, Text, Units, Value, aside
from mk9p.tree.words import word


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


class Device:
    """Values of several kinds."""

    on = False
    mode = Mode.SLOW
    size = 4096
    waited = 0.0

    def switch(self, on: bool) -> None:
        self.on = on

    async def choose(self, mode: Mode) -> None:
        await trio.lowlevel.checkpoint()
        self.mode = mode

    def grow(self, size: Annotated[int, SIZE]) -> None:
        if size > 1 << 30:
            raise ValueError("too large")
        self.size = size

    async def get(self) -> int:
        await trio.lowlevel.checkpoint()
        return self.size

    def wait(self, seconds: Annotated[float, TIME]) -> None:
        self.waited = seconds

    def tree(self) -> Dir:
        return Dir(
            {
                "on": Value(lambda: self.on, self.switch),
                "mode": Value(lambda: self.mode, self.choose),
                "size": Value(self.get, self.grow),
                "ctl": Ctl({"wait": self.wait}),
            }
        )


async def test_a_value_is_read_and_written_as_its_kind_says() -> None:
    device = Device()
    async with mounted(device.tree()) as ns:
        assert [await ns.read(name) for name in ("on", "mode", "size")] == ["off\n", "slow\n", "4096\n"]
        await ns.write("on", "on\n")
        await ns.write("mode", " fast ")
        await ns.write("size", "512M")
        await ns.write("ctl", "wait 20ms")
        assert (device.on, device.mode, device.size, device.waited) == (True, Mode.FAST, 512 << 20, 0.02)
        assert [await ns.read(name) for name in ("on", "mode", "size")] == ["on\n", "fast\n", "536870912\n"]
        for name, text, said in (
            ("on", "maybe", "want on|off"),
            ("mode", "", "want fast|slow"),
            ("size", "0.3K", r"want SIZE[K|M|G|T]"),
            ("size", "5 M", r"want SIZE[K|M|G|T]"),
            ("size", "2T", "too large"),
            ("ctl", "wait 3parsec", "usage: wait SECONDS[ns|us|ms|s|min|h]"),
        ):
            with pytest.raises(NineError) as caught:
                await ns.write(name, text)
            if name == "ctl":
                assert caught.value.ename == said
            assert caught.value.errno == 22
        assert device.size == 512 << 20


@pytest.mark.parametrize(
    ("units", "to", "text", "value"),
    [
        (SIZE, int, "1.5K", 1536),
        (SIZE, int, "-2", -2),
        (TIME, float, "1.5h", 5400.0),
        (TIME, float, "250us", 0.00025),
        (Units({"k": 1000}), int, "7k", 7000),
    ],
)
def test_units_count(units: Units, to: Any, text: str, value: float) -> None:
    assert units.convert(to)(text) == value


@pytest.mark.parametrize("text", ["", "K", "1KB", "1e3", "1_0", "\u0663", "0x10", "nan", "1 K", "1.5"])
def test_what_is_no_number_with_a_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="^" + "".join(f"[{c}]" for c in text)):
        SIZE.convert(int)(text)


def test_a_signature_that_no_text_can_be_checked_against_is_refused() -> None:
    def two(a: int, b: int) -> None: ...
    def text(a: Annotated[str, SIZE]) -> None: ...

    with pytest.raises(TypeError, match="takes one value"):
        Value(None, two)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="has units, and is no int or float"):
        Value(None, text)


async def test_a_function_that_blocks_is_put_aside_and_called_by_one_after_the_other() -> None:
    running = most = 0

    def slow() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.2)
        running -= 1
        return "done\n"

    def order(n: int) -> str:
        return f"{n}\n"

    assert word("order", aside(order)).usage == "order N"
    async with mounted(
        Dir({"slow": Text(aside(slow)), "quick": Text("now\n"), "ctl": Ctl({"order": aside(order)})})
    ) as ns:
        answers: list[str] = []

        async def read(name: str) -> None:
            answers.append(await ns.read(name))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, "slow")
            nursery.start_soon(read, "slow")
            await trio.sleep(0.05)
            nursery.start_soon(read, "quick")
        assert answers == ["now\n", "done\n", "done\n"]
        assert most == 1
        await ns.write("ctl", "order 3")
