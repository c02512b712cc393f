"""pci: on a made-up bus of two devices, and read-only on the one of this machine."""

import errno
import os
from pathlib import Path

import pytest

from mk9p.client import Client
from mk9p.servers.pci import SLOT, Devices, tree
from mk9p.testing import check_tree, mounted
from mk9p.uevents import Uevent
from tests.servers.trees import fails, names, plant

NET, IDE = "0000:00:03.0", "0000:00:01.1"
BUS = "sys/bus/pci"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for slot, device in ((NET, "0x100e"), (IDE, "0x7010")):
        values = {
            "vendor": "0x8086",
            "device": device,
            "class": "0x020000",
            "numa_node": "-1",
            "irq": "11",
            "enable": "1",
        }
        values |= {
            "subsystem_vendor": "0x1af4",
            "subsystem_device": "0x1100",
            "revision": "0x03",
            "driver_override": "(null)",
        }
        values |= {
            "resource": "0x00000000febc0000 0x00000000febdffff 0x0000000000040200\n0x0 0x0 0x0\n0xc000 0xc03f 0x40101"
        }
        values |= {"remove": "", "config": "x" * 255}
        plant(tmp_path, {f"{BUS}/devices/{slot}/{name}": value for name, value in values.items()})
    plant(tmp_path, {f"{BUS}/rescan": "", f"{BUS}/devices/{NET}/reset": ""})
    for driver in ("e1000", "vfio-pci"):
        plant(tmp_path, {f"{BUS}/drivers/{driver}/bind": "", f"{BUS}/drivers/{driver}/unbind": ""})
    (tmp_path / BUS / "devices" / NET / "driver").symlink_to("../../drivers/e1000")
    (tmp_path / BUS / "devices" / NET / "iommu_group").symlink_to("../../../../kernel/iommu_groups/7")
    return tmp_path


async def test_there_is_a_directory_for_each_slot(client: Client) -> None:
    assert sorted(await names(client)) == [IDE, NET, "ctl", "error", "events", "status"]
    assert sorted(await names(client, NET)) == ["config", "ctl", "error", "status"]
    assert await client.read("status") == f"{IDE} 8086:7010 020000 -\n{NET} 8086:100e 020000 e1000\n"
    assert (await client.stat(f"{NET}/config")).length == 256
    assert (await client.stat(f"{NET}/config")).mode & 0o777 == 0o400
    assert await client.read_bytes(f"{NET}/config") == b"x" * 255 + b"\n"


async def test_status_has_a_line_a_value_and_a_resource(client: Client) -> None:
    assert (await client.read(f"{NET}/status")).splitlines() == [
        f"slot {NET}", "vendor 8086", "device 100e", "subsystem 1af4:1100", "class 020000", "revision 03", "driver e1000",
        "numa_node -1", "iommu_group 7", "irq 11", "enabled yes", "power -",
        "resource 0 0xfebc0000 0xfebdffff mem", "resource 2 0xc000 0xc03f io",
    ]  # fmt: skip


async def test_a_device_is_bound_to_another_driver(root: Path) -> None:
    drivers = root / BUS / "drivers"
    async with tree(root=str(root)) as node, mounted(node) as client:
        assert await client.read(f"{NET}/ctl") == "bind e1000\n"
        await client.write(f"{NET}/ctl", "bind e1000")  # it is so already
        assert (drivers / "e1000/unbind").read_text() == "\n"
        await client.write(f"{NET}/ctl", "bind vfio-pci")
        assert (drivers / "e1000/unbind").read_text() == NET
        assert (drivers / "vfio-pci/bind").read_text() == NET
        assert (root / BUS / "devices" / NET / "driver_override").read_text() == "\n"  # as it was: none
        assert await client.read(f"{IDE}/ctl") == "unbind\n"
        await client.write(f"{IDE}/ctl", "unbind")


