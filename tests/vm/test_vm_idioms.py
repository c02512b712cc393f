"""Linux's v9fs as a person uses it: every idiom of the shell on a mounted tree, on Debian's 6.1 and 6.12, with bash and with busybox."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import pytest

from mk9p.client import Client
from mk9p.clients import lab as labs
from tests.vm.conftest import Place, require_kernel
from tests.vm.idioms import IDIOMS, LOST, Idiom, results
from tests.vm.idioms import script as script_of
from tests.vm.lab_vm import PATIENCE, READERS, SHELLS, TREES, Pipe, Shown, Vm, devices, until

MOUNT = "/mnt/t"


@attrs.frozen
class Guest:
    """A kernel with the tree mounted, and the tree's state."""

    vm: Vm
    name: str
    shown: Shown
    loses_errors: bool

    def words(self, shell: str, text: str) -> list[str]:
        """Return the command that runs a script in a shell, with the programs that go with it."""
        if shell == "bash":
            return ["run", self.name, "--", "bash", "-c", text]
        setup = "mkdir -p /tmp/bb; busybox --install -s /tmp/bb 2>/dev/null; PATH=/tmp/bb:$PATH; "
        return ["run", self.name, "--", "busybox", "sh", "-c", setup + text]


@contextmanager
def running(vm: Vm, place: Place, name: str) -> Iterator[None]:
    """Have the kernel there; k3 only for as long as it takes."""
    if name != "k3":
        yield
        return
    words = {"backend": "qemu", "kernel": "6.12", "cpus": 1, "memory": "512M", "device": devices(place.path, name)}

    async def start(ns: Client) -> None:
        await labs.start_kernel(ns, name, words)
        await labs.serving(ns, [name], print)

    require_kernel("qemu", "6.12")
    vm.client(start)
    try:
        yield
    finally:
        vm.write(f"kernels/{name}/ctl", "kill")
        vm.write("kernels/ctl", f"delete {name}")


@pytest.fixture(scope="module", params=["k1", "k3"], ids=["6.1", "6.12"])
def guest(request: pytest.FixtureRequest, vm: Vm, place: Place) -> Iterator[Guest]:
    name = request.param
    with running(vm, place, name):
        vm.mount(name, MOUNT, line=f"char!{TREES[0]}")
        yield Guest(vm, name, place.shown[name], loses_errors=name == "k3")
        vm.sh(name, f"umount {MOUNT}")


# One script for all idioms. A module's fixture that failed is not made again, so that a guest that hangs costs its patience once.
@pytest.fixture(scope="module", params=SHELLS)
def printed(guest: Guest, request: pytest.FixtureRequest) -> dict[str, tuple[str, int, str]]:
    """Give what the idioms printed in a shell."""
    everything = guest.shown.everything
    everything.value = 0
    # eighty commands: 10 s on an idle machine, and 90 s were not enough for them on one with ten others at work
    done = guest.vm.mk9p(*guest.words(request.param, script_of(IDIOMS, MOUNT)), seconds=5 * PATIENCE)
    assert done.returncode == 0, done.stderr.decode()
    # and on the other side of the wire
    assert everything.value == 81
    assert bytes(everything.disk[99:104]).endswith(b"XYZ" + bytes(everything.disk[103:104]))
    return results(done.stdout.decode())


@pytest.mark.parametrize("idiom", IDIOMS, ids=lambda idiom: idiom.name)
def test_idiom(guest: Guest, printed: dict[str, tuple[str, int, str]], idiom: Idiom) -> None:
    output, status, errors = printed[idiom.name]
    assert (output, errors if not idiom.error else "") == (idiom.shows, "")
    if idiom.error:
        assert status != 0
        allowed = (idiom.error, *LOST) if idiom.writes and guest.loses_errors else (idiom.error,)
        assert any(words in errors for words in allowed), errors
    else:
        assert status == 0


