"""What a real kernel measures, changed under it and read through mk9p: chips of hwmon on a bus whose registers we write, and a thermal zone, a fan,
a battery and a processor's frequencies of an ACPI table of our own (sensors.asl). Power caps are the one thing that no emulated machine has.
"""

import errno
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from mk9p.client import Client
from mk9p.servers.kernels import images
from tests.vm.lab_vm import Vm, insmod, lab_up, short_folder, until

MODULES = ("ac", "battery", "fan", "i2c_dev", "acpi_cpufreq", "cpufreq_userspace", "lm75", "lm90", "lm63")
CHIPS = {"lm75": 0x48, "lm90": 0x4C, "lm63": 0x18}
HEAT, CHARGE, SPEED = 0x2FF, 0x3EF, 0x2EF  # the registers of sensors.asl
PLUGGED = 0x80
K = "k/k1"

# Writes registers of a chip as i2cset does: bus, address, then pairs; a value above 255 is of two bytes, the lower first (linux/i2c-dev.h).
I2CSET = """
import ctypes, fcntl, sys
class Call(ctypes.Structure):
    _fields_ = [("write", ctypes.c_uint8), ("register", ctypes.c_uint8), ("size", ctypes.c_uint32), ("data", ctypes.c_void_p)]
bus, address, *pairs = map(int, sys.argv[1:])
with open(f"/dev/i2c-{bus}", "r+b", buffering=0) as file:
    fcntl.ioctl(file, 0x0706, address)
    for register, value in zip(pairs[::2], pairs[1::2]):
        data = (ctypes.c_uint16 * 17)(value)
        fcntl.ioctl(file, 0x0720, Call(0, register, 3 if value > 255 else 2, ctypes.addressof(data)))
"""


@attrs.frozen
class Machine:
    """A kernel, and the hardware that it does not know to be none."""

    vm: Vm
    bus: int
    chips: dict[str, str]  # where each chip is in sensors

    def sh(self, script: str) -> str:
        return self.vm.sh("k1", script).strip()

    def port(self, port: int, value: int) -> None:
        self.sh(f"printf '\\{value:03o}' | dd of=/dev/port bs=1 seek={port} conv=notrunc 2>/dev/null")

    def registers(self, chip: str, *pairs: int) -> None:
        words = [sys.executable, "-c", I2CSET, str(self.bus), str(CHIPS[chip]), *map(str, pairs)]
        done = self.vm.mk9p("run", "k1", "--", *words)
        assert done.returncode == 0, done.stderr.decode()

    def value(self, chip: str, attribute: str) -> str:
        return self.vm.field(f"{K}/sensors/{self.chips[chip]}/status", attribute)

    def word(self, file: str, words: str) -> None:
        self.vm.write(f"{K}/{file}/ctl", words)

    def refused(self, file: str, words: str) -> tuple[int | None, str]:
        async def write(ns: Client) -> tuple[int | None, str]:
            with pytest.raises(OSError) as caught:  # noqa: PT011 - who calls looks at it
                await ns.write(f"{K}/{file}/ctl", f"{words}\n")
            return caught.value.errno, (await ns.read(f"{K}/{file}/error")).strip()

        return self.vm.client(write)

    def event(self, tree: str, what: str) -> None:
        """Wait for a line of events, whatever its number and time."""

        async def follow(ns: Client) -> None:
            async for line in ns.lines(f"{K}/{tree}/events"):
                if line.strip().split(" ", 2)[2] == what:
                    return

        self.vm.client(follow)


