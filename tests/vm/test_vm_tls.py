"""`mk9p mount tls!…` by v9fs: with the kernel's TLS, and with a process between where the kernel has none; on 6.1 and 6.12."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from mk9p.client import Client
from mk9p.clients import lab as labs
from mk9p.servers.kernels import images
from mk9p.testing import Memory, in_thread, serving_at
from mk9p.tree import Dir, Handle, Maybe, Open, Text
from tests.dial.keyring import Keyring
from tests.vm.lab_vm import Vm, until

BIG = bytes(range(256)) * (1 << 15)  # 8 MiB
MODULES = ("tls", "gcm", "ctr", "ghash_generic")


class WhoAmI(Text):
    """Who has opened it."""

    def __init__(self) -> None:
        super().__init__("")

    def open(self, how: Open) -> Maybe[Handle]:
        return Text(f"{how.who.name}\n").open(how)


@attrs.frozen
class Card:
    """A guest with a network card, and a server on the host that it can reach."""

    vm: Vm
    name: str
    kernel: str
    address: str
    kept: Memory

    def sh(self, script: str) -> str:
        return self.vm.sh(self.name, script)

    def mount(self, name: str, *words: str) -> tuple[int, str]:
        """Mount with the keys of a name; return the exit status and what was said."""
        keys = f"--ca /tmp/tls/ca.pem --cert /tmp/tls/{name}.pem --key /tmp/tls/{name}.key"
        script = f"cd /; mkdir -p /mnt/t; {sys.executable} -m mk9p mount --v9fs {keys} {' '.join(words)} '{self.address}' /mnt/t"
        done = self.vm.mk9p("run", self.name, "--", "sh", "-c", script)
        return done.returncode, (done.stdout + done.stderr).decode()

    def umount(self) -> None:
        self.sh(f"cd /; {sys.executable} -m mk9p umount /mnt/t")


@pytest.fixture(scope="module", params=["6.1", pytest.param("6.12", marks=pytest.mark.minutes)])
def card(vm: Vm, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Card]:
    ring = Keyring(tmp_path_factory.mktemp("keys"))
    server = ring.issue("host", "10.0.2.2")
    people = {"ann": ring.issue("ann"), "bob": ring.issue("bob")}
    ring.authority.revoke("bob")
    kept, name = Memory(b"", mode=0o666), f"tls{request.param.replace('.', '')}"
    tree = Dir({"whoami": WhoAmI(), "big": Memory(BIG), "kept": kept})
    words = {
        "backend": "qemu",
        "kernel": request.param,
        "memory": "768M",
        "device": ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"],
    }

    async def start(ns: Client) -> None:
        await labs.start_kernel(ns, name, words)
        await labs.serving(ns, [name], print)

    with in_thread(serving_at("tls!127.0.0.1!0", tree, keys=server)) as (host, _):
        vm.client(start)
        try:
            vm.sh(name, insmod(request.param, ("virtio_net",)))
            vm.write(f"k/{name}/net/ipifc/lo/ctl", "up")
            vm.write(f"k/{name}/net/ipifc/eth0/ctl", "add 10.0.2.15 /24\nup")
            files = {"ca.pem": server.ca}
            for person, keys in people.items():
                files |= {f"{person}.pem": keys.cert, f"{person}.key": keys.key}
            vm.sh(name, "mkdir -p -m 700 /tmp/tls")
            for file, path in files.items():
                vm.sh(name, f"umask 077; cat >/tmp/tls/{file} <<'END'\n{Path(path).read_text()}END")
            yield Card(vm, name, request.param, host.address.replace("127.0.0.1", "10.0.2.2"), kept)
        finally:
            vm.write(f"kernels/{name}/ctl", "kill")
            until(lambda: vm.field(f"kernels/{name}/status", "state") != "active", f"the end of {name}")
            vm.write("kernels/ctl", f"delete {name}")


def insmod(kernel: str, names: tuple[str, ...]) -> str:
    """Return the script that loads modules of a kernel, packed ones too; it is read where the host has them."""
    image: Any = trio.run(images.get, kernel)
    paths = [str(image.modules[name]) for name in image.closure(names)]
    one = "case $m in *.xz) xz -dc $m >/tmp/m.ko;; *) cp $m /tmp/m.ko;; esac; /run/guest/busybox insmod /tmp/m.ko 2>/dev/null"
    return f"for m in {' '.join(paths)}; do {one}; done; :"


def use(card: Card) -> None:
    """Use the mount, and see that it is the same tree as the one that the host serves, as the certificate's name."""
    assert card.sh("cat /mnt/t/whoami") == "cert:ann\n"
    assert card.sh("md5sum </mnt/t/big").split()[0] == hashlib.md5(BIG).hexdigest()
    card.sh("dd if=/mnt/t/big of=/mnt/t/kept bs=65536 2>/dev/null; sync")
    assert bytes(card.kept.data) == BIG
    card.sh(
        "setpriv --reuid 65534 --regid 65534 --clear-groups cat /mnt/t/whoami | grep -qx cert:ann"
    )  # whoever asks in this guest


def test_a_process_stands_between_where_the_kernel_has_no_tls(card: Card) -> None:
    assert "tls" not in card.sh("cat /proc/sys/net/ipv4/tcp_available_ulp; :").split(), "the test begins without"
    assert card.mount("ann") == (0, "")
    try:
        use(card)
    finally:
        card.umount()


def test_the_kernels_own_tls_carries_the_mount(card: Card) -> None:
    card.sh(insmod(card.kernel, MODULES))
    assert card.mount("ann") == (0, "")
    try:
        use(card)
        counters = dict(line.split() for line in card.sh("cat /proc/net/tls_stat").splitlines())
        assert (counters["TlsCurrTxSw"], counters["TlsCurrRxSw"]) == ("1", "1"), counters
        assert counters["TlsDecryptError"] == "0"
    finally:
        card.umount()


def test_who_is_refused_reads_why_in_one_line(card: Card) -> None:
    status, said = card.mount("bob")
    assert status == 1
    assert "it refuses our certificate, which was revoked" in said
    assert said.count("\n") == 1
    assert card.sh("grep /mnt/t /proc/mounts; :") == ""
