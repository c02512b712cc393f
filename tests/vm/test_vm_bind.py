"""A directory of one kernel in the namespace of all: mounted by another with v9fs, bound over a path, in unions, and taken away again.

Each kernel here serves its own /srv, and each is the owner once and the one that mounts once: k1 is reached over a virtio port, through the
composer's own nodes, and mounts through a relay; k2 is reached over tcp, by the composer's fast way. What is done through the mount is looked for in
the owner's own directory. The lab is one of its own.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from tests.vm.lab_vm import ALL, PATIENCE, Pipe, Vm, lab_up, short_folder

N = "/mnt/n"
WRITTEN = 64  # MiB that k1 writes through its mount
SERVE = ["host", "cmd", "fs:/srv"]


@pytest.fixture(scope="module")
def lab(guests: None) -> Iterator[Vm]:
    kernels: dict[str, dict[str, Any]] = {
        "k1": {"backend": "qemu", "kernel": "6.1", "memory": "768M", "trust": "on", "serve": SERVE, **ALL},
        "k2": {"backend": "uml", "kernel": "uml", "memory": "512M", "trust": "on", "serve": SERVE, **ALL},
    }
    with short_folder() as home, lab_up(home, kernels) as vm:
        for kernel in kernels:
            vm.sh(kernel, "mkdir -p /srv/home/sub /srv/base /srv/other")
            vm.mount(kernel, N, attributes=True)
        yield vm


@attrs.frozen
class Pair:
    """Whose directory it is, and who has the namespace mounted."""

    vm: Vm
    owner: str
    other: str

    @property
    def home(self) -> str:
        return f"/k/{self.owner}/fs/srv/home"

    def own(self, script: str) -> str:
        """Run a script in the owner's directory, where it really is."""
        return self.vm.sh(self.owner, f"cd /srv/home; {script}")

    def there(self, script: str) -> str:
        """Run a script at the top of the mount."""
        return self.vm.sh(self.other, f"cd {N}; {script}")

    def fails(self, script: str) -> str:
        """Run a command that must fail, and return what it said."""
        return self.there(f"({script}) 2>&1 && echo SUCCEEDED || :")

    def ctl(self, *commands: str) -> None:
        for command in commands:
            self.vm.write("ctl", command)


