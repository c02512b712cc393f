"""`mk9p run`: commands in other kernels are commands: pipes, streams, signals, exit status."""

import hashlib
import os
import signal
import subprocess

import pytest

from tests.vm.lab_vm import PATIENCE, Pipe, Vm, until


def test_a_pipe_between_kernels(vm: Vm) -> None:
    first = subprocess.Popen(vm.words("run", "k1", "--", "cat", "/proc/version"), stdout=subprocess.PIPE)
    second = subprocess.Popen(
        vm.words("run", "k2", "--", "tr", "a-z", "A-Z"), stdin=first.stdout, stdout=subprocess.PIPE
    )
    assert first.stdout is not None
    first.stdout.close()
    text, _ = second.communicate(timeout=PATIENCE)
    assert (first.wait(PATIENCE), second.returncode) == (0, 0)
    version = vm.sh("k1", "uname -v").strip()
    assert text.decode().startswith("LINUX VERSION 6.1")
    assert version.upper() in text.decode()  # k1's kernel, in k2's capitals
    assert version != vm.sh("k2", "uname -v").strip()


@pytest.mark.parametrize("kernel", ["k0", "k1", "k2"])
def test_a_megabyte_through_cat(vm: Vm, kernel: str) -> None:
    data = os.urandom(1 << 20)
    done = vm.mk9p("run", kernel, "--", "cat", stdin=data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert hashlib.sha256(done.stdout).hexdigest() == hashlib.sha256(data).hexdigest()
    counted = vm.mk9p("run", kernel, "--", "sha256sum", stdin=data)
    assert counted.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()  # as the other kernel has it


@pytest.mark.parametrize("kernel", ["k0", "k1", "k2"])
def test_streams_and_status(vm: Vm, kernel: str) -> None:
    done = vm.mk9p("run", kernel, "--", "sh", "-c", "hostname; echo wrong >&2; exit 7")
    assert done.returncode == 7
    assert done.stderr == b"wrong\n"
    assert done.stdout.decode() == vm.sh(kernel, "cat /proc/sys/kernel/hostname")
    assert vm.mk9p("run", kernel, "--", "sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL


def test_arguments_are_kept_as_they_are(vm: Vm) -> None:
    words = ["", "a b", "it's", "''", "two\nlines\n", '$x `y` \\ "z"', "\u00fc\t\u2713"]
    done = vm.mk9p("run", "k2", "--", "sh", "-c", 'printf "%s|" "$@"', "sh", *words)
    assert done.stdout.decode() == "".join(f"{word}|" for word in words), done.stderr


@pytest.mark.parametrize("kernel", ["k1", "k2"])
def test_signals_are_forwarded(vm: Vm, kernel: str) -> None:
    script = 'trap "echo caught; exit 3" USR1; trap "echo broken; exit 4" INT; echo $$; while :; do sleep 0.1; done'
    for number, word, status in ((signal.SIGUSR1, b"caught", 3), (signal.SIGINT, b"broken", 4)):
        with vm.started("run", kernel, "--", "sh", "-c", script) as process:
            said = Pipe(process.stdout)
            pid = said.expect(b"\n").decode()
            assert "sh" in vm.sh(kernel, f"cat /proc/{pid}/comm")
            process.send_signal(number)
            said.expect(word)
            assert process.wait(PATIENCE) == status
            assert vm.sh(kernel, f"test -e /proc/{pid} || echo gone") == "gone\n"


def test_a_command_without_its_mk9p_run_ends(vm: Vm) -> None:
    """`kill -9` of mk9p run: the connection ends, so the conversation ends, and the command with it."""
    with vm.started("run", "k1", "--", "sleep", "4321") as process:
        until(lambda: vm.pids("k1", "sleep 4321"), "the command in k1")
        process.kill()
        process.wait(PATIENCE)
        until(lambda: not vm.pids("k1", "sleep 4321"), "its end in k1")
