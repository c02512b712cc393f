"""usb: on a made-up bus with a hub and a stick. (The real one: tests/vm.)"""

import errno
from pathlib import Path

import pytest

from mk9p.client import Client
from mk9p.servers.usb import Devices, tree
from mk9p.testing import check_tree, mounted
from mk9p.uevents import Uevent
from tests.servers.trees import fails, names, plant

BUS = "sys/bus/usb"
STICK = f"{BUS}/devices/1-2"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    hub = {
        "idVendor": "1d6b",
        "idProduct": "0003",
        "product": "xHCI Host Controller",
        "speed": "5000",
        "authorized": "1",
    }
    stick = {
        "idVendor": "46f4",
        "idProduct": "0001",
        "manufacturer": "QEMU",
        "product": "QEMU USB\nHARDDRIVE",
        "speed": "480",
    }
    stick |= {
        "serial": "1-0000",
        "version": " 2.00",
        "bDeviceClass": "00",
        "busnum": "1",
        "devnum": "2",
        "authorized": "1",
    }
    stick |= {"bConfigurationValue": "1", "bMaxPower": "98mA", "descriptors": "d" * 49}
    interface = {"bInterfaceClass": "08", "bInterfaceSubClass": "06", "bInterfaceProtocol": "50"}
    plant(tmp_path, {f"{BUS}/devices/usb1/{key}": value for key, value in hub.items()})
    plant(tmp_path, {f"{STICK}/{key}": value for key, value in stick.items()})
    plant(tmp_path, {f"{STICK}/1-2:1.0/{key}": value for key, value in interface.items()})
    plant(tmp_path, {f"{BUS}/devices/1-2:1.0/x": "", f"{BUS}/devices/1-0:1.0/x": ""})
    for driver in ("usb", "usb-storage", "uas"):
        plant(tmp_path, {f"{BUS}/drivers/{driver}/bind": "", f"{BUS}/drivers/{driver}/unbind": ""})
    (tmp_path / STICK / "driver").symlink_to("../../drivers/usb")
    (tmp_path / STICK / "1-2:1.0/driver").symlink_to("../../../drivers/usb-storage")
    return tmp_path


async def test_devices_are_there_by_bus_and_port(client: Client) -> None:
    assert sorted(await names(client)) == ["1-2", "events", "status", "usb1"]
    assert (await client.read("status")).splitlines() == [
        "1-2 46f4:0001 480 'QEMU QEMU USB HARDDRIVE'",
        "usb1 1d6b:0003 5000 'xHCI Host Controller'",
    ]
    assert (await client.read("1-2/status")).splitlines() == [
        "name 1-2", "vendor 46f4", "product 0001", "manufacturer QEMU", "model QEMU USB HARDDRIVE", "serial 1-0000",
        "version 2.00", "speed 480", "class 00", "driver usb", "bus 1", "address 2", "configuration 1", "power on",
        "milliamps 98", "interface 1-2:1.0 08 06 50 usb-storage",
    ]  # fmt: skip
    assert await client.read_bytes("1-2/raw") == b"d" * 49 + b"\n"


async def test_words_reach_sysfs(root: Path) -> None:
    drivers = root / BUS / "drivers"
    async with tree(root=str(root)) as node, mounted(node) as client:
        assert await client.read("1-2/ctl") == "power on\nbind usb\n"
        await client.write("1-2/ctl", await client.read("1-2/ctl"))
        await client.write("1-2/ctl", "power off")
        assert (root / STICK / "authorized").read_text() == "0"
        assert await client.read("1-2/ctl") == "power off\nbind usb\n"
        await client.write("1-2/ctl", "bind uas")
        assert (drivers / "usb-storage/unbind").read_text() == "1-2:1.0"
        assert (drivers / "uas/bind").read_text() == "1-2:1.0"
        await client.write("1-2/ctl", "unbind")
        assert (drivers / "usb/unbind").read_text() == "1-2"
        (root / STICK / "driver").unlink()
        await client.write("1-2/ctl", "bind")
        assert (drivers / "usb/bind").read_text() == "1-2"


async def test_refusals_are_said(root: Path) -> None:
    drivers = root / BUS / "drivers"
    (drivers / "uas/bind").unlink()
    (drivers / "uas/bind").mkdir()  # the nearest that a disk has to a driver that refuses
    async with tree(root=str(root)) as node, mounted(node) as client:
        for path, line, number, words in [
            ("1-2", "bind uas", errno.EISDIR, "1-2 cannot be bound to uas: Is a directory"),
            ("1-2", "bind nothing", errno.ENOENT, "no driver nothing; there are: uas usb usb-storage"),
            ("1-2", "power", errno.EINVAL, "usage: power on|off"),
            ("1-2", "reset", errno.ENOENT, "1-2 cannot be reset: it is gone"),
            ("usb1", "bind uas", errno.ENODEV, "usb1 has no interfaces: bind it to usb first"),
            ("usb1", "reset", errno.ENODEV, "usb1 is gone"),
        ]:
            with fails(number):
                await client.write(f"{path}/ctl", line)
            assert await client.read(f"{path}/error") == words + "\n"
        assert (drivers / "usb-storage/bind").read_text() == "1-2:1.0"  # it has its old one again


async def test_what_the_kernel_tells_becomes_events(root: Path) -> None:
    devices = Devices(str(root))

    def told(action: str, name: str, **values: str) -> None:
        devices.told(Uevent(action, f"/devices/x/{name}", {"SUBSYSTEM": "usb"} | values))

    told("remove", "1-2", DEVTYPE="usb_device")
    told("add", "1-2", DEVTYPE="usb_device")
    told("add", "1-2:1.0", DEVTYPE="usb_interface")
    told("bind", "1-2:1.0", DEVTYPE="usb_interface", DRIVER="usb-storage")
    told("unbind", "1-2:1.0", DEVTYPE="usb_interface")
    devices.told(Uevent("add", "/devices/1-2", {"SUBSYSTEM": "scsi"}))
    plant(root, {f"{BUS}/devices/1-3/idVendor": "1"})
    devices.present.look()
    assert [line.split(b" ", 2)[2].decode() for line in devices.events.lines] == [
        "remove 1-2\n", "add 1-2 46f4:0001\n", "bind 1-2:1.0 usb-storage\n", "unbind 1-2:1.0\n", "add 1-3 1:-\n",
    ]  # fmt: skip


async def test_a_kernel_without_usb_has_an_empty_bus(tmp_path: Path) -> None:
    async with tree(root=str(tmp_path)) as node, mounted(node) as client:
        assert await client.read("status") == ""


async def test_the_made_up_tree_is_a_proper_one(root: Path) -> None:
    assert len(await check_tree(lambda: tree(root=str(root)))) > 8
