"""`mk9p metrics`: a parser of Prometheus's own reads it, every figure is the file's, and a kernel that lies or is away spoils nothing."""

import errno
import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from mk9p.client import connect
from mk9p.clients import metrics
from mk9p.clients.figures import text_of
from mk9p.clients.metric_families import SAMPLES, Families
from mk9p.composing import namespace
from mk9p.errors import NineError
from mk9p.server import Tally, stats_tree
from mk9p.testing import SOON, child, mounted, serving_at
from mk9p.tree import Block, Dir, Stream, Text

ROOT = Path(__file__).parent.parent.parent
STAT = "user 2500000000\nnice 0\nsystem 1000000000\nidle 9000000000\nguest 400\nguest_nice 0\n"
SENSORS = """hwmon0 temp1 temp 41500 mC nct6775 'CPU "Die"'
hwmon0 fan1 fan 1200 rpm nct6775 -
hwmon0 temp2 temp - mC nct6775 -
hwmon0 pwm1 pwm 128 - nct6775 -
"""
POWER = """supply/BAT0 battery 87 % discharging 'DELL 1'
supply/AC mains 0 - offline -
cap/intel-rapl:0 cap 45000000 uW enabled package-0
cpufreq/policy0 cpufreq 1800000 kHz schedutil acpi-cpufreq
"""
LIES = 'mk9p_fids 1\nmk9p_fids{a="b",kernel="good"} 2\nmk9p_fids{a="b} 3\nnonsense\n# TYPE x evil\nx 1\nmk9p_fids{kernel="k\\"} 4 9\n'


def tree(tally: Tally) -> Dir:
    return Dir(
        {
            "status": Text("name k0\nrelease 6.1.0\narch x86_64\nuptime 5000000000\nload 0.50 1.00 1.50\n"),
            "cpu": Dir(
                {
                    "status": Text("0 online 0 0 0 2600 25\n1 offline 0 - - - -\n2 isolated 0 1 2 2600 100\n"),
                    "0": Dir({"stat": Text(STAT)}),
                    "1": Dir({"stat": Text("user 7\n")}),
                    "2": Dir({"stat": Text("user 0\n")}),
                }
            ),
            "mem": Dir({"status": Text("MemTotal 1000\nHugePages_Total 3\nActive(anon) 7\nblock_size 128\nodd x\n")}),
            "sensors": Dir({"status": Text(SENSORS)}),
            "power": Dir({"status": Text(POWER)}),
            "stats": stats_tree(tally),
        }
    )


async def never() -> bytes:
    await trio.sleep_forever()
    return b""


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[str]:
    """Have a namespace of a kernel with everything, one that lies, and one that does not answer."""
    liar = Dir({"status": Text('name li"ar\\\nload x\nuptime -\n'), "stats": Dir({"prometheus": Text(LIES)})})
    silent = Dir({"status": Stream(never)})
    tally = Tally()
    async with trio.open_nursery() as nursery:
        ns = namespace(nursery)
        for name in ("good", "liar", "silent"):
            ns.mount(f"unix!{folder}/{name}", f"/k/{name}")
        async with (
            serving_at(f"unix!{folder}/good", tree(tally), tally=tally),
            serving_at(f"unix!{folder}/liar", liar),
            serving_at(f"unix!{folder}/silent", silent),
            serving_at(f"unix!{folder}/ns", ns.root),
        ):
            yield f"unix!{folder}/ns"
        nursery.cancel_scope.cancel()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return all samples as Prometheus's parser reads them."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


@pytest.fixture
async def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    monkeypatch.setattr(metrics, "PATIENCE", 2.0)
    with trio.fail_after(SOON):
        async with lab(tmp_path) as address, connect(address) as ns:
            yield await metrics.exposition(ns)


