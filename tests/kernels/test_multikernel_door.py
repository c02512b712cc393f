"""The one door to /sys/fs/multikernel: whatever that kernel says, an answer is sane or one EIO, in time, and nothing else breaks."""

from __future__ import annotations

import errno
import os
import struct
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mk9p.errors import NineError
from mk9p.servers.kernels.multikernel import lock
from mk9p.servers.kernels.multikernel.door import LARGEST_TREE, Door
from mk9p.testing import SOON, until, until_true
from tests.kernels.multikernel.model import Instance, Model, Pool, Region

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

libfdt = pytest.importorskip("libfdt")
pytest.importorskip("kerf")


from tests.kernels.multikernel import trees  # noqa: E402 - it imports both

MB = 1 << 20
MANY = (int(os.environ.get("MK9P_LONG", "0") or 0) and 20_000) or 300


def machine() -> Model:
    model = Model(Pool([1, 2, 3], [Region(1 << 32, 512 * MB)], {"0000:09:00.0": "nvme0", "0000:0a:00.0": ""}))
    model.pool.instances["k1"] = Instance(7, [1, 2], [Region(1 << 32, 64 * MB)], ["0000:09:00.0"])
    return model


def door(top: Path) -> Door:
    """Return the door to a folder of files, as that kernel would have them."""
    model = machine()
    folder = top / "instances" / "k1"
    folder.mkdir(parents=True)
    (top / "overlays").mkdir()
    (top / "device_tree").write_bytes(trees.of_pool(model.pool))
    (folder / "device_tree").write_bytes(trees.of_instance(model.pool, "k1"))
    (folder / "id").write_text("7\n")
    (folder / "status").write_text("active\n")
    (top / "iomem").write_text(model.iomem())
    return Door(top, top / "iomem", top / "kerf.lock")


def asked(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except NineError as error:
        return error.errno


def wrong(work: Callable[[], object]) -> str:
    with pytest.raises(NineError) as caught:
        work()
    assert caught.value.errno == errno.EIO
    assert caught.value.ename.isprintable()
    assert len(caught.value.ename) < 500
    return caught.value.ename


def test_what_is_sane(tmp_path: Path) -> None:
    here = door(tmp_path)
    pool, one = here.pool(), here.instance("k1")
    assert (pool.live, pool.cpus, pool.free, pool.devices) == (True, (1, 2, 3), (3,), {"0000:0a:00.0": ""})
    assert (pool.memory, pool.free_memory, pool.granule, pool.chunks[0].busy) == (512 * MB, 448 * MB, 2 * MB, True)
    assert (one.id, one.cpus, one.memory, one.devices) == (7, (1, 2), 64 * MB, {"0000:09:00.0": "nvme0"})
    assert here.status("k1") == "active"


@settings(max_examples=MANY, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_tree_with_any_bytes_changed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    here = door(tmp_path_factory.mktemp("door"))
    for path, read in (
        (here.root / "device_tree", here.pool),
        (here.root / "instances/k1/device_tree", lambda: here.instance("k1")),
    ):
        blob = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(blob) - 1))
            blob[at : at + 4] = data.draw(st.binary(min_size=1, max_size=4))
        path.write_bytes(blob[: data.draw(st.integers(0, len(blob)))] if data.draw(st.booleans()) else blob)
        says = asked(read)
        if isinstance(says, int):
            assert says == errno.EIO
            continue
        assert all(0 <= cpu < 1 << 32 for cpu in says.cpus)
        assert 0 <= says.memory < 1 << 58
        assert all(len(pci) == 12 for pci in says.devices)


def tree(make: Callable[[Any], None]) -> bytes:
    made = libfdt.FdtSw()
    made.finish_reservemap()
    made.begin_node("")
    make(made)
    made.end_node()
    whole = made.as_fdt()
    whole.pack()
    return bytes(whole.as_bytearray())


def test_trees_that_lie(tmp_path: Path) -> None:
    here = door(tmp_path)
    file, held = tmp_path / "device_tree", tmp_path / "instances/k1/device_tree"

    def resources(*fills: Callable[[Any], None]) -> bytes:
        def make(made: Any) -> None:
            made.begin_node("resources")
            for fill in fills:
                fill(made)
            made.end_node()

        return tree(make)

    def chunk(base: int, size: int) -> Callable[[Any], None]:
        def make(made: Any) -> None:
            made.begin_node(f"memory@{base:x}")
            made.property("reg", struct.pack(">QQ", base, size))
            made.end_node()

        return make

    def cpus(name: str, *numbers: int) -> Callable[[Any], None]:
        return lambda made: made.property(name, struct.pack(f">{len(numbers)}Q", *numbers))

    def deep(made: Any) -> None:
        for _ in range(40):
            made.begin_node("n")
        for _ in range(40):
            made.end_node()

    def strange(made: Any) -> None:
        made.begin_node("a\x1b[2J")
        made.end_node()

    long = struct.pack(">10I", 0xD00DFEED, 1 << 20, 56, 72, 40, 17, 16, 0, 0, 16) + bytes(60)
    for blob, words in (
        (b"", "none"),
        (b"\xd0\x0d\xfe\xed", "none"),
        (long, "none"),
        (bytes(LARGEST_TREE + 1), "more than"),
        (tree(deep), "deeper"),
        (tree(strange), "no plain name"),
        (tree(lambda made: None), "Missing /resources"),
        (resources(cpus("cpus", 1, 1), cpus("cpus-available")), "no list of CPUs"),
        (resources(cpus("cpus", 1), cpus("cpus-available", 2)), "is free that is not in it"),
        (resources(cpus("cpus-available"), chunk(1 << 40, (1 << 64) - 1)), "no range"),
        (resources(cpus("cpus-available"), chunk(0, 8 * MB), chunk(MB, MB)), "overlaps"),
    ):
        file.write_bytes(blob)
        assert words in wrong(here.pool), words
    for number, name in ((7, "k2"), (8, "k1"), (0, "k1"), (512, "k1")):
        model = machine()
        one = model.pool.instances[name] = model.pool.instances.pop("k1")
        one.id = number
        held.write_bytes(trees.of_instance(model.pool, name))
        assert "the file id says 7" in wrong(lambda: here.instance("k1"))
    held.write_bytes(trees.of_instance(machine().pool, "k1"))
    assert here.instance("k1").id == 7