@pytest.fixture(params=["k1", pytest.param("k2", marks=pytest.mark.minutes)])
def pair(lab: Vm, request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(lab, request.param, "k2" if request.param == "k1" else "k1")
    before = lab.cat("ns")
    lab.sh(pair.owner, "cd /srv; rm -rf ./*; mkdir -p home/sub; echo hello >home/file; echo deep >home/sub/deep")
    lab.sh(
        pair.other, "rm -rf /srv/*; mkdir -p /srv/base /srv/over; echo base >/srv/base/base; echo mine >/srv/over/mine"
    )
    yield pair
    for line in lab.cat("ns").splitlines():
        if line not in before.splitlines():
            lab.mk9p("write", "ctl", f"unmount {line.split()[-1]}")
    assert lab.cat("ns") == before


def test_a_directory_is_bound_and_given_back(pair: Pair) -> None:
    """Over a name that was not there, and over a directory of the other kernel's, which is seen again afterwards."""
    over = f"/k/{pair.other}/fs/srv/over"
    table, top = pair.vm.cat("ns"), pair.there("ls")
    pair.ctl(f"bind {pair.home} /home", f"bind -c {pair.home} {over}")
    assert (
        pair.there("ls; cat home/file; cat home/sub/deep")
        == "".join(sorted([*top.splitlines(True), "home\n"])) + "hello\ndeep\n"
    )
    assert pair.there(f"ls .{over}; cat .{over}/file") == "file\nsub\nhello\n"
    assert pair.vm.sh(pair.other, "ls /srv/over") == "mine\n"  # its own directory is what it was
    pair.there(
        f"echo new >.{over}/made; mkdir .{over}/d; echo more >>home/file; mv .{over}/made home/sub/moved; ln -s file .{over}/link"
    )
    assert pair.own("ls; cat file sub/moved; readlink link") == "d\nfile\nlink\nsub\nhello\nmore\nnew\nfile\n"
    assert pair.there("cat home/link; stat -c '%s %h' home/file") == "hello\nmore\n11 1\n"
    pair.there("rm home/sub/moved; rmdir home/d; rm home/link")
    assert pair.own("ls . sub") == ".:\nfile\nsub\n\nsub:\ndeep\n"
    pair.ctl("unmount /home", f"unmount {over}")
    assert (pair.vm.cat("ns"), pair.there("ls")) == (table, top)
    assert pair.there(f"cat .{over}/mine") == "mine\n"
    assert "No such file or directory" in pair.fails("ls home")


def test_who_is_in_a_bound_directory_stays_there(pair: Pair) -> None:
    pair.ctl(f"bind {pair.home} /home")
    script = f"cd home/sub; exec 3<deep; echo unmount /home >{N}/ctl; cat <&3; cat deep; ls ..; echo more >deep"
    assert pair.there(script) == "deep\ndeep\nfile\nsub\n"
    assert pair.own("cat sub/deep") == "more\n"
    assert "No such file or directory" in pair.fails("ls home")


def test_a_union_with_a_part_that_takes_new_files(pair: Pair) -> None:
    """The other's /srv/base comes first and takes none; the owner's /srv/home does."""
    pair.ctl(f"bind /k/{pair.other}/fs/srv/base /u", f"bind -ac {pair.home} /u")
    assert pair.there("ls u; cat u/base u/file") == "base\nfile\nsub\nbase\nhello\n"
    pair.there(
        "echo one >u/made; mkdir u/dir; echo two >u/dir/in; touch u/empty; mv u/made u/named; mv u/named u/dir/named; mv u/dir/named u/back"
    )
    assert pair.own("ls; cat back dir/in; ls dir") == "back\ndir\nempty\nfile\nsub\none\ntwo\nin\n"
    assert pair.vm.sh(pair.other, "ls /srv/base") == "base\n"
    pair.there("rm u/back u/empty; rm -r u/dir; echo changed >u/base; ln u/file u/second; chmod 600 u/file")
    assert pair.own("ls; stat -c '%a %h' file") == "file\nsecond\nsub\n600 2\n"
    assert pair.vm.sh(pair.other, "cat /srv/base/base") == "changed\n"
    assert pair.there("ls u") == "base\nfile\nsecond\nsub\n"
    # what the first part has is seen, and uncovers the later when it goes
    pair.own("echo hidden >base")
    assert pair.there("cat u/base; rm u/base; cat u/base") == "changed\nhidden\n"
    pair.ctl(f"unmount {pair.home} /u")
    assert pair.there("ls u") == ""
    pair.ctl("unmount /u")
    assert pair.own("ls") == "base\nfile\nsecond\nsub\n"


RENAME = """
import errno, os, sys
for pair in sys.argv[1:]:
    try:
        os.rename(*pair.split(':'))
        print('ok')
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def test_what_a_union_refuses(pair: Pair) -> None:
    pair.vm.sh(pair.other, "mkdir /srv/base/in")
    pair.ctl(f"bind /k/{pair.other}/fs/srv/base /u", f"bind -a {pair.home} /u")
    for change in ("echo x >u/new", "mkdir u/new", "ln -s x u/new", "mv u/sub/deep u/new"):
        assert re.search(r"Operation not permitted$", pair.fails(change)), change
    pair.ctl(f"bind -ac {pair.home} /u")
    for change in ("rmdir u", "mv u v"):  # the bound path itself
        assert "Device or resource busy" in pair.fails(change), change
    renames = (
        "u/file:u/in/file u/base:u/sub/base u/file:u/base u/file:k/ctl u/file:v u/sub:u/in/sub u/sub/deep:u/in/deep"
    )
    said = pair.there(f'python3 -c "{RENAME}" {renames}').split()
    assert said == 7 * ["EXDEV"]
    # mv(1) copies then, and all is where it should be
    pair.there("mv u/file u/in/file; mv u/base u/sub/base")
    assert pair.own("ls . sub") == ".:\nsub\n\nsub:\nbase\ndeep\n"
    assert pair.vm.sh(pair.other, "ls /srv/base; cat /srv/base/in/file") == "in\nhello\n"
    pair.ctl(f"bind -r {pair.home} /r")
    for change in ("echo x >r/new", "echo x >r/sub/deep", "rm r/sub/deep", "mv r/sub/deep r/x", "mv u/in/file r/sub/x"):
        assert "Read-only file system" in pair.fails(change), change
    assert pair.there("cat r/sub/deep") == "deep\n"


LOCK = """
import fcntl, sys
f = open(sys.argv[1], 'r+')
try:
    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 3, 1)
    print('got', flush=True)
    sys.stdin.read()
