"""Guests that want more than they were granted, as root and as an ordinary user, in both kinds: each attempt is held, and what is granted works.

k1 (QEMU) may read k2's /srv, k2 (user-mode Linux) may use k1's processors and what k1 exports; nothing else. What is tried is a table of attempts
(guest_attempts.py), each with what it must not come to; whatever runs on this machine by one of them would leave a file here.
"""

import json
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.vm import guest_attempts
from tests.vm.lab_vm import EMULATED, PATIENCE, Vm, lab_up, short_folder

SERVE = ["host", "cpu", "cmd", "dev", "proc", "fs:/srv?name=data"]
OTHER = {"k1": "k2", "k2": "k1"}
KERNELS: dict[str, dict[str, Any]] = {
    "k1": {
        "backend": "qemu",
        "kernel": "6.1",
        "memory": "768M",
        "serve": SERVE,
        "grants": ["/k/k2/fs/data ro"],
    },
    "k2": {
        "backend": "uml",
        "kernel": "uml",
        "memory": "512M",
        "serve": SERVE,
        "grants": ["/k/k1/cpu rw", "/k/k1/fs/data rw"],
    },
}
SECRET = "what only the host knows"
USER = 1000
Attempt = list[Any]


@attrs.frozen
class Guests:
    """The lab, and a folder of this machine that no guest has anything to do with: `secret` is in it, and `taken` would be."""

    vm: Vm
    home: Path

    def attempt(self, kernel: str, table: list[Attempt], user: int = 0) -> list[str]:
        """Let a user of a kernel try all of a table; returns the outcomes."""
        address = self.vm.field(f"kernels/{kernel}/status", "guest_dial")
        become = ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups", "--"] if user else []
        python = [sys.executable, "-B", guest_attempts.__file__, address]
        environ = f"PYTHONPATH={Path(__file__).parents[2]}"
        done = subprocess.run(
            self.vm.words("run", kernel, "--", "env", environ, *become, *python),
            input=json.dumps(table).encode(),
            capture_output=True,
            timeout=6 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        outcomes: list[str] = json.loads(done.stdout)
        assert len(outcomes) == len(table)
        return outcomes


@pytest.fixture(scope="module")
def guests_up(guests: None) -> Iterator[Guests]:
    with short_folder() as home:
        home.chmod(0o755)
        (home / "secret").write_text(SECRET)
        (home / "secret").chmod(0o666)
        with lab_up(home, KERNELS) as vm:
            for kernel in KERNELS:
                vm.sh(
                    kernel, f"echo from {kernel} >/srv/file; mkdir -p /srv/dir; chmod 600 /srv/file; : >/srv/{kernel}"
                )
            yield Guests(vm, home)


def by_the_line(me: str, home: Path) -> list[Attempt]:
    """Return what is tried by 9P on the guest's own line: nothing of it is granted."""
    other, taken = OTHER[me], f"touch {home}/taken"
    hidden = [
        *(
            "ctl",
            "ns",
            "events",
            "error",
            "all",
            "all/cpu",
            "all/proc",
            "all/cmd",
            "srv",
            "stats",
            "stats/clients",
            "kernels",
        ),
        *("kernels/ctl", "kernels/clone", "kernels/status", "kernels/events"),
        *(f"auth/{name}" for name in ("ctl", "policy", "grants", "confirm", "log", "keys", "error")),
        *(
            "mounts",
            "lease",
            "lease/clone",
            "registry",
            "registry/new",
            "tf",
            "tf/clone",
            "srv/x",
            "all/fs",
            "all/dev",
            "all/srv",
        ),
        *(f"kernels/{name}" for name in ("pool", "pool/ctl", "tx", "desired", "diff", "k0/ctl")),
        *(f"kernels/{kernel}/{name}" for kernel in KERNELS for name in ("ctl", "console", "log", "config", "wait")),
        *("k/k0", "k/k0/ctl", "k/k0/cmd", "k/k0/cmd/clone", "k/k0/proc/1/mem", "k/k0/dev/cons", "k/k0/srv", "k/k0/fs"),
        *(
            f"k/{other}/{name}"
            for name in ("ctl", "cmd", "cmd/clone", "dev/cons", "proc/1/environ", "status", "fs/other")
        ),
    ]
    own_cmd = f"k/{me}/cmd"
    up = [
        *(
            ["..", "ctl"],
            ["..", "..", "kernels"],
            ["k", "..", "ctl"],
            ["k", me, "..", "k0", "cmd"],
            ["auth", "..", "ctl"],
        ),
        *(["k", me, "cmd", "..", "..", "k0"], ["k", me, "..", "..", "kernels", "ctl"], ["k", other, "..", "..", "ns"]),
        *(["k", other, "fs", "data", "..", "..", "cmd"], ["k", other, "fs", "data", "dir", "..", "..", "..", "ctl"]),
        ["k", other, "fs", "data", "..", "..", "..", "k0"],
    ]
    users = [
        ("root", 0),
        ("root", None),
        ("", 0),
        ("k0", None),
        ("guest:" + other, None),
        ("none", 65534),
        ("daemon", 1),
    ]
    numbers = (5000, 65535, 65536, 99999, 1 << 20, 1 << 30, 0x7FFFFFFF, 0xFFFFFFFC, 0xFFFFFFFD, 0xFFFFFFFE, 0xFFFFFFFF)
    odd = (
        "cap!",
        "cap!x",
        "cap!/k/k0",
        "cap!x/ctl",
        "/k/k0\x01",
        "k0",
        "//k/k0",
        "/k/./k0",
        "./k/k0",
        f"/k/{me}/fs/../../k0",
        "ns",
    )
    return [
        *(["walk", path] for path in hidden),
        *(["fid", number, name] for number in numbers for name in ("", "ctl", "k")),
        *(["aname", tree, "ctl"] for tree in odd),
        *(
            ["dialect", version, path]
            for version in ("9P2000", "9P2000.u")
            for path in ("ctl", "k/k0/cmd", "kernels/ctl", "../ctl")
        ),
        *(["create", f"{top}{name}"] for top in ("", "k/", "auth/") for name in ("ctl", "k0", "cmd")),
        *(["dots", *names] for names in up),
        *(["names", uname, number, path] for uname, number in users for path in ("ctl", "k/k0/cmd/clone")),
        *(["aname", tree, "ctl"] for tree in ("/k/k0", f"/k/{other}", "..", "../..", "/kernels", f"k/{me}/../k0")),
        ["aname", "/", "k/k0"],
        ["write", "ctl", f"mount exec!{taken!r} /x\n"],
        ["write", "ctl", f"mount unix!{home}/ns /x\n"],
        ["write", "ctl", "mount fd!0!1 /x\n"],
        ["write", "ctl", f"mount char!{home}/lab/kernels/{other}/own/run/serve /x\n"],
        ["write", "ctl", f"bind /k/k0 /k/{me}/fs\n"],
        ["write", "kernels/ctl", "create evil\n"],
        ["write", f"kernels/{me}/ctl", "grant / rw\n"],
        ["write", f"kernels/{other}/ctl", "kill\n"],
        ["write", "auth/whoami", "principal root\n"],
        ["write", "k/k0/cmd/clone", f"exec {taken}\n"],
        ["create", "new"],
        ["create", "k/new"],
        ["create", "auth/new"],
        ["create", f"k/{other}/new"],
        ["change", "mkdir", "k/k9"],
        ["change", "mkdir", "kernels/evil"],
        ["change", "remove", f"k/{other}/fs/data"],
        ["change", "rename", f"k/{other}/fs/data", f"k/{other}/fs/other"],
        ["change", "rename", own_cmd, f"k/{me}/other"],
    ]


def besides_the_line(me: str, home: Path) -> list[Attempt]:
    """Return what is tried by other ways than 9P on the line: files of this machine, others' sockets."""
    other = OTHER[me]
    kernels = f"{home}/lab/kernels"
    mount = "mkdir -p /tmp/h; mount -t hostfs none /tmp/h -o / 2>/dev/null || :; low=/run/root/low"
    looks = [
        *(
            "/secret",
            "/lab/log",
            "/ns",
            "/lab/kernels",
            f"/lab/kernels/{other}/own/run/serve",
            f"/lab/kernels/{other}/own/line/namespace",
        ),
    ]
    return [
        *(["sh", f"stat {home}{path}"] for path in looks),
        *(["sh", f"{mount}; stat $low{home}{path} || stat /tmp/h{home}{path}"] for path in looks),
        ["sh", f"{mount}; cat $low/etc/shadow || cat /tmp/h/etc/shadow || cat /etc/shadow"],
        ["sh", f"{mount}; touch /tmp/h{home}/taken || touch $low{home}/taken"],
        [
            "sh",
            f"{mount}; for d in / /usr /etc /root /tmp /.mk9p; do ! touch /tmp/h$d/taken $low$d/taken || exit 0; done; exit 1",
        ],
        ["sh", f"{mount}; mount -t hostfs none /mnt -o {home} && cat /mnt/secret"],
        ["sh", f"{mount}; ls -A /tmp/h/root /tmp/h/home $low/root $low/home 2>/dev/null | grep -v : | grep ."],
        ["sh", f"{mount}; grep -l 'mk9p compose' /tmp/h/proc/*/cmdline $low/proc/*/cmdline"],
        ["sh", f"{sys.executable} -m mk9p -a 'unix!{home}/ns' ls"],
        ["sh", f"{sys.executable} -m mk9p -a 'char!{kernels}/{other}/own/run/serve' ls"],
        ["sh", f"{sys.executable} -m mk9p -a 'tcp!10.0.2.2!5640' ls"],
        ["sh", "ls /dev/vport0p3"],
        *(
            ["sh", f"{mount}; ls /tmp/h{path} $low{path} 2>/dev/null | grep -v : | grep {word}"]
            for path, word in OUTSIDE
        ),
        *(["sh", f"mkdir -p /tmp/m; mount -t {kind} /tmp/m && ls -A /tmp/m | grep ."] for kind in MOUNTS),
        *(["unix", path.format(home=home, other=other)] for path in SOCKETS),
        *(["reach", host, port] for host, port in NETWORK),
        ["sh", "modprobe kvm; ls /dev/kvm"],
        ["sh", f"kill -0 $(cat {kernels}/{other}/pid)"],
        ["sh", f"echo x >{kernels}/{me}/pid"],
        ["sh", f"{sys.executable} -m mk9p run k0 -- touch {home}/taken"],
        ["sh", f"{sys.executable} -m mk9p run {other} -- true"],
        ["sh", f"timeout 5 {sys.executable} -m mk9p console {other} </dev/null"],
    ]


# what is somewhere on this machine, and what to look for there
OUTSIDE = [
    *(
        ("/.old", "."),
        ("/.old/etc", "shadow"),
        ("/../etc", "shadow"),
        ("/.see/../..", "home"),
        ("/run", "."),
        ("/srv", "."),
    ),
    *(
        ("/proc/self/root/etc", "shadow"),
        ("/proc/1/root/etc", "shadow"),
        ("/dev", "[hsv]da"),
        ("/sys", "."),
        ("/var/lib", "."),
    ),
    *(("/dev/shm/..", "[hsv]da"), ("/boot", "."), ("/opt", "."), ("/root", "."), ("/home", ".")),
]
MOUNTS = [
    *(
        "hostfs -o /etc/ssh none",
        "hostfs -o /root none",
        "hostfs -o /proc/1/root/etc/ssh none",
        "hostfs -o /.old none",
        "hostfs -o /../root none",
    ),
    *(
        f"9p -o trans=virtio,version=9p2000.L,aname={tree} hostroot"
        for tree in ("/etc/ssh", "../../../root", "/../home")
    ),
    *("9p -o trans=virtio,version=9p2000.L host", "9p -o trans=virtio,version=9p2000.L root", "virtiofs hostroot"),
]
SOCKETS = [
    *(
        "/run/mk9p/ns",
        "/run/mk9p/serve",
        "{home}/ns",
        "{home}/lab/kernels/{other}/own/run/serve",
        "/run/docker.sock",
        "/run/dbus/system_bus_socket",
    ),
    *(
        "{home}/lab/kernels/{other}/own/line/namespace",
        "/run/systemd/private",
        "@/tmp/.X11-unix/X0",
        "@mk9p",
        "/.mk9p/run/serve",
    ),
]
NETWORK = [
    *(("10.0.2.2", port) for port in (22, 80, 111, 5640, 8080)),
    *((host, 22) for host in ("10.0.2.3", "169.254.169.254", "192.0.2.1", "172.17.0.1")),
]


TCP = [
    *(["tcp", "10.0.2.2", 564, 0, name] for name in ("root", "none", "k0")),
    *(["tcp", "10.0.2.15", 564, port, name] for port in (0, 700) for name in ("root", "none")),
]


UNASKED = re.compile("busy|TooSlow|does not answer|was closed|is gone|Connection re")


def tell(who: str, outcomes: list[str], table: list[Attempt]) -> None:
    """Print a row of the table of attempts: how many of each kind, and how many were held."""
    kinds: dict[str, list[bool]] = {}
    for (kind, *_), outcome in zip(table, outcomes, strict=True):
        kinds.setdefault(kind, []).append(outcome.startswith("held"))
    row = " ".join(f"{kind} {sum(all_)}/{len(all_)}" for kind, all_ in kinds.items())
    why = Counter(
        outcome.partition(":")[0] for (kind, *_), outcome in zip(table, outcomes, strict=True) if kind != "sh"
    )
    print(f"\n{who}: {dict(why)}")
    print(f"\n| {who} | {sum(map(sum, kinds.values()))} of {len(table)} held | {row} |")


def held(outcomes: list[str], table: list[Attempt]) -> None:
    got = [
        (attempt, outcome) for attempt, outcome in zip(table, outcomes, strict=True) if not outcome.startswith("held")
    ]
    assert not got


@pytest.mark.parametrize("kernel", [EMULATED, "k2"])
def test_root_of_a_guest_gets_nothing_that_was_not_granted(guests_up: Guests, kernel: str) -> None:
    table = [
        *by_the_line(kernel, guests_up.home),
        *besides_the_line(kernel, guests_up.home),
        *(TCP if kernel == "k2" else ()),
    ]
    assert len(table) >= 200
    outcomes = guests_up.attempt(kernel, table)
    tell(f"{kernel}, root", outcomes, table)
    held(outcomes, table)
    # held by what the tree is, and not because nobody could ask
    unasked = [outcome for outcome in outcomes[: len(by_the_line(kernel, guests_up.home))] if UNASKED.search(outcome)]
    assert not unasked
    assert not (guests_up.home / "taken").exists()
    assert not any(SECRET in outcome for outcome in outcomes)
    assert guests_up.vm.field(f"kernels/{OTHER[kernel]}/status", "state") == "active"


@pytest.mark.parametrize("kernel", [EMULATED, "k2"])
def test_an_ordinary_user_of_a_guest_cannot_use_its_line_at_all(guests_up: Guests, kernel: str) -> None:
    line = guests_up.vm.field(f"kernels/{kernel}/status", "guest_dial").rpartition("!")[2]
    table = [
        ["read", "auth/whoami"],
        ["list", ""],
        ["read", f"k/{kernel}/status"],
        ["list", f"k/{OTHER[kernel]}/fs/data"],
        *by_the_line(kernel, guests_up.home),
        *besides_the_line(kernel, guests_up.home),
        ["sh", f"exec 3<>{line}" if kernel == "k1" else "mount -t 9p -o trans=tcp,port=564,privport 10.0.2.2 /mnt"],
        ["sh", f"exec 3<>/dev/vport0p1; echo x >&3; cat {line}" if kernel == "k1" else "unshare -Urmn true; exit 1"],
        ["sh", "kill -9 $(pgrep -f 'mk9p serve')"],
        *(TCP if kernel == "k2" else ()),
        *([["tcp", "10.0.2.2", 564, 700, "root"]] if kernel == "k2" else ()),
    ]
    assert len(table) >= 200
    outcomes = guests_up.attempt(kernel, table, USER)
    tell(f"{kernel}, uid {USER}", outcomes, table)
    held(outcomes, table)
    assert not (guests_up.home / "taken").exists()


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_granted_works_and_that_is_what_there_is(guests_up: Guests, kernel: str) -> None:
    other = OTHER[kernel]
    data = f"k/{other}/fs/data"
    table: list[Attempt] = [
        ["read", "auth/whoami"],
        ["list", ""],
        ["list", "k"],
        ["list", f"k/{other}"],
        ["read", f"{data}/file"],  # 0600 there: a grant is used as root
        ["read", f"k/{kernel}/status"],
        ["write", f"{data}/file", "changed\n"],
        ["create", f"{data}/new"],
        ["change", "mkdir", f"{data}/dir/{kernel}"],
    ]
    who, top, kernels, parts, file, own, *changes = guests_up.attempt(kernel, table)
    grants = [f"grant {grant}" for grant in (f"/k/{kernel} rw", *KERNELS[kernel]["grants"])]
    lines = who.removeprefix("got ").splitlines()
    assert (lines[:2], sorted(lines[2:])) == (
        [f"principal guest:{kernel}", "proof guest"],
        sorted(["subtree /", "ops rwcnd", *grants]),
    )
    assert (top, kernels) == ("got auth k", "got k1 k2")
    assert parts == ("got fs" if kernel == "k1" else "got cpu fs")
    assert file in (f"got from {other}\n", "got changed\n")
    assert f"name {kernel}\n" in own
    if kernel == "k1":
        assert all(outcome.startswith("held") and "Read-only" in outcome for outcome in changes)
        assert guests_up.vm.sh(other, "cat /srv/file; ls /srv/dir") == f"from {other}\n"
    else:
        assert all(outcome.startswith("got") for outcome in changes)
        assert guests_up.vm.sh(other, "cat /srv/file; stat -c %u /srv/new; ls /srv/dir") == f"changed\n0\n{kernel}\n"


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_mounted_grant_is_what_was_granted_for_root_and_for_nobody_else(guests_up: Guests, kernel: str) -> None:
    address, other = guests_up.vm.field(f"kernels/{kernel}/status", "guest_dial"), OTHER[kernel]
    sh = guests_up.vm.sh
    sh(kernel, f"cd /; mkdir -p /mnt/n; {sys.executable} -m mk9p mount --v9fs '{address}' /mnt/n")
    try:
        assert sh(kernel, f"ls /mnt/n /mnt/n/k /mnt/n/k/{other}/fs").split("\n\n")[0] == "/mnt/n:\nauth\nk"
        assert sh(kernel, f"cat /mnt/n/k/{other}/fs/data/{other}") == ""
        assert sh(kernel, "cat /mnt/n/ctl /mnt/n/k/k0/status 2>&1; :").count("No such file or directory") == 2
    finally:
        sh(kernel, f"cd /; {sys.executable} -m mk9p umount /mnt/n")


EMULATORS = {"k1": "qemu-system-x86_64", "k2": "linux.uml"}


def emulators(guests_up: Guests, kernel: str) -> list[Path]:
    """Return the processes of a kernel's emulator, as directories of /proc."""
    holder, found = guests_up.vm.field(f"kernels/{kernel}/status", "pid"), []
    for path in Path("/proc").glob("[0-9]*/exe"):
        try:
            if EMULATORS[kernel] in os.readlink(path):
                found.append(path.parent)
        except OSError:
            continue
    return [path for path in found if holder_of(path, holder)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_emulator_is_a_user_of_its_own_and_sees_nothing_of_this_machine(guests_up: Guests, kernel: str) -> None:
    mine = emulators(guests_up, kernel)
    assert mine
    for path in mine:
        fields = dict(line.partition(":")[::2] for line in (path / "status").read_text().splitlines())
        assert set(fields["Uid"].split()) == set(fields["Gid"].split())
        assert int(fields["Uid"].split()[0]) >= 61184
        assert fields["Groups"].strip() == ""
        rights = "0" * 15 + (
            "2" if kernel == "k1" else "0"
        )  # CAP_DAC_OVERRIDE, in a root where there is nothing to override
        assert {fields[key].strip() for key in ("CapEff", "CapPrm", "CapBnd")} == {rights}
        assert fields["NoNewPrivs"].strip() == "1"
        assert not (path / "root" / "root" / ".ssh").exists()
        assert os.stat(path / "root").st_dev != os.stat("/").st_dev
        for kind in ("mnt", "pid", "net", "ipc"):
            assert os.readlink(path / f"ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    if kernel == "k1":
        assert {
            dict(line.partition(":")[::2] for line in (path / "status").read_text().splitlines())["Seccomp"].strip()
            for path in mine
        } == {"2"}


@pytest.mark.parametrize("kernel", KERNELS)
def test_who_has_taken_over_an_emulator_has_nothing_of_this_machine(guests_up: Guests, kernel: str) -> None:
    emulator, other = emulators(guests_up, kernel)[0], OTHER[kernel]
    uid = (emulator / "status").read_text().partition("Uid:")[2].split()[0]
    rights = "dac_override" if kernel == "k1" else ""
    keeps = [f"--bounding-set=-all{rights and ',+' + rights}", f"--inh-caps=-all{rights and ',+' + rights}"]
    lab, home = guests_up.home / "lab", guests_up.home
    files = [
        home / "secret",
        lab / "log",
        home / "lab.toml",
        lab / f"kernels/{other}/pid",
        lab / f"kernels/{other}/own/serve.sh",
    ]
    sockets = [home / "ns", lab / f"kernels/{other}/own/line/namespace", lab / f"kernels/{other}/own/run/serve"]
    with socket.create_server(("127.0.0.1", 0)) as port, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0{home}/ns")
        abstract.listen()
        done = subprocess.run(
            [
                *("nsenter", "--target", emulator.name, "--mount", "--pid", "--net", "--ipc", "--root", "--wd", "--"),
                *("setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--no-new-privs", *keeps),
                *((f"--ambient-caps=+{rights}",) if rights else ()),
                *("--", "/usr/bin/python3", "-c", (Path(__file__).with_name("escaped.py")).read_text()),
                *(",".join(map(str, files)), ",".join(map(str, sockets)), str(port.getsockname()[1])),
            ],
            capture_output=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    outcomes: list[str] = json.loads(done.stdout)
    assert len(outcomes) >= 40
    print(
        f"\n| {kernel}, its emulator | {sum(outcome.startswith('held') for outcome in outcomes)} of {len(outcomes)} held |"
    )
    assert [outcome for outcome in outcomes if not outcome.startswith("held")] == []


def holder_of(path: Path, holder: str) -> bool:
    """Tell whether a process came of another."""
    while path.name not in ("0", "1"):
        if path.name == holder:
            return True
        path = path.with_name((path / "stat").read_text().rpartition(")")[2].split()[1])
    return False
