"""What a guest sees of this machine, and as whom its emulator runs."""

from __future__ import annotations

import pwd
import sys
from pathlib import Path

from mk9p.servers.kernels import emulator


def test_a_user_of_its_own_is_nobody_elses_and_always_the_same() -> None:
    numbers = {name: emulator.user(name) for name in ("k1", "k2", "usb", "net")}
    assert len(set(numbers.values())) == len(numbers)
    assert numbers == {name: emulator.user(name) for name in numbers}
    assert not set(numbers.values()) & {entry.pw_uid for entry in pwd.getpwall()}
    assert all(number in emulator.USERS for number in numbers.values())


def test_only_the_outermost_of_some_paths_are_laid() -> None:
    assert emulator.outermost(["/usr/lib", "/usr", "/srv/a/b", "/srv/a", "/srv/ab"]) == ["/srv/a", "/srv/ab", "/usr"]


def test_programs_are_shown_and_nobodys_home_is(tmp_path: Path) -> None:
    shown = emulator.shown(tmp_path)
    assert str(tmp_path) in shown
    assert "/usr" in shown
    assert any(Path(sys.prefix).is_relative_to(path) for path in shown)
    assert not {"/", "/root", "/home", "/etc", "/run", "/var", "/proc", "/dev"} & set(shown)
