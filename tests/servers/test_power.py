"""power: on a made-up machine. What a real kernel says is in tests/vm/test_vm_sensors.py, but for caps, which no guest has."""

import errno
from pathlib import Path

import pytest

from mk9p.client import Client
from mk9p.servers.power import Power, tree
from mk9p.testing import check_tree, mounted
from mk9p.uevents import Uevent
from tests.servers import sensing
from tests.servers.sensing import CPU, POLICY, SUPPLY, ZONE
from tests.servers.trees import fails, names, plant

CAP = "cap/intel-rapl:0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sensing.power(tmp_path)
    return tmp_path


async def refused(client: Client, place: str, line: str, number: int, words: str) -> None:
    with fails(number):
        await client.write(f"{place}/ctl", line)
    assert await client.read(f"{place}/error") == words + "\n"


async def test_status_has_a_line_for_each(client: Client) -> None:
    assert (await client.read("status")).splitlines() == [
        "supply/AC mains 1 - online -",
        "supply/BAT0 battery 87 % not-charging 'DELL 1'",
        "cap/intel-rapl:0 cap 45000000 uW enabled package-0",
        "cpufreq/policy0 cpufreq 1800000 kHz powersave intel_pstate",
        "cpufreq/policy10 cpufreq - kHz powersave -",
    ]
    assert sorted(await names(client, "cap")) == ["intel-rapl", "intel-rapl:0"]
    assert sorted(await names(client, "cpufreq")) == ["ctl", "error", "policy0", "policy10"]
    with fails(errno.ENOENT):
        await client.stat("cpufreq/ondemand")


async def test_supplies(root: Path, client: Client) -> None:
    assert await client.read("supply/BAT0/status") == (
        "name BAT0\ntype Battery\nstatus Not charging\ncapacity 87\nmodel_name DELL 1\nserial_number -\n"
    )
    ctl = "set charge_behaviour inhibit-charge\nset charge_control_end_threshold 80\n"
    assert await client.read("supply/BAT0/ctl") == ctl
    await client.write("supply/BAT0/ctl", "set charge_control_end_threshold 60")
    assert (root / SUPPLY / "BAT0/charge_control_end_threshold").read_text() == "60"
    await client.write("supply/BAT0/ctl", ctl)
    assert (root / SUPPLY / "BAT0/charge_behaviour").read_text() == "inhibit-charge"
    words = "BAT0 has no uevent to set; there are: charge_behaviour charge_control_end_threshold"
    await refused(client, "supply/BAT0", "set uevent change", errno.ENOENT, words)
    await refused(client, "supply/BAT0", "set", errno.EINVAL, "usage: set PROPERTY VALUE")
    await refused(client, "supply/AC", "set online 0", errno.ENOENT, "AC has no online to set; there are: none")


async def test_caps(root: Path) -> None:
    async with tree(root=str(root)) as node, mounted(node) as client:
        assert await client.read(f"{CAP}/status") == (
            "name intel-rapl:0\nzone package-0\nstate enabled\n"
            "limit long_term 45000000 27983872 - 65000000\nlimit 1 60000000 - - -\n"
        )
        ctl = "state enabled\nlimit long_term 45000000\nwindow long_term 27983872\nlimit 1 60000000\n"
        assert await client.read(f"{CAP}/ctl") == ctl
        await client.write(
            f"{CAP}/ctl", "limit long_term 30000000\nwindow long_term 1000000\nlimit 1 50000000\nstate disabled"
        )
        assert [
            (root / ZONE / name).read_text()
            for name in (
                "constraint_0_power_limit_uw",
                "constraint_0_time_window_us",
                "constraint_1_power_limit_uw",
                "enabled",
            )
        ] == ["30000000", "1000000", "50000000", "0"]
        assert (await client.read(f"{CAP}/ctl")).startswith("state disabled\n")
        await client.write(f"{CAP}/ctl", ctl)
        words = "intel-rapl:0 has no limit short_term; there are: long_term 1"
        await refused(client, CAP, "limit short_term 1", errno.ENOENT, words)
        words = "the window 1 of intel-rapl:0 cannot be 5: it is gone"
        await refused(client, CAP, "window 1 5", errno.ENOENT, words)
        await refused(client, CAP, "limit long_term 1W", errno.EINVAL, "usage: limit CONSTRAINT UW")
        (root / ZONE / "enabled").unlink()
        await refused(client, CAP, "state disabled", errno.EOPNOTSUPP, "intel-rapl:0 cannot be disabled")
        assert await client.read("cap/intel-rapl/ctl") == "state enabled\n"
        assert await client.read("cap/intel-rapl/status") == "name intel-rapl\nzone -\nstate enabled\n"


async def test_energy_is_for_root_alone(client: Client) -> None:
    assert (await client.stat(f"{CAP}/energy")).mode & 0o777 == 0o400
    time, used, most = (await client.read(f"{CAP}/energy")).split()
    assert int(time) > 10**18
    assert (used, most) == ("123456789", "262143328850")
    assert "123456789" not in await client.read(f"{CAP}/status") + await client.read("status")
    assert "energy" not in await names(client, "cap/intel-rapl")