@pytest.fixture(scope="module")
def machine(guests: None) -> Iterator[Machine]:
    if not shutil.which("iasl"):
        pytest.skip("no iasl: apt-get install acpica-tools")
    image: Any = trio.run(images.get, "6.1")
    if "i2c_stub" not in image.modules:
        pytest.skip(f"an older mk9p unpacked {image.file.parent} and left the modules of sensors out: remove it")
    with short_folder() as home:
        asl, table = Path(__file__).with_name("sensors.asl"), home / "sensors"
        done = subprocess.run(["iasl", "-p", table, asl], cwd=home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        # acpi_cpufreq leaves AMD's of this family to another driver
        hardware = ["-cpu", "max,vendor=GenuineIntel", "-acpitable", f"file={table}.aml"]
        for n in (1, 2, 3):
            hardware += ["-chardev", f"null,id=uart{n}", "-device", f"isa-serial,chardev=uart{n},index={n}"]
        kernels: dict[str, dict[str, Any]] = {
            "k1": {"backend": "qemu", "kernel": "6.1", "memory": "768M", "device": hardware}
        }
        with lab_up(home, kernels) as vm:
            addresses = ",".join(map(str, CHIPS.values()))
            stub = f"/run/guest/busybox insmod {image.modules['i2c_stub']} chip_addr={addresses}"
            vm.sh("k1", f"{insmod('6.1', MODULES)}; {stub}")
            bus = int(vm.sh("k1", "grep -l stub /sys/class/i2c-adapter/*/name").split("/i2c-")[-1].split("/")[0])
            for chip, address in CHIPS.items():
                vm.sh("k1", f"echo {chip} {address} > /sys/bus/i2c/devices/i2c-{bus}/new_device")
            found = (line.split() for line in vm.cat(f"{K}/sensors/status").splitlines())
            yield Machine(vm, bus, {words[5]: words[0] for words in found})


def test_a_chip_tells_what_its_registers_say(machine: Machine) -> None:
    place = machine.chips["lm75"]
    machine.registers("lm75", 0, 0x8019)  # 25.5 degrees
    assert until(lambda: machine.value("lm75", "temp1_input") == "25500", "the new value") is True
    assert f"{place} temp1 temp 25500 mC lm75 -\n" in machine.vm.cat(f"{K}/sensors/status")
    assert machine.sh(f"cat /sys/class/hwmon/{place}/temp1_input") == "25500"
    # as a script takes it apart
    script = 'while read -r name sensor kind value unit chip label; do [ $chip = lm75 ] && echo "$((value / 100)) $unit"; done'
    text = machine.vm.cat(f"{K}/sensors/status").encode()
    assert subprocess.run(["sh", "-c", script], input=text, capture_output=True, check=False).stdout == b"255 mC\n"


def test_an_alarm_is_in_status(machine: Machine) -> None:
    machine.registers("lm90", 0, 85, 2, 0x40)  # 85 degrees, and the bit that says too hot
    until(lambda: machine.value("lm90", "temp1_max_alarm") == "1", "the alarm")
    assert machine.value("lm90", "temp1_input") == "85000"
    machine.registers("lm90", 0, 20, 2, 0)
    until(lambda: machine.value("lm90", "temp1_max_alarm") == "0", "the end of the alarm")


def test_limits_and_fans_are_set(machine: Machine) -> None:
    chip = f"sensors/{machine.chips['lm63']}"
    there = f"/sys/class/hwmon/{machine.chips['lm63']}"
    machine.word(chip, "set temp1_max 55000\npwm 1 128")
    assert machine.sh(f"cat {there}/temp1_max {there}/pwm1_enable {there}/pwm1").split() == ["55000", "1", "128"]
    ctl = machine.vm.cat(f"{K}/{chip}/ctl")
    assert "set temp1_max 55000\n" in ctl
    assert ctl.index("set pwm1_enable 1\n") < ctl.index("set pwm1 128\n")
    machine.word(chip, "auto 1")
    assert machine.sh(f"cat {there}/pwm1_enable") == "2"
    assert "set pwm1 " not in machine.vm.cat(f"{K}/{chip}/ctl")
    name = machine.chips["lm63"]
    assert machine.refused(chip, "set pwm1_enable 9") == (
        errno.EINVAL,
        f"pwm1_enable of {name} cannot be 9: Invalid argument",
    )
    number, words = machine.refused(chip, "set temp1_input 1")
    assert (number, words.split(";")[0]) == (errno.ENOENT, f"{name} has no temp1_input to set")


def test_a_trip_that_is_crossed_is_told_and_the_fan_runs(machine: Machine) -> None:
    zone = f"{K}/sensors/thermal_zone0"
    fan = next(
        line.split()[0] for line in machine.vm.cat(f"{K}/sensors/status").splitlines() if line.split()[5] == "Fan"
    )
    assert f"trip 1 active 60000 -\ncooling {fan} 1\n" in machine.vm.cat(f"{zone}/status")
    assert machine.chips["acpitz"] == "thermal_zone0"  # and not the chip of hwmon that shows it once more
    machine.port(HEAT, 70)
    machine.event("sensors", "trip thermal_zone0 1 up 70000")
    until(lambda: machine.vm.field(f"{K}/sensors/{fan}/status", "state") == "1", "the fan")
    assert machine.vm.field(f"{zone}/status", "temp") == "70000"
    machine.port(HEAT, 20)
    machine.event("sensors", "trip thermal_zone0 1 down 20000")
    until(lambda: machine.vm.field(f"{K}/sensors/{fan}/status", "state") == "0", "the fan's end")
    assert machine.refused("sensors/thermal_zone0", "trip 1 50000") == (
        errno.EOPNOTSUPP,
        "the temp of trip 1 of thermal_zone0 is fixed",
    )


def test_a_zone_and_its_fan_are_taken_in_hand(machine: Machine) -> None:
    zone, there = "sensors/thermal_zone0", "/sys/class/thermal/thermal_zone0"
    fan = machine.vm.field(f"{K}/{zone}/status", "cooling").split()[0]
    machine.word(zone, "policy user_space")
    machine.event("sensors", "policy thermal_zone0 user_space")
    machine.word(f"sensors/{fan}", "state 1")
    assert machine.sh(f"cat {there}/policy /sys/class/thermal/{fan}/cur_state").split() == ["user_space", "1"]
    assert machine.refused(f"sensors/{fan}", "state 2") == (errno.EINVAL, f"{fan} has states 0 to 1")
    number, words = machine.refused(zone, "policy none")
    assert (number, words.split(";")[0]) == (errno.EINVAL, "no policy none")
    machine.word(zone, "mode disabled")
    machine.event("sensors", "mode thermal_zone0 disabled")
    assert machine.vm.cat(f"{K}/{zone}/ctl") == "mode disabled\npolicy user_space\n"
    machine.word(zone, "mode enabled\npolicy step_wise")
    assert machine.sh(f"cat {there}/mode {there}/policy").split() == ["enabled", "step_wise"]
    machine.word(f"sensors/{fan}", "state 0")


def test_the_mains_and_the_battery_are_told_of(machine: Machine) -> None:
    machine.port(CHARGE, PLUGGED | 50)
    machine.event("power", "change supply/AC mains 1 - online")
    machine.event("power", "change supply/BAT0 battery 50 % charging")
    lines = machine.vm.cat(f"{K}/power/status").splitlines()
    assert "supply/AC mains 1 - online -" in lines
    assert "supply/BAT0 battery 50 % charging mk9p" in lines
    machine.port(CHARGE, 25)
    machine.event("power", "change supply/BAT0 battery 25 % discharging")
    status = f"{K}/power/supply/BAT0/status"
    assert (
        machine.vm.field(status, "charge_now") == machine.sh("cat /sys/class/power_supply/BAT0/charge_now") == "1000000"
    )
    machine.word("power/supply/BAT0", "set alarm 800000")
    assert machine.sh("cat /sys/class/power_supply/BAT0/alarm") == "800000"
    assert machine.vm.cat(f"{K}/power/supply/BAT0/ctl") == "set alarm 800000\n"
    assert machine.refused("power/supply/BAT0", "set capacity 1") == (
        errno.ENOENT,
        "BAT0 has no capacity to set; there are: alarm",
    )


def test_a_processor_goes_as_fast_as_it_is_told(machine: Machine) -> None:
    policy, there = "power/cpufreq/policy0", "/sys/devices/system/cpu/cpufreq/policy0"
    assert machine.vm.field(f"{K}/{policy}/status", "frequencies") == "2000000 1500000 1000000"
    assert machine.refused(policy, "speed 1500000") == (
        errno.EBUSY,
        "policy0 is governed by schedutil, not by userspace",
    )
    machine.vm.write(f"{K}/cpu/ctl", "governor userspace")
    machine.word(policy, "speed 1500000")
    assert machine.sh(f"dd if=/dev/port bs=1 skip={SPEED} count=1 2>/dev/null | od -An -tu1") == "2"  # what reached it
    assert "cpufreq/policy0 cpufreq 1500000 kHz userspace acpi-cpufreq\n" in machine.vm.cat(f"{K}/power/status")
    machine.word(policy, "max 1000000")
    assert machine.sh(f"cat {there}/scaling_max_freq {there}/scaling_cur_freq").split() == ["1000000", "1000000"]
    assert machine.vm.cat(f"{K}/{policy}/ctl").startswith("min 1000000\nmax 1000000\nspeed ")
    machine.word(policy, "max 2000000")
    machine.vm.write(f"{K}/cpu/ctl", "governor schedutil")
    assert machine.refused("power/cpufreq", "boost on") == (errno.ENODEV, "this kernel cannot switch boost")


def test_what_goes_and_comes_is_told(machine: Machine) -> None:
    """The last test here: the lm75 is gone afterwards."""
    place, bus = machine.chips["lm75"], f"/sys/bus/i2c/devices/i2c-{machine.bus}"

    async def gone(ns: Client) -> int | None:
        async with await ns.open(f"{K}/sensors/{place}/status") as file:
            await file.pread(10, 0)
            await trio.to_thread.run_sync(machine.sh, f"echo {CHIPS['lm75']} > {bus}/delete_device")
            with pytest.raises(OSError) as caught:  # noqa: PT011 - it is given back
                await file.pread(10, 0)
            return caught.value.errno

    assert machine.vm.client(gone) == errno.ENODEV
    machine.event("sensors", f"remove {place}")
    assert place not in machine.vm.cat(f"{K}/sensors/status")
    assert machine.vm.mk9p("ls", f"{K}/sensors/{place}").returncode == 1
    image: Any = trio.run(images.get, "6.1")
    machine.sh(f"/run/guest/busybox rmmod ac && /run/guest/busybox insmod {image.modules['ac']}")
    machine.event("power", "remove supply/AC")
    events = machine.vm.client(lambda ns: _events(ns, 2))
    assert events == ["add supply/AC", "add supply/AC"]


async def _events(ns: Client, count: int) -> list[str]:
    """Return the first events of the mains' coming."""
    found: list[str] = []
    async for line in ns.lines(f"{K}/power/events"):
        found += [words for words in [line.strip().split(" ", 2)[2]] if words == "add supply/AC"]
        if len(found) == count:
            break
    return found
