"""sensors: on a made-up machine. What a real kernel says is in tests/vm/test_vm_sensors.py."""

import errno
import socket
import struct
from pathlib import Path

import pytest
import trio

from mk9p.client import Client
from mk9p.servers.sensors import Sensors, thermal, tree
from mk9p.testing import check_tree, mounted
from mk9p.uevents import Uevent
from tests.servers import sensing
from tests.servers.sensing import HWMON, THERMAL
from tests.servers.trees import fails, names, plant


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sensing.sensors(tmp_path)
    return tmp_path


def events(sensors: Sensors) -> list[str]:
    return [line.split(b" ", 2)[2].decode().strip() for line in sensors.events.lines]


async def test_status_has_a_line_a_sensor(client: Client) -> None:
    listed = sorted(await names(client))
    assert listed == ["cooling_device0", "events", "hwmon0", "hwmon1", "status", "thermal_zone0"]
    assert (await client.read("status")).splitlines() == [
        "hwmon0 energy1 energy 99 uJ nct6775 -",
        "hwmon0 fan1 fan 1200 rpm nct6775 -",
        "hwmon0 in0 voltage 1080 mV nct6775 -",
        "hwmon0 intrusion0 intrusion 1 - nct6775 -",
        "hwmon0 power1 power 15000000 uW nct6775 -",
        "hwmon0 pwm1 pwm 100 - nct6775 -",
        "hwmon0 pwm2 pwm 255 - nct6775 -",
        "hwmon0 temp1 temp 41500 mC nct6775 'CPU Die'",
        "hwmon0 temp2 temp 30000 mC nct6775 -",
        "hwmon0 temp10 temp -5000 mC nct6775 -",
        "hwmon1 temp1 temp 20000 mC w83795g -",
        "thermal_zone0 temp temp 45000 mC x86_pkg_temp -",
        "cooling_device0 state cooling 2 - Fan -",
    ]


async def test_a_value_that_is_not_to_be_had_is_a_dash(root: Path) -> None:
    (root / HWMON / "hwmon0/fan1_input").write_text("")
    async with tree(root=str(root)) as node, mounted(node) as client:
        assert "fan1_input -\n" in await client.read("hwmon0/status")
        assert "hwmon0 fan1 fan - rpm nct6775 -\n" in await client.read("status")


@pytest.mark.parametrize(("fault", "value"), [("0", "41500"), ("1", "-"), ("", "41500")])
async def test_a_sensor_at_fault_measures_nothing(root: Path, fault: str, value: str) -> None:
    (root / HWMON / "hwmon0/temp1_fault").write_text(fault)
    async with tree(root=str(root)) as node, mounted(node) as client:
        assert f"hwmon0 temp1 temp {value} mC nct6775 'CPU Die'\n" in await client.read("status")
        assert f"temp1_fault {fault or '-'}\n" in await client.read("hwmon0/status")


async def test_status_of_a_chip_has_what_everybody_may_read(client: Client) -> None:
    status = await client.read("hwmon0/status")
    assert status.startswith("name hwmon0\nchip nct6775\ndevice -\ndriver -\n")
    assert "temp1_label CPU Die\n" in status
    assert "energy1_input 99\n" in status
    assert "energy2" not in status + await client.read("status")  # 0400
    assert "uevent" not in status
    assert "temp1_input 20000\n" in await client.read("hwmon1/status")


