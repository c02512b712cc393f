"""A kernel without a network card uses another's /net: k1 fetches a page from the host, serves one that the host fetches, and resolves a name by k5.

k5 is a QEMU guest with a card on QEMU's own network, where the host is 10.0.2.2; a port of the host leads to its 8080. Its files set it up, too.
k1 has no card, and nothing of mk9p but the namespace, mounted with v9fs; what it runs are shell scripts.
"""

import http.server
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import pytest

from mk9p.client import Client
from mk9p.clients import lab as labs
from mk9p.clients.net import dial
from tests.vm.lab_vm import PATIENCE, Pipe, Vm, insmod, until

PAGE = b"".join(b"line %d of a page of the host\n" % number for number in range(3000))
NET = "k/k5/net"


@attrs.frozen
class Networks:
    """The lab, the host's web server, and the port of the host that leads to k5's 8080."""

    vm: Vm
    web: int
    port: int

    def in_k1(self, script: str) -> list[str]:
        """Return the words that run a script in k1, in k5's /net."""
        return ["run", "k1", "--", "sh", "-ec", f"cd /mnt/net/{NET}; {script}"]


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def web() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def networks(vm: Vm) -> Iterator[Networks]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]  # QEMU takes no 0
    card = [
        "-netdev",
        f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:8080",
        "-device",
        "virtio-net-pci,netdev=net",
    ]
    words = {"backend": "qemu", "kernel": "6.1", "memory": "768M", "device": card}

    async def start(ns: Client) -> None:
        await labs.start_kernel(ns, "k5", words)
        await labs.serving(ns, ["k5"], print)

    vm.client(start)
    try:
        vm.sh("k5", insmod("6.1", ("virtio_net",)))
        vm.write(f"{NET}/ipifc/lo/ctl", "up")
        vm.write(f"{NET}/ipifc/eth0/ctl", "add 10.0.2.15 /24\nup")
        vm.write(f"{NET}/iproute", "add 0.0.0.0 /0 10.0.2.2")
        vm.sh("k5", "echo '10.0.2.2 the-host.example' >>/etc/hosts")
        assert vm.sh("k1", "cat /proc/net/dev | grep -v -e face -e Receive -e lo: ; :") == ""  # it has no card
        vm.mount("k1", "/mnt/net")
        with web() as page:
            yield Networks(vm, page, port)
        vm.sh("k1", "umount /mnt/net")
    finally:
        vm.write("kernels/k5/ctl", "kill")
        until(lambda: vm.field("kernels/k5/status", "state") != "active", "the end of k5")
        vm.write("kernels/ctl", "delete k5")


def test_the_card_as_its_kernel_has_it(networks: Networks) -> None:
    vm = networks.vm
    status = vm.cat(f"{NET}/ipifc/eth0/status")
    assert "state up carrier on" in status
    assert "\t10.0.2.15 /24 10.0.2.0 " in status
    assert status.split("mac ")[1][:12] == vm.sh("k5", "cat /sys/class/net/eth0/address").strip().replace(":", "")
    assert "0.0.0.0 /0 10.0.2.2 4 static eth0\n" in vm.cat(f"{NET}/iproute")


def test_a_page_of_the_host_is_fetched_by_who_has_no_network(networks: Networks) -> None:
    script = (
        f"exec 3<>tcp/clone; read n <&3; echo 'connect 10.0.2.2!{networks.web}' >&3; exec 4<>tcp/$n/data;"
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&4; cat <&4"
    )
    done = networks.vm.mk9p(*networks.in_k1(script))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.partition(b"\r\n\r\n")[2] == PAGE


def test_a_page_is_served_by_who_has_no_network(networks: Networks) -> None:
    script = (
        "exec 3<>tcp/clone; read n <&3; echo 'announce *!8080' >&3; cat tcp/$n/local; exec 4<>tcp/$n/listen; read c <&4;"
        "exec 5<>tcp/$c/data; dd bs=65536 count=1 <&5 2>/dev/null | head -n 1;"
        "printf 'HTTP/1.0 200 OK\\r\\n\\r\\nserved by %s\\n' $(cat /proc/sys/kernel/hostname) >&5; exec 5>&- 4>&-"
    )
    with networks.vm.started(*networks.in_k1(script)) as process:
        said = Pipe(process.stdout)
        said.expect(b"!8080\n")
        with urllib.request.urlopen(f"http://127.0.0.1:{networks.port}/page", timeout=PATIENCE) as answer:
            assert answer.read() == b"served by k1\n"
        said.expect(b"GET /page HTTP/1.1")
        assert process.wait(PATIENCE) == 0
    assert networks.vm.mk9p("ls", f"{NET}/tcp").stdout.split() == [b"clone", b"stats"]


def test_a_name_is_resolved_by_who_has_no_network(networks: Networks) -> None:
    ask = "exec 3<>{}; echo '{}' >&3; cat <&3"
    answers = [
        networks.vm.mk9p(*networks.in_k1(ask.format(file, question))).stdout
        for file, question in (("dns", "the-host.example ip"), ("cs", f"tcp!the-host.example!{networks.web}"))
    ]
    assert answers == [b"the-host.example ip 10.0.2.2\n", b"/net/tcp/clone 10.0.2.2!%d\n" % networks.web]


def test_a_refusal_has_its_words(networks: Networks) -> None:
    script = "exec 3<>tcp/clone; read n <&3; echo 'connect 10.0.2.15!9' >&3 || cat tcp/$n/error"
    done = networks.vm.mk9p(*networks.in_k1(script))
    assert done.stdout == b"Connection refused\n"


def test_a_stream_of_python_here_through_a_kernel_there(networks: Networks) -> None:
    async def fetch(ns: Client) -> bytes:
        async with await dial(ns, f"{NET}/tcp!the-host.example!{networks.web}") as stream:
            await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
            await stream.send_eof()
            return b"".join([piece async for piece in stream])

    assert networks.vm.client(fetch).partition(b"\r\n\r\n")[2] == PAGE