def test_other_files_that_lie(tmp_path: Path) -> None:
    here = door(tmp_path)
    status, iomem = tmp_path / "instances/k1/status", tmp_path / "iomem"
    for text in ("", "running", "active\nfailed", "\x1b[2J", "active" + " " * 5000):
        status.write_text(text)
        wrong(lambda: here.status("k1"))
    status.unlink()
    status.symlink_to(tmp_path / "iomem")
    with pytest.raises(OSError, match="Too many levels"):
        here.status("k1")
    for line in (
        "x-y : Multikernel Memory Pool",
        "2-1 : mk-instance-7-k1-region-0",
        f"0-{1 << 60:x} : Multikernel Memory Pool",
    ):
        iomem.write_text(f"00001000-0009ffff : System RAM\n{line}\n")
        assert "no range" in wrong(here.pool)
    iomem.write_text("00000000-00000000 : Multikernel Memory Pool\n")
    with pytest.raises(NineError, match="root alone"):
        here.pool()


class Answering(Door):
    """A kernel that says something to an overlay."""

    def _message(self, path: Path, data: bytes) -> None:
        if data:
            tx = self.root / "overlays" / f"tx_{len(list(path.parent.iterdir()))}"
            tx.mkdir()
            (tx / "status").write_bytes(data)


def test_what_it_says_of_a_transaction(tmp_path: Path) -> None:
    plain = door(tmp_path)
    here = Answering(plain.root, plain.iomem, plain.lock_file)
    for name in ("new", "tx_9999999999", "tx_x", "tx_0x5"):  # no numbers of that kernel
        (tmp_path / "overlays" / name).mkdir()
    assert "made no transaction" in wrong(lambda: here.apply(lambda: b""))
    assert here.apply(lambda: b"applied\n") == 4
    assert wrong(lambda: here.apply(lambda: b"failed: CPU 3\nis \x1b[2J busy")) == (
        "multikernel: transaction 5: failed: CPU 3 is ?[2J busy"
    )
    assert wrong(lambda: here.apply(lambda: b"x" * 900)).endswith(": " + "x" * 300)
    assert "status has more than" in wrong(lambda: here.apply(lambda: b"x" * 9000))
    assert not here.lock_file.exists()


async def test_what_never_answers(tmp_path: Path) -> None:
    here = door(tmp_path)
    status = tmp_path / "instances/k1/status"
    status.unlink()
    os.mkfifo(status)
    with pytest.raises(NineError, match="no answer in 0 s") as caught:
        await here.ask(lambda: here.status("k1"), 0.1)
    assert caught.value.errno == errno.ETIMEDOUT
    with status.open("w") as other:  # and the thread that waits ends
        other.write("active\n")
    await trio.lowlevel.checkpoint()


def test_the_lock(tmp_path: Path) -> None:
    file = tmp_path / "kerf.lock"
    with lock.locked(file):
        assert file.read_text().startswith(f"mk9p {os.getpid()} ")
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []
    file.write_text("mk9p 1 0\n")  # it has that number, and was not born then
    (tmp_path / "kerf.lock.1.aaaa").touch()
    with lock.locked(file):
        assert file.read_text().startswith(f"mk9p {os.getpid()} ")
    assert list(tmp_path.iterdir()) == []
    order: list[int] = []

    def work(number: int) -> None:
        with lock.locked(file):
            order.append(number)
            threading.Event().wait(0.02)
            order.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    until_true(lambda: len(order) == 10)
    for thread in threads:
        thread.join()
    assert order[::2] == order[1::2]


def test_without_a_multikernel(tmp_path: Path) -> None:
    here = Door(tmp_path / "nowhere")
    with pytest.raises(NineError, match="is not there: boot a multikernel") as caught:
        here.need()
    assert caught.value.errno == errno.ENODEV


async def test_a_file_system_that_never_answers_takes_no_threads_of_others(tmp_path: Path) -> None:
    here = door(tmp_path)
    free = threading.Event()
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(NineError, match="no answer"):
                await here.ask(free.wait, 0.5)

        for _ in range(100):
            nursery.start_soon(ask)
        await trio.sleep(0.1)
        with trio.fail_after(SOON):
            assert await trio.to_thread.run_sync(lambda: 1) == 1
    free.set()
    await until(lambda: here.limiter.borrowed_tokens == 0)


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kerf", None)
    with pytest.raises(NineError, match=r"this needs kerf: pip install 'mk9p\[multikernel\]'") as caught:
        door(tmp_path).need()
    assert caught.value.errno == errno.ENOSYS