async def test_every_figure_is_that_of_the_file_in_base_units(seen: str) -> None:
    found = samples(seen)

    def value(name: str, /, **labels: str) -> float:
        return found[name, frozenset({"kernel": "good", **labels}.items())]

    assert value("mk9p_kernel_up") == 1
    assert value("mk9p_kernel_info", name="k0", release="6.1.0", arch="x86_64") == 1
    assert value("mk9p_kernel_uptime_seconds") == 5
    assert [value(f"mk9p_kernel_load{n}") for n in (1, 5, 15)] == [0.5, 1.0, 1.5]
    assert value("mk9p_cpu_state", cpu="2", state="isolated") == 1
    assert value("mk9p_cpu_load_ratio", cpu="0") == 0.25
    assert value("mk9p_cpu_hertz", cpu="0") == 2.6e9
    assert value("mk9p_cpu_seconds_total", cpu="0", mode="user") == 2.5
    assert value("mk9p_memory_bytes", kind="Active(anon)") == 7
    assert value("mk9p_memory_huge_pages", kind="HugePages_Total") == 3
    assert value("mk9p_sensor_celsius", device="hwmon0", sensor="temp1", chip="nct6775", label='CPU "Die"') == 41.5
    assert value("mk9p_sensor_rpm", device="hwmon0", sensor="fan1", chip="nct6775", label="-") == 1200
    assert value("mk9p_sensor_pwm", device="hwmon0", sensor="pwm1", chip="nct6775", label="-") == 128
    assert value("mk9p_power_charge_ratio", place="supply/BAT0", kind="battery", state="discharging") == 0.87
    assert value("mk9p_power_cap_watts", place="cap/intel-rapl:0", kind="cap", state="enabled") == 45
    assert value("mk9p_power_hertz", place="cpufreq/policy0", kind="cpufreq", state="schedutil") == 1.8e9
    assert value("mk9p_power_online", place="supply/AC", kind="mains", state="offline") == 0


async def test_what_is_counted_elsewhere_or_has_no_value_is_left_out(seen: str) -> None:
    assert 'mode="guest"' not in seen  # it is part of `user`
    assert 'sensor="temp2"' not in seen
    assert not re.search(r'mk9p_cpu_(seconds|load|hertz).*cpu="1"', seen)


async def test_a_kernel_that_does_not_answer_is_down_and_has_nothing_else(seen: str) -> None:
    assert samples(seen)["mk9p_kernel_up", frozenset({("kernel", "silent")})] == 0
    assert seen.count('kernel="silent"') == 1


async def test_a_daemon_s_own_counts_have_the_kernel_as_a_label(seen: str) -> None:
    found = samples(seen)
    assert found["mk9p_connections", frozenset({("kernel", "good")})] >= 1
    kinds = {family.name: family.type for family in text_string_to_metric_families(seen)}
    assert kinds["mk9p_requests"] == "counter"
    assert kinds["mk9p_request_duration_seconds"] == "histogram"
    assert kinds["mk9p_cpu_seconds"] == "counter"


async def test_a_kernel_that_lies_spoils_nothing(seen: str) -> None:
    assert 'mk9p_kernel_info{kernel="liar",name="li\\"ar\\\\"} 1' in seen
    assert "nonsense" not in seen
    assert "evil" not in seen
    for line in seen.splitlines():  # its own label `kernel` makes it no other kernel's
        assert (
            'kernel="good"' not in line
            or not line.startswith("mk9p_fids")
            or "a=" not in line
            or line.startswith('mk9p_fids{kernel="liar",')
        )


def test_a_family_is_together_whoever_tells_of_it() -> None:
    families = Families()
    for name in ("a", "b"):
        families.gauge("mk9p_x", "X.", {"kernel": name}, 1)
        families.gauge("mk9p_y", "Y.", {"kernel": name}, 2)
    assert families.text() == (
        '# HELP mk9p_x X.\n# TYPE mk9p_x gauge\nmk9p_x{kernel="a"} 1\nmk9p_x{kernel="b"} 1\n'
        '# HELP mk9p_y Y.\n# TYPE mk9p_y gauge\nmk9p_y{kernel="a"} 2\nmk9p_y{kernel="b"} 2\n'
    )


