"""`make bench`: mk9p beside diod, in turn, in one run, as ratios.

Each line is one kind of load. In each of the rounds every server has its turn of a fraction of a second; what is printed is the upper quartile of
each server's rates (noise only slows down), and its ratio to the one it is compared with. Client and servers are on one core, where a wake-up costs
2 us; on two it costs 20 to 50, which measures the machine: those are printed too, without a gate. `relay` is one more hop that passes on bytes and
knows nothing of 9P, in C: what a composed namespace costs if it does nothing. `-u` behind a hop's name: its other side is a unix socket.

All of them are in a network namespace of their own, where TCP's congestion control is cubic, which is Linux's: bbr, the default of some machines,
paces a sender on the loopback to half of what goes, or does not, by how a connection began.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import sysconfig
from pathlib import Path

import attrs

from tests.bench.figures import note
from tests.bench.rivals import Rival, all_of_them, compiled


@attrs.frozen
class Load:
    """One kind of load: p9load's arguments, who is measured against whom, and the ratio to be reached.

    `later`: of whom it is printed how many us a request takes more, and how many it may.
    """

    name: str
    arguments: tuple[str, ...]
    gates: dict[tuple[str, str], float]
    bytes: bool = False
    later: dict[tuple[str, str], float] = attrs.field(factory=dict)


D, P, A, F = "diod", "plain", "async", "fs"
C, CU, R, RU = "composed", "composed-u", "relay", "relay-u"


def hops(gate: float) -> dict[tuple[str, str], float]:
    """Return what one more hop is measured against: the same in C, which does nothing, with a gate, and none."""
    return {(C, R): gate, (CU, RU): gate, (C, P): 0, (CU, P): 0, (R, P): 0, (RU, P): 0}


WALKS = {"walk": (75, 0.25), "cat": (130, 0.3)}  # us more, with one at a time; the ratio with many


def walks(name: str, test: str, window: int) -> Load:
    """Return a load that walks to k/k1/cpu/status, in a tree and in a namespace in which that is mounted, bound, and reached the general way."""
    later, gate = WALKS[test]
    gates: dict[tuple[str, str], float] = {
        ("mounted", "direct"): gate if window > 1 else 0,
        ("bound", "mounted"): 0.67,
        ("union", "mounted"): 0.67,
        ("general", "direct"): 0.15,
        ("untrusted", "mounted"): 0,
    }
    more: dict[tuple[str, str], float] = {
        ("mounted", "direct"): later,
        ("bound", "direct"): 0,
        ("general", "direct"): 0,
    }
    return Load(f"composed: {name} w={window}", ("-w", str(window), test), gates, later=more if window == 1 else {})


LATER: dict[tuple[str, str], float] = {(C, R): 8, (CU, RU): 8, (C, P): 0, (CU, P): 0, (R, P): 0, (RU, P): 0}

LOADS = (
    Load("getattr w=1", ("-w", "1", "getattr"), {(P, D): 1.2, (F, D): 1.05}, later=LATER),
    Load("getattr w=8", ("-w", "8", "getattr"), {(P, D): 3, (F, D): 2, (A, D): 1, **hops(0.75)}),
    Load("getattr w=32", ("-w", "32", "getattr"), {(P, D): 4, (F, D): 2, (A, D): 2, **hops(0.8)}),
    Load("read 64 B w=1", ("-w", "1", "sread"), {(P, D): 1, (F, D): 1}, later=LATER),
    Load("read 64 B w=8", ("-w", "8", "sread"), {(P, D): 1, (F, D): 1, **hops(0.75)}),
    Load("read 64 B w=32", ("-w", "32", "sread"), {(P, D): 5, (F, D): 4, (A, D): 2}),
    Load("walk open read clunk w=32", ("-w", "32", "cat"), {(P, D): 5, (F, D): 3}),
    Load("64 connections w=1", ("-c", "64", "-w", "1", "getattr"), {(P, D): 1.2}),
    Load("read 64 KiB w=1", ("-w", "1", "-m", "64k", "read"), {(P, D): 1.05, (F, D): 1.05, **hops(0.9)}, bytes=True),
    Load("read 64 KiB w=8", ("-w", "8", "-m", "64k", "read"), {(P, D): 0.95, (F, D): 0.95, **hops(0.9)}, bytes=True),
    Load(
        "write 64 KiB w=8",
        ("-w", "8", "-m", "64k", "-z", "16m", "write"),
        {(P, D): 1.8, (F, D): 1.8, **hops(0)},
        bytes=True,
    ),
    *(
        walks(name, test, window)
        for name, test in (("walk clunk", "walk"), ("walk open read clunk", "cat"))
        for window in (1, 8, 32)
    ),
    *(
        Load(
            f"walked {name} w={w}",
            ("-w", str(w), test),
            {("mounted", "direct"): 0, **{("untrusted", beside): 0 for beside in ("mounted", "general")}},
        )
        for name, test in (("getattr", "getattr"), ("read 64 B", "sread"))
        for w in (1, 8, 32)
    ),
    *(
        Load(f"limited: {name} w=32", ("-w", "32", test), {("ruled", P): 0.97, ("capable", P): 0.97})
        for name, test in (("getattr", "getattr"), ("read 64 B", "sread"), ("walk open read clunk", "cat"))
    ),
    # what the journal of a composer costs those who do not change the table
    *(
        Load(f"kept: {name} w={window}", ("-w", str(window), test), {("kept", C): 0.97})
        for name, test in (("getattr", "getattr"), ("read 64 B", "sread"), ("walk open read clunk", "cat"))
        for window in (1, 32)
    ),
    Load("kept: read 64 KiB w=8", ("-w", "8", "-m", "64k", "read"), {("kept", C): 0.97}, bytes=True),
    Load("limited: composed: read 64 B w=32", ("-w", "32", "sread"), {("partial", "mounted"): 0.8}),
    Load(
        "limited: composed: walk open read clunk w=32",
        ("-w", "32", "cat"),
        {("partial", "mounted"): 0.3, ("partial", "general"): 4},
    ),
    Load("unix, msize 1 MiB, read w=8", ("-w", "8", "-m", "1m", "read"), {("plain-u", "diod-u"): 1.25}, bytes=True),
)
CLIENT: dict[
    str, tuple[str, tuple[str, ...], str, float]
] = {  # what client.py measures -> its unit, p9load's load, its figure there, gate
    "getattr": ("/s", ("-w", "32", "getattr"), "ops_s", 0.05),
    "read": ("MB/s", ("-w", "1", "-m", "1m", "read"), "mb_s", 0.6),
}


def once(program: Path, rival: Rival, load: Load, seconds: float, cpu: int) -> dict[str, float]:
    """Run one load against one server once."""
    argv = [
        "taskset",
        "-c",
        str(cpu),
        str(program),
        "-j",
        "-t",
        str(seconds),
        "-a",
        rival.aname,
        "-f",
        rival.small,
        *load.arguments[:-1],
        rival.address,
        load.arguments[-1],
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{rival.name}, {load.name}: {done.stderr.strip()}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[0])
    return found


def upper_quartile(values: list[float]) -> float:
    return statistics.quantiles(values, n=4)[2] if len(values) > 1 else values[0]


def measure(rounds: int, seconds: float, cpu: int, only: str) -> int:
    """Measure all loads with the client on a processor; the servers are on the first. Returns how many gates were missed."""
    program, missed = compiled("p9load"), 0
    with all_of_them(0) as rivals:
        for load in LOADS:
            if only not in load.name:
                continue
            names = sorted({name for pair in (*load.gates, *load.later) for name in pair} & set(rivals))
            rates: dict[str, list[float]] = {name: [] for name in names}
            delays: dict[str, list[float]] = {name: [] for name in names}
            for _ in range(rounds):
                for name in names:
                    found = once(program, rivals[name], load, seconds, cpu)
                    rates[name].append(found["mb_s" if load.bytes else "ops_s"])
                    delays[name].append(found["p50_us"])
            best = {name: upper_quartile(values) for name, values in rates.items()}
            for (one, other), gate in load.gates.items():
                ratio = best[one] / best[other]
                note(f"{load.name}, {one} / {other}", ratio)
                verdict = "" if not gate else "ok" if ratio >= gate else "MISSED"
                missed += verdict == "MISSED"
                unit = "MB/s" if load.bytes else "/s"
                print(
                    f"{load.name:26} {one:10}{best[one]:>9.0f} {unit:4} {other:7}{best[other]:>9.0f} {unit:4} ratio {ratio:5.2f}"
                    f" gate {gate or '-':>4} {verdict:6} p50 {statistics.median(delays[one]):.0f} us",
                    flush=True,
                )
            for (one, other), most in load.later.items():
                more = 1e6 / best[one] - 1e6 / best[other]
                note(f"{load.name}, {one} after {other}", more, "us", lower=True)
                verdict = "" if not most else "ok" if more <= most else "MISSED"
                missed += verdict == "MISSED"
                print(
                    f"{load.name:26} {one:10}{best[one]:>9.0f} /s   {other:7}{best[other]:>9.0f} /s   {more:5.1f} us more"
                    f" gate {most or '-':>4} {verdict}",
                    flush=True,
                )
        if not only or "client" in only:
            missed += measure_client(rivals[P], rounds, seconds, cpu)
    return missed


def measure_client(server: Rival, rounds: int, seconds: float, cpu: int) -> int:
    """Measure our client against p9load on the same server. Returns how many gates were missed."""
    host, _, port = server.address.rpartition(":")
    ours: dict[str, list[float]] = {name: [] for name in CLIENT}
    theirs: dict[str, list[float]] = {name: [] for name in CLIENT}
    for _ in range(rounds):
        argv = [
            "taskset",
            "-c",
            str(cpu),
            sys.executable,
            "-m",
            "tests.bench.client",
            f"tcp!{host}!{port}",
            server.aname,
            str(seconds),
        ]
        found = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
        for name, (_, arguments, figure, _) in CLIENT.items():
            ours[name].append(found[name])
            theirs[name].append(once(compiled("p9load"), server, Load(name, arguments, {}), seconds, cpu)[figure])
    missed = 0
    for name, (unit, _, _, gate) in CLIENT.items():
        best, other = upper_quartile(ours[name]), upper_quartile(theirs[name])
        verdict = "ok" if best / other >= gate else "MISSED"
        note(f"client: {name}", best / other)
        missed += verdict == "MISSED"
        print(
            f"{f'client: {name}':26} {'mk9p':10}{best:>9.0f} {unit:4} {'p9load':7}{other:>9.0f} {unit:4} ratio {best / other:5.2f}"
            f" gate {gate:>4} {verdict}"
        )
    return missed


def apart() -> None:
    """Go on in a network namespace of our own, if we may make one: with cubic where that can be chosen in it, else with reno, which always can.

    A namespace may not load what is not loaded yet, nor choose what its host keeps for itself. The table's head names what is taken.
    """
    if os.geteuid() or "MK9P_BENCH_APART" in os.environ:
        return
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "-q", "tcp_cubic"], check=False)
    choose = "sysctl -qw net.ipv4.tcp_congestion_control"
    script = f'ip link set lo up && {{ {choose}=cubic 2>/dev/null || {choose}=reno; }} && exec "$@"'
    again = [sys.executable, "-m", "tests.bench", *sys.argv[1:]]
    os.environ["MK9P_BENCH_APART"] = "1"
    os.execvp("unshare", ["unshare", "--net", "sh", "-c", script, "sh", *again])


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("-r", "--rounds", type=int, default=7)
    parser.add_argument("-t", "--seconds", type=float, default=0.3)
    parser.add_argument("-k", "--only", default="", help="loads whose name holds this")
    parser.add_argument("--one-core", action="store_true", help="without the figures for two cores")
    chosen = parser.parse_args()
    apart()
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    print(
        f"{platform.python_implementation()} {platform.python_version()} ({sysconfig.get_config_var('CONFIG_ARGS') or 'unknown build'})"[
            :160
        ]
    )
    print(
        f"Linux {platform.release()}, {os.cpu_count()} processors, {control}; upper quartile of {chosen.rounds} rounds of {chosen.seconds} s, in turn"
    )
    print("\nclient and servers on one core")
    missed = measure(chosen.rounds, chosen.seconds, 0, chosen.only)
    if not chosen.one_core and (os.cpu_count() or 1) > 1:
        print("\nclient on one core, servers on another")
        measure(chosen.rounds, chosen.seconds, 1, chosen.only)
    print(f"\n{missed} gates missed" if missed else "\nall gates reached")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