async def test_frequencies(root: Path) -> None:
    place, policy = "cpufreq/policy0", root / POLICY
    async with tree(root=str(root)) as node, mounted(node) as client:
        assert (await client.read(f"{place}/status")).splitlines() == [
            "name policy0", "cpus 0 1", "driver intel_pstate", "governor powersave", "frequency 1800000", "min 800000", "max 3600000",
            "lowest 800000", "highest 3600000", "frequencies -", "preference balance_performance",
            "preferences default performance balance_performance power",
        ]  # fmt: skip
        ctl = "min 800000\nmax 3600000\npreference balance_performance\n"
        assert await client.read(f"{place}/ctl") == ctl
        await client.write(f"{place}/ctl", "min 900000\nmax 2000000\npreference power")
        files = ("scaling_min_freq", "scaling_max_freq", "energy_performance_preference")
        assert [(policy / name).read_text() for name in files] == ["900000", "2000000", "power"]
        await client.write(f"{place}/ctl", ctl)
        await refused(client, place, "speed 1", errno.EBUSY, "policy0 is governed by powersave, not by userspace")
        words = "no preference fast; there are: default performance balance_performance power"
        await refused(client, place, "preference fast", errno.EINVAL, words)
        await refused(client, place, "min slow", errno.EINVAL, "usage: min KHZ")
        (policy / "scaling_setspeed").write_text("1800000\n")
        await client.write(f"{place}/ctl", "speed 1000000")
        assert (policy / "scaling_setspeed").read_text() == "1000000"
        assert (await client.read(f"{place}/ctl")).endswith("speed 1000000\n")
        await refused(client, "cpufreq/policy10", "preference power", errno.EOPNOTSUPP, "policy10 has no preferences")


async def test_boost(root: Path) -> None:
    turbo, boost = root / CPU / "intel_pstate/no_turbo", root / CPU / "cpufreq/boost"
    async with tree(root=str(root)) as node, mounted(node) as client:
        assert await client.read("cpufreq/ctl") == "boost on\n"
        await client.write("cpufreq/ctl", "boost off")
        assert turbo.read_text() == "1"  # the other way round
        assert await client.read("cpufreq/ctl") == "boost off\n"
        boost.write_text("0\n")
        await client.write("cpufreq/ctl", "boost on")
        assert (boost.read_text(), turbo.read_text()) == ("1", "1")
        boost.unlink()
        turbo.unlink()
        assert await client.read("cpufreq/ctl") == ""
        await refused(client, "cpufreq", "boost on", errno.ENODEV, "this kernel cannot switch boost")


async def test_what_the_kernel_tells_becomes_events(root: Path) -> None:
    power = Power(str(root))

    def told(action: str, name: str, subsystem: str = "power_supply", **values: str) -> None:
        of = {f"POWER_SUPPLY_{key}": value for key, value in values.items()}
        power.told(Uevent(action, f"/devices/x/{name}", {"SUBSYSTEM": subsystem} | of))

    told("change", "BAT0", NAME="BAT0", TYPE="Battery", STATUS="Charging", CAPACITY="5")
    told("change", "AC", NAME="AC", TYPE="Mains")  # what it says when it goes
    told("remove", "AC", NAME="AC", TYPE="Mains")
    told("remove", "AC", NAME="AC", TYPE="Mains")
    told("change", "AC", NAME="AC", TYPE="Mains", ONLINE="0")  # and when it comes
    told("remove", "intel-rapl:0", "powercap")
    told("add", "intel-rapl:0", "powercap")
    told("add", "mouse", "input")
    plant(root, {f"{CPU}/cpufreq/policy2/scaling_governor": "x"})
    told("online", "cpu2", "cpu")
    assert [line.split(b" ", 2)[2].decode().strip() for line in power.events.lines] == [
        "change supply/BAT0 battery 5 % charging", "remove supply/AC", "add supply/AC", "change supply/AC mains 0 - offline",
        "remove cap/intel-rapl:0", "add cap/intel-rapl:0", "add cpufreq/policy2",
    ]  # fmt: skip


async def test_what_is_gone_is_nowhere(root: Path, client: Client) -> None:
    await sensing.gone(client, root / SUPPLY / "AC", "supply/AC")


async def test_a_kernel_without_any_has_none(tmp_path: Path) -> None:
    async with tree(root=str(tmp_path)) as node, mounted(node) as client:
        assert await client.read("status") == ""
        assert sorted(await names(client)) == ["cap", "cpufreq", "events", "status", "supply"]
        for kind in ("cap", "supply"):
            assert await client.listdir(kind) == []


async def test_the_made_up_tree_is_a_proper_one(root: Path) -> None:
    assert len(await check_tree(lambda: tree(root=str(root)))) > 15


async def test_the_tree_of_this_kernel_is_a_proper_one() -> None:
    assert await check_tree(tree)
