"""`python -m tests.bench.federation [COMPOSERS…]`: what a federation costs etcd, and what 100,000 kernels cost a composer.

Three real members on this machine, one after the other with 10, 100, 300 and 1,000 simulated composers. A simulated composer has a session that it
keeps alive and a watch of everything, over connections of its own, as a real one; but it stores nothing, and its 100 kernels are records that one
writer changes. Keep-alives and watches of all of them are this one process, whose own work is told beside that of the members.
"""

import base64
import json
import os
import resource
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

from mk9p.auth import ROOT
from mk9p.compose.far import Far, Kernel
from mk9p.compose.far_records import Said, owner_of, place
from mk9p.compose.far_server import FarServer
from mk9p.composing import namespace
from mk9p.etcd.address import parse
from mk9p.etcd.client import Client, opened
from mk9p.etcd.mirror import Mirror
from mk9p.etcd.records import put
from mk9p.tree import settle
from tests.etcd.cluster import Cluster, running

TTL = 5
KERNELS = 100
SECONDS = 10.0
MACHINES = 1000
PREFIX = "/mk9p/"


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split(" ")
    return (int(fields[12]) + int(fields[13])) / os.sysconf("SC_CLK_TCK")


def own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss_of(pid: int | str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split("kB")[0]) * 1024


def coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Simulated:
    """One composer: its keep-alives and its watch, in plain HTTP on two connections, with as little work here as may be."""

    def __init__(self, number: int, address: str, heard: dict[bytes, list[float]]) -> None:
        self.number, self.heard = number, heard
        self.host, _, port = address.partition(":")
        self.port = int(port)
        self.lease = ""
        self.asked: list[float] = []

    def request(self, path: str, body: dict[str, Any]) -> bytes:
        data = json.dumps(body).encode()
        return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data

    async def call(self, stream: trio.SocketStream, path: str, body: dict[str, Any], end: bytes = b"}") -> bytes:
        await stream.send_all(self.request(path, body))
        said = b""
        while True:
            said += await stream.receive_some(65536)
            head, blank, rest = said.partition(b"\r\n\r\n")
            if not blank:
                continue
            if b"chunked" in head and rest.endswith(b"0\r\n\r\n"):
                return rest
            if b"Content-Length: " in head and len(rest) >= int(
                head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]
            ):
                return rest

    async def granted(self, stream: trio.SocketStream, ttl: int) -> str:
        """Return a new lease of etcd's."""
        return str(json.loads(await self.call(stream, "/v3/lease/grant", {"TTL": str(ttl)}))["ID"])

    async def begin(self, nursery: trio.Nursery) -> None:
        self.line = await trio.open_tcp_stream(self.host, self.port)
        self.lease = await self.granted(self.line, TTL)
        key, value = f"{PREFIX}home/h{self.number}", json.dumps({"id": f"{self.number:032x}"})
        await self.call(self.line, "/v3/kv/put", {"key": coded(key), "value": coded(value), "lease": self.lease})
        nursery.start_soon(self.keep)

    async def keep(self) -> None:
        """Say three times in a term that it is there. The first time is not that of the others."""
        await trio.sleep(TTL / 3 * (self.number * 0.618 % 1))
        while True:
            began = time.perf_counter()
            await self.call(self.line, "/v3/lease/keepalive", {"ID": self.lease})
            self.asked.append(time.perf_counter() - began)
            await trio.sleep(TTL / 3)

    async def watch(self, *, task_status: trio.TaskStatus[None]) -> None:
        stream = await trio.open_tcp_stream(self.host, self.port)
        wanted = {"key": coded(PREFIX), "range_end": coded(PREFIX[:-1] + "0")}
        await stream.send_all(self.request("/v3/watch", {"create_request": wanted}))
        begun = False
        async for data in stream:
            now = time.perf_counter()
            if not begun and b'"created":true' in data:
                begun = True
                task_status.started()
            at = data.find(b'"value":"')
            while at >= 0:
                end = data.find(b'"', at + 9)
                times = self.heard.get(bytes(data[at + 9 : end]))
                if times is not None:
                    times.append(now)
                at = data.find(b'"value":"', end)


def shown(times: list[float]) -> str:
    if not times:
        return "never"
    ordered = sorted(times)
    return f"median {statistics.median(ordered) * 1e3:7.1f} ms   99 of 100 {ordered[len(ordered) * 99 // 100] * 1e3:7.1f} ms"