async def test_a_driver_that_refuses_leaves_the_old_one(root: Path) -> None:
    drivers = root / BUS / "drivers"
    (drivers / "vfio-pci/bind").unlink()
    (drivers / "vfio-pci/bind").mkdir()  # the nearest that a disk has to a driver that refuses
    async with tree(root=str(root)) as node, mounted(node) as client:
        with fails(errno.EISDIR):
            await client.write(f"{NET}/ctl", "bind vfio-pci")
        assert await client.read(f"{NET}/error") == f"{NET} cannot be bound to vfio-pci: Is a directory\n"
        assert (drivers / "e1000/bind").read_text() == NET
        assert (root / BUS / "devices" / NET / "driver_override").read_text() == "\n"


async def test_words_reach_sysfs_and_refusals_are_said(root: Path, client: Client) -> None:
    await client.write(f"{NET}/ctl", "reset")
    assert (root / BUS / "devices" / NET / "reset").read_text() == "1"
    await client.write(f"{NET}/ctl", "remove")
    assert (root / BUS / "devices" / NET / "remove").read_text() == "1"
    await client.write("ctl", "rescan")
    assert (root / BUS / "rescan").read_text() == "1"
    for line, number, words in [
        ("reset", errno.EOPNOTSUPP, f"{IDE} cannot be reset alone"),
        ("bind nothing", errno.ENOENT, "no driver nothing; there are: e1000 vfio-pci"),
        ("bind ../x", errno.ENOENT, "no driver ../x; there are: e1000 vfio-pci"),
        ("bind", errno.EINVAL, "usage: bind DRIVER"),
    ]:
        with fails(number):
            await client.write(f"{IDE}/ctl", line)
        assert await client.read(f"{IDE}/error") == words + "\n"


async def test_what_the_kernel_tells_becomes_events(root: Path) -> None:
    devices = Devices(str(root), "pci", SLOT)

    def told(action: str, slot: str, **values: str) -> None:
        devices.told(Uevent(action, f"/devices/pci0000:00/{slot}", {"SUBSYSTEM": "pci"} | values))

    told("remove", NET)
    told("remove", NET)
    told("add", NET)
    told("bind", NET, DRIVER="e1000")
    told("unbind", NET)
    told("add", "not:a:slot")
    devices.told(Uevent("add", f"/devices/{NET}", {"SUBSYSTEM": "net"}))
    plant(root, {f"{BUS}/devices/0000:00:05.0/vendor": "0x1"})
    devices.present.look()
    assert [line.split(b" ", 2)[2].decode() for line in devices.events.lines] == [
        f"remove {NET}\n", f"add {NET}\n", f"bind {NET} e1000\n", f"unbind {NET}\n", "add 0000:00:05.0\n",
    ]  # fmt: skip


async def test_a_kernel_without_pci_has_an_empty_bus(tmp_path: Path) -> None:
    async with tree(root=str(tmp_path)) as node, mounted(node) as client:
        assert await client.read("status") == ""
        assert sorted(await names(client)) == ["ctl", "error", "events", "status"]
        with fails(errno.ENOENT):
            await client.write("ctl", "rescan")


async def test_the_made_up_tree_is_a_proper_one(root: Path) -> None:
    assert len(await check_tree(lambda: tree(root=str(root)))) > 8


def real_slots() -> list[str]:
    try:
        return sorted(filter(SLOT.fullmatch, os.listdir("/sys/bus/pci/devices")))
    except FileNotFoundError:
        return []


async def test_the_real_bus_agrees() -> None:
    slots = real_slots()
    if not slots:
        pytest.skip("no PCI here")
    async with tree(root="/") as node, mounted(node) as client:
        assert [line.split()[0] for line in (await client.read("status")).splitlines()] == slots
        for slot in slots:
            status = dict(line.split(" ", 1) for line in (await client.read(f"{slot}/status")).splitlines())
            config = await client.read_bytes(f"{slot}/config")
            assert len(config) in (64, 256, 4096)
            assert f"{config[1]:02x}{config[0]:02x}" == status["vendor"]
            assert f"{config[11]:02x}{config[10]:02x}{config[9]:02x}" == status["class"] or status["class"] == "ffff00"
