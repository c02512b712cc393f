"""What a guest sees of this machine, and as whom its emulator runs."""

from __future__ import annotations

import pwd
import sys
import zlib
from pathlib import Path

import pytest

from mk9p.servers.kernels import emulator


def test_a_user_of_its_own_is_nobody_elses_and_always_the_same() -> None:
    numbers = {name: emulator.user(name) for name in ("k1", "k2", "usb", "net")}
    assert len(set(numbers.values())) == len(numbers)
    assert numbers == {name: emulator.user(name) for name in numbers}
    assert not set(numbers.values()) & {entry.pw_uid for entry in pwd.getpwall()}
    assert all(number in emulator.USERS for number in numbers.values())


def test_guests_whose_names_lead_to_one_number_have_two() -> None:
    by_number: dict[int, str] = {}
    names = (f"guest{i}" for i in range(len(emulator.USERS) + 1))
    one, other = next(
        (by_number[at], name)
        for name in names
        if by_number.setdefault(at := zlib.crc32(name.encode()) % len(emulator.USERS), name) != name
    )
    assert emulator.user(one) != emulator.user(other)
    assert emulator.user(other) == emulator.user(other)


def test_no_guest_has_the_number_of_a_user_who_runs_something(monkeypatch: pytest.MonkeyPatch) -> None:
    first = emulator.USERS[zlib.crc32(b"busy") % len(emulator.USERS)]
    monkeypatch.setattr(emulator, "_running", lambda: {first})
    assert emulator.user("busy") != first


def test_only_the_outermost_of_some_paths_are_laid() -> None:
    assert emulator.outermost(["/usr/lib", "/usr", "/srv/a/b", "/srv/a", "/srv/ab"]) == ["/srv/a", "/srv/ab", "/usr"]


def test_programs_are_shown_and_nobodys_home_is(tmp_path: Path) -> None:
    shown = emulator.shown(tmp_path)
    assert str(tmp_path) in shown
    assert "/usr" in shown
    assert any(Path(sys.prefix).is_relative_to(path) for path in shown)
    assert not {"/", "/root", "/home", "/etc", "/run", "/var", "/proc", "/dev"} & set(shown)


def test_what_the_words_of_a_device_name_is_given_and_nothing_else(tmp_path: Path) -> None:
    disk, comma = tmp_path / "disk.img", tmp_path / "a,b"
    for file in (disk, comma):
        file.touch()
    (tmp_path / "link").symlink_to(disk)
    words = [
        *("-drive", f"if=none,id=d,file={disk},format=raw", "-device", "usb-storage,drive=d"),
        *("-blockdev", f"driver=raw,node-name=n,file.driver=file,file.filename={tmp_path}/a,,b"),
        *(
            "-chardev",
            f"socket,id=c,path={tmp_path}/made,server=on,wait=off",
            "-serial",
            f"unix:{tmp_path}/other,server",
        ),
        *("-acpitable", f"file={tmp_path}/link", "-bios", f"{tmp_path}/absent", "-append", "root=/dev/vda"),
    ]
    found = emulator.Devices.of(words, "/.mk9p/run")
    assert set(found.given) == {str(disk), str(comma)}
    assert found.made == {f"{tmp_path}/made": "/.mk9p/run/device-0", f"{tmp_path}/other": "/.mk9p/run/device-1"}
    assert "socket,id=c,path=/.mk9p/run/device-0,server=on,wait=off" in found.words
    assert "unix:/.mk9p/run/device-1,server" in found.words
    assert f"driver=raw,node-name=n,file.driver=file,file.filename={tmp_path}/a,,b" in found.words
    assert f"file={disk}" in found.words
    assert (found.network, found.vfio) == (False, False)


@pytest.mark.parametrize(
    ("words", "network"),
    [
        (["-netdev", "user,id=n"], True),
        (["-nic", "user"], True),
        (["-chardev", "socket,id=c,host=10.0.0.1,port=7"], True),
        (["-serial", "tcp:10.0.0.1:7"], True),
        (["-drive", "file=nbd://10.0.0.1/x"], True),
        (["-device", "qemu-xhci", "-device", "usb-kbd"], False),
        (["-chardev", "socket,id=c,path=/run/x"], False),
        (["-cpu", "max,vendor=GenuineIntel"], False),
    ],
)
def test_the_networks_of_this_machine_are_for_those_who_name_one(words: list[str], network: bool) -> None:
    assert emulator.Devices.of(words, "/.mk9p/run").network == network


def test_a_passed_on_device_needs_more() -> None:
    found = emulator.Devices.of(["-device", "vfio-pci,host=00:14.0"], "/.mk9p/run")
    assert found.vfio
    assert "/sys" in found.given
