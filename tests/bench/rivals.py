"""The servers that are compared, each a process of its own on a TCP port of the loopback, pinned to a processor."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import attrs

from mk9p.testing import until_true
from tests.bench.served import BIG, SMALL


@attrs.frozen
class Rival:
    """A running server: `address` as p9load wants it, `aname`, the processes whose time is its, and the path of its small file."""

    name: str
    address: str
    aname: str
    pids: tuple[int, ...]
    small: str = "small"


def compiled(name: str) -> Path:
    """Compile a program of this folder; returns where it is."""
    source, where = Path(__file__).with_name(f"{name}.c"), Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    if not where.exists() or where.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["cc", "-O2", "-o", where, source], check=True)
    return where


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _there(address: str) -> bool:
    host, _, port = address.rpartition(":")
    if not host:
        return Path(address).exists()
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


@contextmanager
def _process(name: str, argv: list[str], address: str, aname: str, cpu: int) -> Iterator[Rival]:
    """Run a server that listens at an address as p9load wants it: HOST:PORT, or the path of a socket."""
    with subprocess.Popen(
        ["taskset", "-c", str(cpu), *argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None

        def up() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{argv!r} ended: {process.stderr and process.stderr.read()!r}")
            return _there(address)

        try:
            until_true(up)
            yield Rival(name, address, aname, (process.pid,))
        finally:
            process.terminate()
            process.stderr.read()
            if address.startswith("/"):
                Path(address).unlink(missing_ok=True)


def _diod(root: Path, address: str) -> list[str]:
    return ["diod", "-f", "-n", "-c", "/dev/null", "-L", "stderr", "-e", str(root), "-l", address]


@contextmanager
def diod(root: Path, cpu: int) -> Iterator[Rival]:
    """Serve a directory with diod."""
    port = free_port()
    with _process("diod", _diod(root, f"127.0.0.1:{port}"), f"127.0.0.1:{port}", str(root), cpu) as rival:
        yield rival


@contextmanager
def tree(kind: str, cpu: int) -> Iterator[Rival]:
    """Serve a tree of served.py."""
    port = free_port()
    argv = [sys.executable, "-m", "tests.bench.served", kind, f"tcp!127.0.0.1!{port}"]
    with _process(kind, argv, f"127.0.0.1:{port}", "cap!x" if kind == "capable" else "/", cpu) as rival:
        yield rival


@contextmanager
def served(what: str, aname: str, cpu: int) -> Iterator[Rival]:
    """Serve with `mk9p serve`."""
    port = free_port()
    argv = [sys.executable, "-m", "mk9p", "serve", "--trust", "-l", f"tcp!127.0.0.1!{port}", what]
    with _process(what.partition(":")[0], argv, f"127.0.0.1:{port}", aname, cpu) as rival:
        yield rival


@contextmanager
def composed(name: str, behind: Rival, cpu: int, *options: str) -> Iterator[Rival]:
    """Serve a namespace in which another rival is mounted, with options of `mk9p compose`."""
    port = free_port()
    host, _, other = behind.address.rpartition(":")
    with tempfile.NamedTemporaryFile("w") as script:
        script.write(f"mount {f'tcp!{host}!{other}' if host else f'unix!{other}'} /k/x\n")
        script.flush()
        ours = [sys.executable, "-m", "mk9p", "compose", "--trust", "-l", f"tcp!127.0.0.1!{port}"]
        argv = [*ours, *options, script.name]
        with _process(name, argv, f"127.0.0.1:{port}", "/k/x", cpu) as rival:
            yield attrs.evolve(rival, pids=(*rival.pids, *behind.pids))


@contextmanager
def walked(behind: Rival, root: Path, cpu: int) -> Iterator[list[Rival]]:
    """Serve a namespace on a unix socket in which a rival is mounted, bound, a part of a union, mounted to be read only, and without trust; each is a
    rival."""
    path = root.with_name(f"{root.name}.namespace")
    with tempfile.NamedTemporaryFile("w") as script:
        script.write(
            f"mount unix!{behind.address} /k/k1\nbind /k/k1/cpu /n/b1/cpu\nbind /k/k1/cpu /n/u1/cpu\n"
            f"bind -a /k/k1 /n/u1/cpu\nmount -r unix!{behind.address} /g/k1\n"
            f"mount -u unix!{behind.address} /u/k1\n"
        )
        script.flush()
        argv = [sys.executable, "-m", "mk9p", "compose", "--trust", "-l", f"unix!{path}", script.name]
        with _process("walked", argv, str(path), "/", cpu) as rival:
            pids = (*rival.pids, *behind.pids)
            yield [
                attrs.evolve(behind, name="direct", small="cpu/status"),
                *(
                    attrs.evolve(rival, name=name, pids=pids, small=f"{place}/cpu/status")
                    for name, place in {
                        "mounted": "k/k1",
                        "bound": "n/b1",
                        "union": "n/u1",
                        "general": "g/k1",
                        "untrusted": "u/k1",
                    }.items()
                ),
            ]


@contextmanager
def partial(behind: Rival, root: Path, cpu: int) -> Iterator[Rival]:
    """Serve a namespace on a unix socket in which a rival is mounted, and rules that let nobody change anything there."""
    path = root.with_name(f"{root.name}.partial")
    with tempfile.NamedTemporaryFile("w") as script, tempfile.NamedTemporaryFile("w") as policy:
        script.write(f"mount unix!{behind.address} /k/k1\n")
        policy.write("deny * wcnd /k/**\n")
        for file in (script, policy):
            file.flush()
        argv = [
            sys.executable,
            "-m",
            "mk9p",
            "compose",
            "--trust",
            "-l",
            f"unix!{path}",
            "--policy",
            policy.name,
            script.name,
        ]
        with _process("partial", argv, str(path), "/", cpu) as rival:
            yield attrs.evolve(rival, pids=(*rival.pids, *behind.pids), small="k/k1/cpu/status")


@contextmanager
def relay(name: str, behind: Rival, cpu: int) -> Iterator[Rival]:
    """Pass on the bytes of another rival, in C (relay.c): what one more hop costs that does nothing at all."""
    port = free_port()
    argv = [str(compiled("relay")), str(port), behind.address.rpartition(":")[2]]
    with _process(name, argv, f"127.0.0.1:{port}", "/", cpu) as rival:
        yield attrs.evolve(rival, pids=(*rival.pids, *behind.pids))


@contextmanager
def on_socket(rival: Rival, root: Path) -> Iterator[Rival]:
    """Serve as a rival does, on a unix socket."""
    path = root.with_name(f"{root.name}.{rival.name}")
    ours = [sys.executable, "-m", "tests.bench.served", rival.name, f"unix!{path}"]
    argv = _diod(root, str(path)) if rival.name == "diod" else ours
    with _process(f"{rival.name}-u", argv, str(path), rival.aname, 0) as found:
        yield found


@contextmanager
def all_of_them(cpu: int) -> Iterator[dict[str, Rival]]:
    """Start all rivals; the files are those of served.py, in a directory of its own in memory."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        os.chmod(root, 0o777)
        (root / "small").write_text(SMALL)
        for name in ("big", "wbig"):
            (root / name).write_bytes(bytes(range(256)) * (BIG // 256))
        rivals = [
            stack.enter_context(diod(root, cpu)),
            stack.enter_context(tree("plain", cpu)),
            stack.enter_context(tree("async", cpu)),
        ]
        rivals += [stack.enter_context(on_socket(rival, root)) for rival in (rivals[0], rivals[1])]
        for end, behind in (("", rivals[1]), ("-u", rivals[-1])):
            rivals.append(stack.enter_context(composed(f"composed{end}", behind, cpu)))
            rivals.append(stack.enter_context(relay(f"relay{end}", behind, cpu)))
        kept = Path(stack.enter_context(tempfile.TemporaryDirectory()), "state")
        rivals.append(stack.enter_context(composed("kept", rivals[1], cpu, "--state", str(kept))))
        rivals += stack.enter_context(walked(rivals[4], root, cpu))
        rivals.append(stack.enter_context(partial(rivals[4], root, cpu)))
        rivals += [stack.enter_context(tree(kind, cpu)) for kind in ("ruled", "capable")]
        rivals.append(stack.enter_context(served(f"fs:{root}", f"/fs/{root.name}", cpu)))
        yield {rival.name: rival for rival in rivals}