def test_a_label_that_another_server_gave_twice_is_left_out() -> None:
    families = Families()
    families.take('ours{kernel="x"} 1\nours{b="x",b="y"} 1\nours{b="x"} 2\n', {"kernel": "k1"})
    assert families.text().splitlines()[2:] == ['ours{kernel="k1",b="x"} 2']


def test_what_another_server_says_has_an_end() -> None:
    families = Families()
    families.take("".join(f'a{{n="{n}"}} 1\n' for n in range(SAMPLES + 10)), {})
    assert families.text().count("\n") == SAMPLES + 2


async def test_the_command_prints_or_replaces_a_file(tmp_path: Path) -> None:
    async with lab(tmp_path) as address:
        command = [sys.executable, "-m", "mk9p", "-a", address, "metrics"]
        printed = await trio.run_process(command, capture_stdout=True)
        assert (b'mk9p_kernel_up{kernel="good"} 1\n') in printed.stdout
        file = tmp_path / "out" / "mk9p.prom"
        file.parent.mkdir()
        file.write_text("old")
        await trio.run_process([*command, "-o", str(file)])
        assert 'mk9p_kernel_up{kernel="good"} 1\n' in file.read_text()
        assert (file.stat().st_mode & 0o777, [each.name for each in file.parent.iterdir()]) == (0o644, ["mk9p.prom"])


async def test_a_scraper_is_answered_by_http_and_told_when_the_namespace_is_away(tmp_path: Path) -> None:
    where = f"unix:{tmp_path}/http"
    curl = ["curl", "-s", "--unix-socket", f"{tmp_path}/http", "-w", "%{http_code} %{content_type}"]
    command = [sys.executable, "-m", "mk9p", "-a", f"unix!{tmp_path}/ns", "metrics", "-l", where]

    def scrape(path: str) -> str:
        return subprocess.run([*curl, f"http://x{path}"], capture_output=True, text=True, check=True).stdout

    def until_up() -> None:
        while not (tmp_path / "http").exists():
            assert process.poll() is None

    with child(command, "metrics on") as process:
        await trio.to_thread.run_sync(until_up)
        async with lab(tmp_path):
            said = await trio.to_thread.run_sync(scrape, "/metrics")
            assert 'mk9p_kernel_up{kernel="good"} 1\n' in said
            assert said.endswith("200 text/plain; version=0.0.4; charset=utf-8")
            assert (await trio.to_thread.run_sync(scrape, "/")).endswith("404 text/plain; charset=utf-8")
        said = await trio.to_thread.run_sync(scrape, "/metrics")
        assert said.splitlines()[-1].startswith("503")


def test_an_address_that_cannot_be_listened_on_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for where, status, said in (
            (
                f"127.0.0.1:{port}",
                1,
                f"mk9p metrics: 127.0.0.1:{port}: Address already in use: -l 127.0.0.1:0 takes a free one",
            ),
            (f"unix:{tmp_path}/none/s", 1, f"mk9p metrics: unix:{tmp_path}/none/s: No such file or directory"),
            ("host", 2, "mk9p metrics: error: -l host: want HOST:PORT"),
            ("127.0.0.1:65536", 2, "mk9p metrics: error: -l 127.0.0.1:65536: want HOST:PORT"),
        ):
            command = [sys.executable, "-m", "mk9p", "metrics", "-l", where]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == status
            assert done.stderr.splitlines()[-1] == said


async def test_the_dashboard_asks_for_what_there_is(seen: str) -> None:
    board = json.loads((ROOT / "packaging/examples/grafana.json").read_text())
    there = {name for name, _ in samples(seen)} | {"mk9p_sensor_celsius"}
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(asked) > 12
    for expression in asked:
        names = set(re.findall(r"\bmk9p_\w+", expression))
        assert names
        assert names <= there, expression
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


async def test_a_text_without_an_end_is_none() -> None:
    texts = {"endless": Block(lambda count, offset: b"x" * count, mode=0o444), "status": Text("up\n")}
    async with mounted(Dir(texts)) as ns:
        assert await text_of(ns, "status") == "up\n"
        with trio.fail_after(SOON), pytest.raises(NineError) as caught:
            await text_of(ns, "endless")
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, "endless")