# busybox's cat uses sendfile(2), which holds the lock of a pipe while it waits for the file: then nobody can read what came before from that pipe.
# Into a file it is as good as any.
@pytest.mark.parametrize(
    ("shell", "reader", "command"),
    [
        ("bash", "cat", "cat F"),
        ("busybox", "cat", "cat F >/tmp/lines"),
        *((shell, "head", "head -n 3 F") for shell in SHELLS),
        *((shell, "while", 'while read -r seq time what; do echo "$what"; done <F') for shell in SHELLS),
        ("bash", "pipe", 'cat F | while read -r seq time what; do echo "$what"; done'),
        ("busybox", "pipe", 'dd if=F bs=64k 2>/dev/null | while read -r seq time what; do echo "$what"; done'),
        ("bash", "python", "python3 -uc 'for line in open(\"F\"): print(line)'"),
    ],
)
def test_lines_come_as_they_are_written(guest: Guest, shell: str, reader: str, command: str) -> None:
    assert reader in READERS
    log = f"{shell}-{reader}"
    with guest.vm.started(*guest.words(shell, command.replace("F", f"{MOUNT}/logs/{log}"))) as process:
        said = Pipe(process.stdout)
        for line in ("one", "two", "three"):
            guest.shown.emit(log, line)
            if reader == "head":
                continue  # it prints at its end, which comes with the third line
            if "/tmp/lines" in command:
                until(lambda: line in guest.vm.sh(guest.name, "cat /tmp/lines 2>/dev/null; :"), line)  # noqa: B023
            else:
                said.expect(f"{line}\n".encode())  # before the next is written
            assert process.poll() is None
        if reader == "head":
            assert [said.expect(f" {line}\n".encode()) for line in ("one", "two", "three")]
            assert process.wait(PATIENCE) == 0
        else:
            # who catches SIGINT, as ash, dd and Python do, is not interrupted in v9fs: it waits with wait_event_killable
            process.send_signal(signal.SIGINT if reader == "cat" else signal.SIGTERM)
            assert process.wait(PATIENCE) != 0
    until(lambda: not guest.vm.pids(guest.name, f"{MOUNT}/logs/{log}"), "the end of all readers")


@pytest.mark.parametrize(
    ("version", "shown"), [("9p2000", "noextend"), ("9p2000.u", "version=9p2000.u"), ("9p2000.L", "trans=fd")]
)
def test_all_dialects(guest: Guest, version: str, shown: str) -> None:
    vm, where = guest.vm, "/mnt/u"
    guest.shown.everything.value = 0
    vm.mount(guest.name, where, line=f"char!{TREES[1]}", version=version)
    try:
        options = vm.sh(guest.name, f"grep ' {where} ' /proc/mounts").split()[3].split(",")
        assert shown in options  # what the kernel took: it shows no version where it is 9P2000.L
        script = "ls; cat status; echo add 3 >ctl; cat status; (echo bogus >ctl) 2>&1; cat error; (cat nothing) 2>&1; (mkdir x) 2>&1; head -n1 big"
        text = vm.mk9p("run", guest.name, "--", "bash", "-c", f"cd {where}; {script}").stdout.decode()
    finally:
        vm.sh(guest.name, f"umount {where}")
    assert guest.shown.everything.value == 3
    lines = text.splitlines()
    assert {"ctl", "status", "events"} <= set(lines)
    assert lines[lines.index("value 0") :][:2] == ["value 0", "value 3"]
    refused = ["Invalid argument", *(LOST if guest.loses_errors else ())]
    if version == "9p2000":
        refused.append("Unknown error 526")  # it has words only, and net/9p/error.c knows but a few of them
    assert any(line.endswith(tuple(refused)) for line in lines), text
    assert any("bogus" in line for line in lines), text  # and `error` has the words
    for words in ("No such file or directory", "Operation not permitted"):
        assert any(line.endswith(words) for line in lines), text
    assert lines[-1] == "line 0"