async def test_what_is_set_reaches_the_chip(root: Path) -> None:
    chip = root / HWMON / "hwmon0"
    async with tree(root=str(root)) as node, mounted(node) as client:
        assert await client.read("hwmon0/ctl") == (
            "set pwm1_enable 5\nset pwm2 255\nset temp1_max 80000\nset update_interval 1000\n"
        )
        await client.write("hwmon0/ctl", "set temp1_max -70000\nset pwm2 3")
        assert (chip / "temp1_max").read_text() == "-70000"
        assert (chip / "pwm2").read_text() == "3"
        for line, number, words in [
            ("set temp1_max", errno.EINVAL, "usage: set ATTRIBUTE VALUE"),
            ("set temp1_max hot", errno.EINVAL, "usage: set ATTRIBUTE VALUE"),
            ("set temp1_input 1", errno.ENOENT, "hwmon0 has no temp1_input to set; there are: pwm1_enable pwm1 pwm2 temp1_max update_interval"),
            ("set ../hwmon1/x 1", errno.ENOENT, "hwmon0 has no ../hwmon1/x to set; there are: pwm1_enable pwm1 pwm2 temp1_max update_interval"),
            ("set uevent 1", errno.ENOENT, "hwmon0 has no uevent to set; there are: pwm1_enable pwm1 pwm2 temp1_max update_interval"),
            ("pwm 3 1", errno.ENOENT, "hwmon0 has no pwm3"),
            ("pwm 1 256", errno.EINVAL, "a pwm is 0 to 255: 256"),
            ("auto 2", errno.EOPNOTSUPP, "hwmon0 cannot control pwm2 itself"),
        ]:  # fmt: skip
            with fails(number):
                await client.write("hwmon0/ctl", line)
            assert await client.read("hwmon0/error") == words + "\n"


async def test_a_fan_is_taken_in_hand_and_given_back(root: Path) -> None:
    chip = root / HWMON / "hwmon0"
    async with tree(root=str(root)) as node, mounted(node) as client:
        await client.write("hwmon0/ctl", "pwm 1 0")
        assert ((chip / "pwm1_enable").read_text(), (chip / "pwm1").read_text()) == ("1", "0")
        assert (await client.read("hwmon0/ctl")).startswith("set pwm1_enable 1\nset pwm1 0\n")
        await client.write("hwmon0/ctl", "pwm 1 10")
        await client.write("hwmon0/ctl", "auto 1")
        assert (chip / "pwm1_enable").read_text() == "5"  # the way that it had before
        await client.write("hwmon0/ctl", "auto 1")
        (chip / "pwm1").unlink()
        (chip / "pwm1").mkdir()  # the nearest that a disk has to a chip that refuses
        with fails(errno.EISDIR):
            await client.write("hwmon0/ctl", "pwm 1 77")
        assert (chip / "pwm1_enable").read_text() == "5"
        plant(root, {f"{HWMON}/hwmon0/pwm1_enable": "0"})
        await client.write("hwmon0/ctl", "auto 1")
        assert (chip / "pwm1_enable").read_text() == "5"


async def test_a_zone_and_what_cools_it(root: Path) -> None:
    zone = root / THERMAL / "thermal_zone0"
    async with tree(root=str(root)) as node, mounted(node) as client:
        assert await client.read("thermal_zone0/status") == (
            "name thermal_zone0\ntype x86_pkg_temp\ntemp 45000\nmode enabled\npolicy step_wise\npolicies user_space step_wise\n"
            "trip 0 critical 100000 -\ntrip 1 passive 90000 2000\ncooling cooling_device0 1\n"
        )
        assert await client.read("thermal_zone0/ctl") == "mode enabled\npolicy step_wise\ntrip 1 90000 2000\n"
        await client.write("thermal_zone0/ctl", "mode disabled\npolicy user_space\ntrip 1 85000\n")
        assert [(zone / name).read_text() for name in ("mode", "policy", "trip_point_1_temp", "trip_point_1_hyst")] == [
            "disabled", "user_space", "85000", "2000\n",
        ]  # fmt: skip
        await client.write("thermal_zone0/ctl", "trip 1 80000 1000")
        assert (zone / "trip_point_1_hyst").read_text() == "1000"
        for line, number, words in [
            ("mode off", errno.EINVAL, "usage: mode enabled|disabled"),
            ("policy none", errno.EINVAL, "no policy none; there are: user_space step_wise"),
            ("trip 0 1", errno.EOPNOTSUPP, "the temp of trip 0 of thermal_zone0 is fixed"),
            ("trip 2 1", errno.ENOENT, "thermal_zone0 has no trip 2"),
            ("trip", errno.EINVAL, "usage: trip N TEMP [HYST]"),
        ]:
            with fails(number):
                await client.write("thermal_zone0/ctl", line)
            assert await client.read("thermal_zone0/error") == words + "\n"
        assert await client.read("cooling_device0/status") == "name cooling_device0\ntype Fan\nstate 2\nmax 10\n"
        assert await client.read("cooling_device0/ctl") == "state 2\n"
        await client.write("cooling_device0/ctl", "state 10")
        assert (root / THERMAL / "cooling_device0/cur_state").read_text() == "10"
        for state in ("11", "-1"):
            with fails(errno.EINVAL):
                await client.write("cooling_device0/ctl", f"state {state}")
            assert await client.read("cooling_device0/error") == "cooling_device0 has states 0 to 10\n"


