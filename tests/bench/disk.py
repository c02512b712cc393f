"""`python -m tests.bench.disk`: a disk of one kernel read in another through the composed v9fs mount, beside QEMU's own virtfs in that same guest.

k2, an emulated kernel, reads the same bytes with `dd bs=1M`, in turn: from a file of the host by virtfs (virtio-9p-pci, the server in QEMU in C), and
from `dev/block` of k1, another emulated kernel that has the file as its virtio disk, and of u1, a user-mode kernel that has it as its ubd disk.
Its namespace is mounted as `mk9p mount` does it: over a virtio port, with a relay. All mounts are cache=none and of one msize, the most that virtio
takes; the page caches of all three kernels are dropped before each turn, the host's is warm. For comparison k1 reads its disk itself.

Every mount is an emulated processor's work (TCG, one of the host's two shared by all), so the ratio matters and not the rates.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mk9p.client import Client
from mk9p.clients.lab import Lab, serving
from tests.vm.lab_vm import ALL, Vm, insmod, lab_file, until, up_or_down

MSIZE = 512_000  # PAGE_SIZE * (VIRTQUEUE_NUM - 3) of net/9p/trans_virtio.c
VIRTFS, N = "/mnt/virtfs", "/mnt/n"
SERVE = ["host", "cmd", "dev/block"]


def there(vm: Vm, path: str) -> bool:
    return not vm.mk9p("stat", path).returncode


@contextmanager
def kernels(kernel: str, mib: int) -> Iterator[Vm]:
    """Boot the three, with the disk and the mounts."""
    home = Path(tempfile.mkdtemp(prefix="mk9p-", dir="/run"))  # a short name: it holds sockets
    share = Path(tempfile.mkdtemp(prefix="mk9p-disk-", dir="/var/tmp"))
    share.chmod(0o755)  # an emulator is a user of its own
    lab = Lab(home / "lab")
    vm, disk = Vm(lab), share / "disk"
    try:
        with disk.open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(1 << 20))
        qemu: dict[str, Any] = {"backend": "qemu", "kernel": kernel, "memory": "768M"}
        block = ["-blockdev", f"driver=raw,node-name=disk,read-only=on,file.driver=file,file.filename={disk}"]
        virtfs = f"local,path={share},mount_tag=share,security_model=none,readonly=on"
        words = {
            "k1": {**qemu, "trust": "on", "serve": SERVE, "device": [*block, "-device", "virtio-blk-pci,drive=disk"]},
            "k2": {**qemu, **ALL, "serve": ["host", "cmd"], "device": ["-virtfs", virtfs]},
        }
        done = subprocess.run(up_or_down(lab, "up", "--no-mount", str(lab_file(home / "lab.toml", words))), check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
        vm.client(lambda ns: user_mode(ns, "u1", disk))
        vm.sh("k1", insmod(kernel, ("virtio_blk",)))
        for name, node in (("k1", "vda"), ("u1", "ubda")):
            until(partial(there, vm, f"k/{name}/dev/block/{node}/data"), f"the disk of {name}")
        vm.sh(
            "k2",
            f"mkdir -p {VIRTFS} {N}; mount -t 9p -o trans=virtio,version=9p2000.L,msize={MSIZE},cache=none,ro share {VIRTFS}",
        )
        address = vm.field("kernels/k2/status", "guest_dial")
        vm.sh("k2", f"{sys.executable} -m mk9p mount --v9fs --user root --msize {MSIZE} '{address}' {N}")
        yield vm
    finally:
        lab.end()
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(share)


async def user_mode(ns: Client, name: str, disk: Path) -> None:
    """Start a user-mode kernel; its disk is a word of its command line, which a lab file has no place for."""
    await ns.write("kernels/ctl", f"create {name}\n")
    words = [
        "backend uml",
        f"memory {512 << 20}",
        "trust on",
        f"show {disk.parent}",
        f"serve {' '.join(SERVE)}",
        f"load uml cmdline ubd0r={disk}",
        "start",
    ]
    for word in words:
        await ns.write(f"kernels/{name}/ctl", word + "\n")
    await serving(ns, [name], lambda *event: None)


def read(vm: Vm, kernel: str, path: str, mib: int) -> float:
    """Read a file in a kernel, all page caches dropped; returns MiB/s by that kernel's clock."""
    for name in ("k1", "u1", "k2"):
        vm.sh(name, "echo 3 >/proc/sys/vm/drop_caches")
    start, said, end = vm.sh(
        kernel, f"date +%s.%N; LC_ALL=C dd if={path} of=/dev/null bs=1M count={mib} 2>&1 | tail -n 1; date +%s.%N"
    ).splitlines()
    assert said.startswith(f"{mib << 20} bytes"), said
    return mib / (float(end) - float(start))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.disk")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--kernel", default="6.1")
    chosen = parser.parse_args()
    turns = {
        "k2: virtfs of QEMU": ("k2", f"{VIRTFS}/disk"),
        "k2: k1's disk, composed": ("k2", f"{N}/k/k1/dev/block/vda/data"),
        "k2: u1's disk, composed": ("k2", f"{N}/k/u1/dev/block/ubda/data"),
        "k1: its own disk": ("k1", "/dev/vda"),
    }
    rates: dict[str, list[float]] = {name: [] for name in turns}
    with kernels(chosen.kernel, chosen.mib) as vm:
        release = vm.sh("k2", "uname -r").strip()
        print(
            f"{chosen.mib} MiB, msize {MSIZE}, guests {release}, host Linux {platform.release()}, {os.cpu_count()} processors,"
            f" CPython {platform.python_version()}, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        for _ in range(chosen.rounds):
            for name, (kernel, path) in turns.items():
                rates[name].append(read(vm, kernel, path, chosen.mib))
    base = statistics.median(rates["k2: virtfs of QEMU"])
    for name, found in rates.items():
        middle = statistics.median(found)
        print(
            f"{name:26}{middle:8.1f} MiB/s  ratio {middle / base:6.3f}   rounds {' '.join(f'{rate:.1f}' for rate in found)}"
        )


if __name__ == "__main__":
    main()
