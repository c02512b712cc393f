"""`mount -t mk9p` and a line of /etc/fstab: mount(8) itself runs `mount.mk9p`, in a mount namespace of the test's own."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mk9p.clients.mount_helper import chosen, main
from mk9p.clients.mount_options import words
from mk9p.testing import child
from tests.clients.mounting import need_fuse

HELPER = f"{Path(sys.executable).parent}/mount.mk9p"


def test_the_options_of_mount_8_become_those_of_mk9p_mount() -> None:
    given = (
        "ro,noexec,nosuid,nodev,_netdev,user,nofail,x-systemd.automount,cache=mmap,uname=glenda,aname=k/k1,msize=8192"
    )
    taken = ["--readonly", "--noexec", "--cache", "mmap", "--user", "glenda", "--aname", "k/k1", "--msize", "8192"]
    assert words(given) == taken
    assert words("defaults,rw,noatime,user=glenda") == []


@pytest.mark.parametrize("option", ["cach=mmap", "trans=tcp", "ro=1", "cache="])
def test_an_unknown_option_is_refused_in_one_line_and_passed_over_where_mount_8_says_so(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["unix!/s", "/n", "-o", option]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"mount.mk9p: unknown option {option!r}; there are: ro ")
    assert said.count("\n") == 1
    assert words(option, sloppy=True) == []


@pytest.mark.parametrize("option", ["suid", "dev"])
def test_rights_of_another_machine_s_files_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match="nosuid and nodev"):
        words(option, sloppy=True)


def test_what_mount_8_gives_is_understood() -> None:
    assert chosen(["unix!/s", "/n", "-v", "-o", "ro", "-o", "v9fs"]) == (
        "unix!/s",
        "/n",
        ["--readonly", "--v9fs", "-v"],
        True,
    )
    assert chosen(["unix!/s", "/n", "-fn", "-t", "mk9p.x"]) == ("unix!/s", "/n", [], False)


@pytest.mark.parametrize(
    "arguments", [[], ["unix!/s"], ["a", "b", "c"], ["unix!/s", "/n", "-o"], ["unix!/s", "/n", "-x"]]
)
def test_wrong_use_is_one_line_with_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "usage: mount.mk9p ADDR DIR" in said
    assert said.count("\n") == 1


@pytest.fixture
def open_path() -> Iterator[Path]:
    """Give a directory that every user can come to."""
    with TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def address(open_path: Path) -> Iterator[str]:
    need_fuse()
    where = f"unix!{open_path}/s"
    with child([sys.executable, "-m", "mk9p", "serve", "-l", where, "cpu"], "listening on"):
        yield where


def in_own_namespace(script: str, place: Path) -> subprocess.CompletedProcess[str]:
    """Run a script where /sbin has the helper too; $T is a directory for it. Its mounts end with it."""
    prepared = f"""
    set -e
    mount -t tmpfs own "$T/m"; mkdir "$T/m/up" "$T/m/work" "$T/m/n"
    mount -t overlay -o lowerdir=/usr/sbin,upperdir="$T/m/up",workdir="$T/m/work" sbin /usr/sbin
    ln -s {shlex.quote(HELPER)} /usr/sbin/mount.mk9p
    export LIBMOUNT_FSTAB="$T/fstab" LC_ALL=C
    """
    (place / "m").mkdir()
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", prepared + script]
    return subprocess.run(
        command,
        env={"PATH": "/usr/sbin:/usr/bin", "T": str(place)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_mount_8_mounts_by_hand_and_unmounts(address: str, open_path: Path) -> None:
    done = in_own_namespace(
        f"""
        mount -t mk9p -o ro,fuse '{address}' "$T/m/n"
        cat "$T/m/n/cpu/status"
        grep "$T/m/n" /proc/mounts
        umount "$T/m/n"; ! grep "$T/m/n" /proc/mounts
        """,
        open_path,
    )
    assert done.returncode == 0, done.stderr
    assert "online" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(address)]
    assert " fuse.mk9p ro,nosuid,nodev" in line


def test_a_line_of_fstab_mounts_once(address: str, open_path: Path) -> None:
    (open_path / "fstab").write_text(
        f"{address} {open_path}/m/n mk9p noauto,_netdev,x-systemd.automount,noexec,fuse 0 0\n"
    )
    done = in_own_namespace(
        'mount -a; ! grep "$T/m/n" /proc/mounts; mount "$T/m/n"; mount "$T/m/n"; grep -c "$T/m/n.*noexec" /proc/mounts',
        open_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1\n"


def test_fstab_lets_a_user_mount_who_is_not_root(address: str, open_path: Path) -> None:
    if not Path("/etc/fstab").exists():
        pytest.skip("mount(8) takes no other fstab for users")
    (open_path / "fstab").write_text(f"{address} {open_path}/m/n mk9p noauto,user,aname=cpu 0 0\n")
    (open_path / "s").chmod(0o666)
    done = in_own_namespace(
        """
        mount --bind "$T/fstab" /etc/fstab; chown 65534:65534 "$T/m/n"
        mknod "$T/fuse" c 10 229; chmod 666 "$T/fuse"; mount --bind "$T/fuse" /dev/fuse
        as="setpriv --reuid=65534 --regid=65534 --clear-groups"
        $as mount "$T/m/n"
        $as cat "$T/m/n/status"
        grep "$T/m/n fuse.mk9p" /proc/mounts
        $as umount "$T/m/n"
        """,
        open_path,
    )
    assert done.returncode == 0, done.stderr
    assert "online" in done.stdout
    assert "nosuid,nodev,noexec" in done.stdout
    assert "user_id=65534" in done.stdout


def test_a_server_that_is_not_there_is_one_line_and_status_32(tmp_path: Path) -> None:
    need_fuse()
    done = in_own_namespace("mount -t mk9p -o fuse 'unix!/nonexistent/s' \"$T/m/n\"", tmp_path)
    assert done.returncode == 32
    assert done.stderr == "mount.mk9p: unix!/nonexistent/s: no such socket: is its server running?\n"