async def test_what_the_kernel_tells_becomes_events(root: Path) -> None:
    sensors = Sensors(str(root))

    def told(action: str, name: str, subsystem: str, **values: str) -> None:
        sensors.told(Uevent(action, f"/devices/x/{name}", {"SUBSYSTEM": subsystem} | values))

    told("remove", "hwmon0", "hwmon")
    told("remove", "hwmon0", "hwmon")
    told("add", "hwmon0", "hwmon")
    told("add", "hwmon2", "hwmon")  # the zone's
    told("change", "thermal_zone0", "thermal", NAME="x86_pkg_temp", TEMP="1")  # policy user_space, every second
    told("add", "0-0048", "i2c")
    plant(root, {f"{THERMAL}/cooling_device1/type": "Processor", f"{HWMON}/hwmon0/temp1_max_alarm": "1"})
    sensors.present.look()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sensors.tell_alarms)
        told("change", "hwmon0", "hwmon", NAME="temp1_max_alarm")
        told("change", "hwmon0", "hwmon", NAME="temp1_max_alarm")  # not read since: it is one
        with trio.fail_after(10):
            await sensors.events.wait(4)
            told("change", "hwmon1", "hwmon", NAME="temp1_alarm")
            await sensors.events.wait(5)
        nursery.cancel_scope.cancel()
    assert events(sensors) == [
        "remove hwmon0", "add hwmon0 nct6775", "add cooling_device1 Processor",
        "alarm hwmon0 temp1_max_alarm 1", "alarm hwmon1 temp1_alarm -",
    ]  # fmt: skip


def attribute(kind: int, value: int | bytes) -> bytes:
    data = value if isinstance(value, bytes) else struct.pack("=i", value)
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


async def test_what_the_thermal_core_tells_becomes_events(root: Path) -> None:
    """The numbers are those of include/uapi/linux/thermal.h; that the kernel means the same is seen in the guest."""
    sensors, (ours, kernel) = Sensors(str(root)), socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    zone = attribute(2, 3)
    said = [
        (5, zone + attribute(5, 1) + attribute(3, -2000)), (6, zone + attribute(5, 1)), (7, zone + attribute(5, 0) + attribute(7, 90000)),
        (3, zone), (4, zone), (13, zone + attribute(19, b"step_wise\0")), (12, attribute(15, 2) + attribute(16, 7)),
        (1, zone + attribute(10, b"new\0")), (5, zone), (5, b"\1\0"),
    ]  # fmt: skip
    with ours, kernel:
        for event, attributes in said:
            kernel.send(struct.pack("=IHHIIBBH", 20 + len(attributes), 30, 0, 0, 0, event, 1, 0) + attributes)
        for _ in said:
            message = ours.recv(4096)
            sensors.heated(message[16], thermal.attributes(message[20:]))
    sensors.missed()
    assert events(sensors) == [
        "trip thermal_zone3 1 up -2000", "trip thermal_zone3 1 down -", "trip thermal_zone3 0 set 90000",
        "mode thermal_zone3 disabled", "mode thermal_zone3 enabled", "policy thermal_zone3 step_wise", "state cooling_device2 7", "lost -",
    ]  # fmt: skip


async def test_a_chip_that_is_gone_is_nowhere(root: Path, client: Client) -> None:
    await sensing.gone(client, root / HWMON / "hwmon0", "hwmon0")


async def test_a_kernel_without_sensors_has_none(tmp_path: Path) -> None:
    async with tree(root=str(tmp_path)) as node, mounted(node) as client:
        assert await client.read("status") == ""
        assert sorted(await names(client)) == ["events", "status"]


async def test_the_made_up_tree_is_a_proper_one(root: Path) -> None:
    assert len(await check_tree(lambda: tree(root=str(root)))) > 8


async def test_the_tree_of_this_kernel_is_a_proper_one() -> None:
    assert await check_tree(tree)