async def composers(etcd: Cluster, count: int) -> None:
    """Measure with so many composers, while a record of a kernel changes every tenth of a second."""
    heard: dict[bytes, list[float]] = {}
    them = [Simulated(n, etcd.members[n % len(etcd.members)].address, heard) for n in range(count)]
    pids = [member.pid for member in etcd.members]
    async with opened(parse(etcd.where("bench"))) as client, trio.open_nursery() as nursery:
        for start in range(0, count, 20):
            async with trio.open_nursery() as some:
                for one in them[start : start + 20]:
                    some.start_soon(one.begin, nursery)
            print(f"    {min(start + 20, count)} there", end="\r", flush=True)
        # they watch when all are there: a thousand that come at once are a million events
        async with trio.open_nursery() as some:
            for one in them:
                some.start_soon(nursery.start, one.watch)
        await trio.sleep(TTL / 3)
        asked = [len(one.asked) for one in them]
        before, mine, began = [cpu_of(pid) for pid in pids], own_cpu(), time.perf_counter()
        puts, sent, refused = [], {}, 0
        while time.perf_counter() < began + SECONDS:
            line = f"k1 has ' cpu dev fs mem ' arch x86_64 cpus 4 since {time.time_ns()}"
            value = Said("tcp!10.0.0.1!564", "", True, True, line).value()
            heard[coded(value).encode()] = []
            now = sent[coded(value).encode()] = time.perf_counter()
            try:
                await client.txn([], [put(f"{PREFIX}kernel/h0/k1", value)], [])
            except BlockingIOError:  # no member answered in time
                refused += 1
            puts.append(time.perf_counter() - now)
            await trio.sleep(0.1)
        await trio.sleep(1)
        passed = time.perf_counter() - began
        kept = sum(len(one.asked) for one in them) - sum(asked)
        watched = [when - sent[value] for value, times in heard.items() for when in times]
        work = [(cpu_of(pid) - first) / passed for pid, first in zip(pids, before, strict=True)]
        print(
            f"{count} composers: {kept / passed:.0f} keep-alives a second, {len(watched) / passed:.0f} events a second"
        )
        print(f"    keep-alive {shown([took for one in them for took in one.asked])}")
        print(f"    change     {shown(puts)}   not answered in time {refused} of {len(puts)}")
        print(f"    heard of   {shown(watched)}   by {len(watched)} of {len(sent) * count}")
        print(
            f"    CPU of the members {' '.join(f'{100 * one:.0f} %' for one in work)}, of this process {100 * (own_cpu() - mine) / passed:.0f} %"
        )
        print(f"    memory of the members {' '.join(f'{rss_of(pid) >> 20} MiB' for pid in pids)}", flush=True)
        nursery.cancel_scope.cancel()


async def written(client: Client) -> None:
    """Write the records of 1,000 machines with 100 kernels each."""
    began, size = time.perf_counter(), 0
    for host in range(MACHINES):
        said = [
            Said(
                f"tls!h{host}.example!{5640 + n}",
                "",
                True,
                False,
                f"k{n} has ' block cmd cpu dev fs mem net proc ' arch x86_64 cpus 4",
            )
            for n in range(KERNELS)
        ]
        changes = [put(f"{PREFIX}{place(f'h{host}', f'k{host}-{n}')}", one.value()) for n, one in enumerate(said)]
        size += sum(len(one.value()) for one in said)
        await client.txn([], changes, [])
    took = time.perf_counter() - began
    print(f"{MACHINES * KERNELS} records, {size >> 20} MiB, in {MACHINES} writes: {took:.1f} s", flush=True)


async def one_composer(etcd: Cluster) -> None:
    """Measure what 100,000 kernels cost one composer."""
    async with opened(parse(etcd.where("bench"))) as client, trio.open_nursery() as nursery:
        await written(client)
        pids = [member.pid for member in etcd.members]
        print(f"    memory of the members {' '.join(f'{rss_of(pid) >> 20} MiB' for pid in pids)}")
        before, began = rss_of("self"), time.perf_counter()
        mirror = Mirror(client, PREFIX)
        await mirror.load()
        print(
            f"    read in {time.perf_counter() - began:.1f} s, {(rss_of('self') - before) / len(mirror.kept):.0f} bytes each"
        )
        before, began = rss_of("self"), time.perf_counter()

        def make(kernel: Kernel) -> FarServer:
            return FarServer(kernel.said.dial, nursery, doubted=lambda: None)

        far = Far("here", make, lambda name: None, lambda name, what: None)
        ns = namespace(nursery, far=far)
        for key, one in mirror.kept.items():
            host, name = owner_of(key.removeprefix(PREFIX))
            far.hear(host, name, Said.read(one.value))
            far.there(host, True)
        print(
            f"    known in {time.perf_counter() - began:.1f} s, {(rss_of('self') - before) / len(mirror.kept):.0f} bytes more each"
        )
        began = time.perf_counter()
        listed = list(await settle(far.entries(ROOT)))
        print(f"    {len(listed)} names listed in {time.perf_counter() - began:.2f} s")
        names = [f"h{host}.k{host}-{host % KERNELS}" for host in range(MACHINES)]
        before, began = rss_of("self"), time.perf_counter()
        k = await settle(ns.root.walk("k", ROOT))
        for name in names:
            await settle(k.walk(name, ROOT))
        took = (time.perf_counter() - began) / len(names)
        print(
            f"    a walk to a kernel for the first time {took * 1e6:.0f} us, {(rss_of('self') - before) / len(names):.0f} bytes for each used"
        )
        nursery.cancel_scope.cancel()


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] or [10, 100, 300, 1000]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1 << 16), hard))
    # so that the members end with it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} CPUs")
    with tempfile.TemporaryDirectory() as folder, running(Cluster.of(Path(folder))) as etcd:
        for count in counts:
            trio.run(composers, etcd, count)
        trio.run(one_composer, etcd)


if __name__ == "__main__":
    main()