except BlockingIOError:
    print('busy')
"""


def test_a_lock_of_one_kernel_is_in_the_way_of_the_other(pair: Pair) -> None:
    """Taken through the mount it holds up the owner's own processes, and theirs hold up the mount's; flock(1) too."""
    pair.ctl(f"bind {pair.home} /home", f"bind -r {pair.home} /r")
    real, seen = "/srv/home/file", f"{N}/home/file"
    for holder, path, asker, asked in ((pair.other, seen, pair.owner, real), (pair.owner, real, pair.other, seen)):
        ask = f'python3 -c "{LOCK}" {asked} </dev/null'
        with pair.vm.started("run", holder, "--", "python3", "-c", LOCK, path) as process:
            Pipe(process.stdout).expect(b"got\n")
            assert pair.vm.sh(asker, ask) == "busy\n"
            process.communicate(timeout=PATIENCE)  # it ends with its input
        assert pair.vm.sh(asker, ask) == "got\n"
    flock = "flock -xn home/file sh -c 'echo got; flock -sn r/file true || echo busy'; flock -sn r/file echo free"
    assert pair.there(flock) == "got\nbusy\nfree\n"


ATTRIBUTES = """
import errno, os
name = 'trusted.note'  # tmpfs of 6.1 has no others
for path in 'home', 'home/file':
    os.setxattr(path, name, path.encode(), os.XATTR_CREATE)
for path in 'r', 'r/file', 'u/file':
    print(os.getxattr(path, name).decode(), name in os.listxattr(path))
for path in 'r', 'r/file':
    for change in (lambda: os.setxattr(path, name, b'x'), lambda: os.removexattr(path, name)):
        try:
            change()
        except OSError as error:
            print(errno.errorcode[error.errno])
"""


def test_attributes_through_binds_and_unions(pair: Pair) -> None:
    pair.ctl(
        f"bind {pair.home} /home",
        f"bind -r {pair.home} /r",
        f"bind /k/{pair.other}/fs/srv/base /u",
        f"bind -a {pair.home} /u",
    )
    assert pair.there(f'python3 -c "{ATTRIBUTES}"') == "home True\nhome/file True\nhome/file True\n" + 4 * "EROFS\n"
    show = "import os; print(os.getxattr('.', 'trusted.note'), os.getxattr('file', 'trusted.note'))"
    assert pair.own(f'python3 -c "{show}"') == "b'home' b'home/file'\n"
    pair.there("python3 -c \"import os; os.removexattr('u/file', 'trusted.note')\"")
    assert pair.own("python3 -c \"import os; print(os.listxattr('file'))\"") == "[]\n"


@pytest.mark.minutes
def test_much_is_written_from_the_emulated_kernel_and_read_again(lab: Vm) -> None:
    """Over a line that drops what its other end does not take at once, this would stand still, or come out wrong."""
    lab.sh("k2", "mkdir -p /srv/other")
    lab.write("ctl", "bind -c /k/k2/fs/srv/other /big")
    try:
        said = lab.sh(
            "k1",
            f"""set -e; cd {N}/big; dd if=/dev/urandom of=/tmp/big bs=1M count={WRITTEN} 2>/dev/null
            date +%s.%N; dd if=/tmp/big of=one bs=1M conv=fsync 2>/dev/null
            date +%s.%N; cat one >/tmp/again; date +%s.%N
            sha256sum </tmp/big; cmp /tmp/big /tmp/again
            dd if=/tmp/big of=two bs=4M 2>/dev/null & dd if=/tmp/big of=three bs=64K 2>/dev/null; wait""",
        ).splitlines()
        start, written, read = map(float, said[:3])
        print(
            f"k1 to k2, {WRITTEN} MiB: write {WRITTEN / (written - start):.1f} MiB/s, read {WRITTEN / (read - written):.1f} MiB/s"
        )
        sums = lab.sh("k2", "cd /srv/other; sha256sum one two three").splitlines()
        assert [line.split()[0] for line in sums] == [said[3].split()[0]] * 3
        assert len(said[3].split()[0]) == hashlib.sha256().digest_size * 2
    finally:
        lab.write("ctl", "unmount /big")
        lab.sh("k1", "rm -f /tmp/big /tmp/again")
        lab.sh("k2", "rm -rf /srv/other/*")
