"""Real machines for what is installed: QEMU guests with a disk, systemd as their init, and a network between them.

The disk is a fresh Debian with the packages (debian.py). A unit of the test's own runs commands that come by a virtio console, one a line in base64.
"""

import base64
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import trio

from mk9p.servers.kernels import images, initramfs, tools
from tests.install.debian import Tree

PATIENCE = 300.0  # seconds for a command: these CPUs are emulated
BOOT = 900.0  # seconds for a boot; two at once took more than 300 on a machine whose two processors had a load of 19
MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_console", "virtio_net", "crc32c_generic", "ext4"),
    *("9p", "9pnet_fd", "fuse", "autofs4", "vsock_loopback"),
)
INIT = b"""#!/bin/busybox sh
/bin/busybox --install -s /bin; export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in $(cat /guest/modules/order); do insmod /guest/modules/$m.ko; done
until [ -b /dev/vda ]; do sleep 0.1; done
mount -t ext4 /dev/vda /n
for d in proc sys dev; do mount --move /$d /n/$d; done
exec switch_root /n /sbin/init
"""
AGENT = """#!/bin/sh
for word in $(cat /proc/cmdline); do case $word in lab.ip=*) ip addr add "${word#lab.ip=}/24" dev eth0;; esac; done
ip link set eth0 up
exec 3<>/dev/hvc0
stty raw -echo <&3  # a terminal forgets it when the last who has it open closes it
echo READY >&3
while read -r line <&3; do
	echo "$line" | base64 -d >/run/lab.sh
	sh /run/lab.sh >/run/lab.out 2>&1 </dev/null; status=$?
	echo "$status $(base64 -w0 /run/lab.out)" >&3
done
"""
UNIT = """[Unit]
Description=the test's commands
After=basic.target
[Service]
ExecStart=/usr/local/bin/lab-agent
Environment=HOME=/root
[Install]
WantedBy=multi-user.target
"""
# nothing of it is needed here, and it takes an emulated CPU a while
OFF = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@hvc0.service",  # systemd would ask for a login on the very line of the agent
    "e2scrub_all.timer",
    "serial-getty@ttyS0.service",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-binfmt.service",
)


def disk(tree: Tree, path: Path) -> None:
    """Make a disk of a tree, with the agent in it."""
    (tree.path / "usr/local/bin/lab-agent").write_text(AGENT)
    (tree.path / "usr/local/bin/lab-agent").chmod(0o755)
    (tree.path / "etc/systemd/system/lab-agent.service").write_text(UNIT)
    tree.run("systemctl", "enable", "lab-agent.service")
    tree.run("systemctl", "mask", *OFF)
    command = [tools.need("mke2fs"), "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(tree.path), str(path), "1500M"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def first_files(image: images.Image, path: Path) -> None:
    """Make what the kernel starts with: it loads modules, mounts the disk, and hands over to systemd."""
    modules = image.closure(MODULES)
    busybox = Path(tools.need("busybox")).read_bytes()
    files: dict[str, bytes | initramfs.Node] = dict.fromkeys(initramfs.FOLDERS, (16877, 0, 0))
    files |= {"dev/console": (0o20600, 5, 1), "dev/null": (0o20600, 1, 3), "bin/busybox": busybox, "init": INIT}
    files |= {"guest/modules/order": "\n".join(modules).encode()}
    files |= {f"guest/modules/{name}.ko": blob for name, blob in modules.items()}
    path.write_bytes(initramfs.cpio(files))


@attrs.define(eq=False)
class Machine:
    """A guest that runs."""

    name: str
    process: "subprocess.Popen[bytes]"
    line: socket.socket
    console: Path

    def until(self, script: str, says: str) -> None:
        """Run a script until it succeeds: what it asks may be starting, which takes longer here than a command waits. Fails after a minute."""
        said = self.run(f"for n in $(seq 60); do {script} && exit; sleep 1; done 2>&1; exit 1")
        assert says in said

    def hears(self) -> str:
        """Return the next line of the agent. Raises AssertionError with the console's tail when the guest is gone, or silent."""
        said = b""
        while not said.endswith(b"\n"):
            try:
                data = self.line.recv(65536)
            except TimeoutError:
                data = b""
            assert data, f"{self.name} is gone or silent: {self.console.read_text(errors='replace')[-2000:]}"
            said += data
        return said.decode().strip()

    def run(self, script: str, *, status: int | None = 0) -> str:
        """Run a script as root, and return its output and errors. `status` None: any is fine."""
        self.line.sendall(base64.b64encode(script.encode()) + b"\n")
        ended, _, text = self.hears().partition(" ")
        said = base64.b64decode(text).decode(errors="replace")
        assert status is None or int(ended) == status, f"{self.name}: {script}\n{said}"
        return said


@contextmanager
def machines(tree: Tree, place: Path, names: Sequence[str]) -> Iterator[list[Machine]]:
    """Start two guests, 10.9.0.1 and 10.9.0.2, and wait for their systemd."""
    image = trio.run(images.get, "6.1")
    disk(tree, place / "disk")
    first_files(image, place / "initrd")
    with ExitStack() as stack:
        started = []
        for number, name in enumerate(names, 1):
            ours, theirs = socket.socketpair()
            ours.settimeout(PATIENCE)
            stack.enter_context(ours)
            console = place / f"{name}.console"
            words = f"quiet console=ttyS0 systemd.hostname={name} lab.ip=10.9.0.{number} cryptomgr.notests no_timer_check net.ifnames=0"
            end = "on" if number == 1 else "off"
            command = [
                *(
                    tools.need("qemu-system-x86_64"),
                    "-accel",
                    "tcg,thread=single",
                    "-cpu",
                    "max",
                    "-M",
                    "pc",
                    "-m",
                    "640",
                ),
                *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{console}"),
                *("-kernel", f"{image.file}", "-initrd", f"{place}/initrd", "-append", words),
                *("-drive", f"file={place}/disk,if=virtio,format=raw,snapshot=on"),
                *("-netdev", f"stream,id=n,server={end},addr.type=unix,addr.path={place}/net"),
                *("-device", f"virtio-net-pci,netdev=n,mac=52:54:00:00:00:0{number}"),
                *("-device", "virtio-serial-pci", "-chardev", f"socket,id=c,fd={theirs.fileno()}"),
                *("-device", "virtconsole,chardev=c"),
            ]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
            theirs.close()
            stack.callback(process.wait)
            stack.callback(process.kill)
            started.append(Machine(name, process, ours, console))
            while number == 1 and not (place / "net").exists():
                assert process.poll() is None
        for machine in started:
            machine.line.settimeout(BOOT)
            assert machine.hears() == "READY"
            machine.line.settimeout(PATIENCE)
        yield started
