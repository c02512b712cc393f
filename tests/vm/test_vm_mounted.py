"""The namespace mounted with v9fs in a guest: one kernel sees and steers another through files, and what waits there ends when it is told to."""

import signal

import pytest

from tests.vm.lab_vm import PATIENCE, Pipe, Vm, until


def test_all_kernels_processes_in_one_directory(vm: Vm, mounted: str) -> None:
    """`ps` by cat: some processes end while it looks, which is no error of the others."""
    with vm.started("run", "k1", "--", "sleep", "1234") as sleeper:
        pid = until(lambda: vm.pids("k1", "sleep 1234"), "the process in k1")[0]
        text = vm.sh(
            "k2", f"cd {mounted}; for k in k0 k1 k2; do ls all/proc | grep -c ^$k; done; cat all/proc/*/status; :"
        )
        counts, statuses = text.splitlines()[:3], text.splitlines()[3:]
        assert all(int(count) > 3 for count in counts), counts
        assert any(line.split()[:1] == ["sleep"] for line in statuses)
        assert "sleep 1234" in vm.sh("k2", f"cat {mounted}/all/proc/k1.{pid}/args").replace("'", "")
        assert sleeper.poll() is None


def test_a_process_of_k1_is_ended_from_k2(vm: Vm, mounted: str) -> None:
    with vm.started("run", "k1", "--", "sleep", "1000") as process:
        pid = until(lambda: vm.pids("k1", "sleep 1000"), "the process in k1")[0]
        vm.sh("k2", f"echo kill > {mounted}/k/k1/proc/{pid}/ctl")
        assert process.wait(PATIENCE) == 128 + signal.SIGKILL
        assert vm.pids("k1", "sleep 1000") == []
        assert "No such file" in vm.sh("k2", f"cat {mounted}/k/k1/proc/{pid}/status 2>&1; :")


def open_logs(vm: Vm) -> int:
    """Return how often k1's server has its kernel's log open, as k1's own /proc has it."""
    return int(vm.sh("k1", "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c '[/]dev/kmsg'; :"))


def test_the_log_streams_and_ctrl_c_frees_everything(vm: Vm, mounted: str) -> None:
    before = open_logs(vm)
    for turn in range(3):
        with vm.started("run", "k2", "--", "cat", f"{mounted}/k/k1/dev/kmsg") as process:
            said = Pipe(process.stdout)
            for part in range(2):
                vm.sh("k1", f"echo marker {turn}.{part} >/dev/kmsg")
                said.expect(f"marker {turn}.{part}".encode())
                assert process.poll() is None  # it came while the cat went on
            assert open_logs(vm) == before + 1
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 128 + signal.SIGINT
        until(lambda: open_logs(vm) == before, "the end of the stream in k1's server")
    assert vm.pids("k2", "cat /mnt") == []  # none is stuck in the kernel


def test_a_command_by_hand(vm: Vm, mounted: str) -> None:
    """The idiom of clone, in a shell of k2, on k1: the conversation lives while the shell has its ctl open."""
    script = f"""cd {mounted}/k/k1/cmd
        exec 3<>clone; read n <&3
        echo exec cat /proc/sys/kernel/hostname >&3
        cat $n/data; cat $n/wait; ls | grep -c "^$n$"
        exec 3>&-; ls | grep -c "^$n$"; :"""
    name, wait, during, after = vm.sh("k2", f"bash -c '{script}'").splitlines()
    assert name == vm.sh("k1", "cat /proc/sys/kernel/hostname").strip()
    assert "exit 0" in wait or wait.endswith("''")
    assert (during, after) == ("1", "0")


def test_cpu_and_error_by_files(vm: Vm, mounted: str) -> None:
    text = vm.sh(
        "k2",
        f"cd {mounted}/k/k1/cpu; (echo offline 0 > ctl) 2>&1; cat error; echo offline 1 > ctl; cat error; grep ^1 status",
    )
    try:
        assert "Operation not permitted" in text
        assert "CPU 0 cannot be taken offline" in text
        assert "1 offline" in text
        assert vm.sh("k1", "cat /sys/devices/system/cpu/online") == "0\n"
    finally:
        vm.sh("k2", f"echo online 1 > {mounted}/k/k1/cpu/ctl")
    assert vm.sh("k1", "cat /sys/devices/system/cpu/online") == "0-1\n"


def test_unmount_and_mount_again(vm: Vm) -> None:
    """A second mount in another kernel, over its tty: it goes with umount, and the line serves the next one."""
    before = vm.lab.log.read_text()
    for turn in range(2):
        vm.mount("k1", "/mnt/n")
        assert vm.sh("k1", "ls /mnt/n/k").split()[:3] == ["k0", "k1", "k2"]
        name = vm.sh("k1", "cat /mnt/n/k/k2/status | grep ^name")
        assert name == "name k2\n", turn
        vm.sh("k1", "umount /mnt/n")
    assert "9p" not in vm.sh("k1", "grep /mnt/n /proc/mounts; :")
    # the line is there since the boot, and may wait for its mount for ever
    assert "refused" not in vm.lab.log.read_text()[len(before) :]


@pytest.mark.parametrize("kernel", ["k0", "k1", "k2"])
def test_the_kernels_own_words_come_through(vm: Vm, mounted: str, kernel: str) -> None:
    release = vm.sh(kernel, "uname -r").strip()
    assert f"release {release}\n" in vm.sh("k2", f"cat {mounted}/k/{kernel}/status")
