"""Made-up machines for sensors and power: what no guest has (power caps, boost, preferences), and some of what a guest has, to be tried quickly."""

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path

from mk9p.client import Client
from tests.servers.trees import fails, plant

HWMON, THERMAL = "sys/class/hwmon", "sys/class/thermal"
SUPPLY, CAP, CPU = "sys/class/power_supply", "sys/class/powercap", "sys/devices/system/cpu"
ZONE, POLICY = f"{CAP}/intel-rapl:0", f"{CPU}/cpufreq/policy0"


def fixed(root: Path, but: Iterable[str], *, secret: Iterable[str] = ()) -> None:
    """Give all files the modes that the kernel's have: 0444, `but` those that can be set; 0400 the secret ones."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o400 if path.name in secret else 0o644 if path.name in but else 0o444)


def sensors(root: Path) -> None:
    """Make a chip with a fan, an old one, a zone with a trip that can be set, its chip, and a fan of many states."""
    chip = {
        "name": "nct6775",
        "temp1_input": "41500",
        "temp1_label": "CPU Die",
        "temp1_max": "80000",
        "temp1_max_alarm": "0",
        "temp10_input": "-5000",
        "temp2_input": "30000",
        "in0_input": "1080",
        "fan1_input": "1200",
        "pwm1": "100",
        "pwm1_enable": "5",
        "pwm2": "255",
        "power1_average": "15000000",
        "energy1_input": "99",
        "energy2_input": "7",
        "intrusion0_alarm": "1",
        "update_interval": "1000",
        "uevent": "",
    }
    plant(root, {f"{HWMON}/hwmon0/{name}": value for name, value in chip.items()})
    plant(
        root, {"sys/devices/0-0048/name": "w83795g", "sys/devices/0-0048/temp1_input": "20000", f"{HWMON}/hwmon1/x": ""}
    )
    (root / HWMON / "hwmon1/device").symlink_to("../../../devices/0-0048")
    zone = {
        "type": "x86_pkg_temp",
        "temp": "45000",
        "mode": "enabled",
        "policy": "step_wise",
        "available_policies": "user_space step_wise",
        "trip_point_0_type": "critical",
        "trip_point_0_temp": "100000",
        "trip_point_1_type": "passive",
        "trip_point_1_temp": "90000",
        "trip_point_1_hyst": "2000",
        "cdev0_trip_point": "1",
    }
    plant(root, {f"{THERMAL}/thermal_zone0/{name}": value for name, value in zone.items()})
    (root / THERMAL / "thermal_zone0/cdev0").symlink_to("../cooling_device0")
    plant(root, {f"{HWMON}/hwmon2/name": "x86_pkg_temp", f"{HWMON}/hwmon2/temp1_input": "45000"})
    (root / HWMON / "hwmon2/device").symlink_to("../../thermal/thermal_zone0")
    cooler = {"type": "Fan", "cur_state": "2", "max_state": "10"}
    plant(root, {f"{THERMAL}/cooling_device0/{name}": value for name, value in cooler.items()})
    settable = ["temp1_max", "pwm1", "pwm1_enable", "pwm2", "update_interval", "uevent", "mode", "policy", "cur_state"]
    fixed(root, [*settable, "trip_point_1_temp", "trip_point_1_hyst"], secret=["energy2_input"])


def power(root: Path) -> None:
    """Make the mains, a battery, a way of control with a zone, a policy of two CPUs, and boost."""
    mains, battery = (
        "POWER_SUPPLY_NAME=AC",
        "POWER_SUPPLY_NAME=BAT0\nPOWER_SUPPLY_STATUS=Not charging\nPOWER_SUPPLY_CAPACITY=87",
    )
    plant(root, {f"{SUPPLY}/AC/uevent": f"{mains}\nPOWER_SUPPLY_ONLINE=1", f"{SUPPLY}/AC/type": "Mains"})
    values = {
        "uevent": f"DEVTYPE=power_supply\n{battery}\nPOWER_SUPPLY_MODEL_NAME=  DELL 1\nPOWER_SUPPLY_SERIAL_NUMBER=",
        "type": "Battery",
        "charge_control_end_threshold": "80",
        "charge_behaviour": "auto [inhibit-charge] force-discharge",
    }
    plant(root, {f"{SUPPLY}/BAT0/{name}": value for name, value in values.items()})
    plant(root, {f"{CAP}/intel-rapl/enabled": "1"})
    zone = {
        "name": "package-0",
        "enabled": "1",
        "energy_uj": "123456789",
        "max_energy_range_uj": "262143328850",
        "constraint_0_name": "long_term",
        "constraint_0_power_limit_uw": "45000000",
        "constraint_0_time_window_us": "27983872",
        "constraint_0_max_power_uw": "65000000",
        "constraint_1_power_limit_uw": "60000000",
    }
    plant(root, {f"{ZONE}/{name}": value for name, value in zone.items()})
    policy = {
        "affected_cpus": "0 1",
        "scaling_driver": "intel_pstate",
        "scaling_governor": "powersave",
        "scaling_cur_freq": "1800000",
        "scaling_min_freq": "800000",
        "scaling_max_freq": "3600000",
        "scaling_setspeed": "<unsupported>",
        "cpuinfo_min_freq": "800000",
        "cpuinfo_max_freq": "3600000",
        "energy_performance_preference": "balance_performance",
        "energy_performance_available_preferences": "default performance balance_performance power",
    }
    plant(root, {f"{POLICY}/{name}": value for name, value in policy.items()})
    plant(root, {f"{CPU}/cpufreq/policy10/scaling_governor": "powersave", f"{CPU}/cpufreq/ondemand/x": ""})
    plant(root, {f"{CPU}/intel_pstate/no_turbo": "0"})
    settable = ["charge_control_end_threshold", "charge_behaviour", "enabled", "energy_performance_preference"]
    settable += ["constraint_0_power_limit_uw", "constraint_0_time_window_us", "constraint_1_power_limit_uw", "uevent"]
    settable += ["scaling_min_freq", "scaling_max_freq", "scaling_setspeed", "no_turbo"]
    fixed(root, settable, secret=["energy_uj"])


async def gone(client: Client, there: Path, name: str) -> None:
    """Take what the kernel shows away while its status is open, and check that it is nowhere then."""
    async with await client.open(f"{name}/status") as status:
        assert await status.pread(4, 0) == b"name"
        shutil.rmtree(there)
        with fails(errno.ENODEV):
            await status.pread(4, 0)
        with fails(errno.ENOENT):
            await client.stat(name)
        assert name not in await client.read("status")
