"""Status of stored files through a FUSE mount: what stat(2) tells, what who may change, and how files are opened."""

import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from mk9p.clients import mount
from tests.clients.mount_tree import NOBODY
from tests.clients.mounting import Place, exported, mk9p


@pytest.fixture(scope="module", params=["none", "mmap"])
def there(request: pytest.FixtureRequest) -> Iterator[Place]:
    with exported("--cache", request.param) as made:
        yield made


@pytest.fixture(autouse=True)
def _afresh(there: Place) -> Iterator[None]:
    yield
    there.out("find . -mindepth 1 -delete")


def test_blocks_are_those_of_the_file(there: Place) -> None:
    there.out("truncate -s 1G sparse; head -c 10000 /dev/zero > full; sync full")
    host, here = (there.out(f"du -k {top}/sparse {top}/full | cut -f1") for top in ("$T/export", "."))
    assert host == here
    assert here.split()[0] == "0"


def test_root_gets_into_a_directory_of_mode_0(there: Place) -> None:
    there.out("mkdir -m 0 zero; cd zero; echo 1 > f; ls; test -r . -a -w . -a -x .")
    assert "Permission denied" in there.error("cd zero", user=NOBODY)
    assert "Permission denied" in there.error("ls zero", user=NOBODY)
    assert "Permission denied" in there.error("cat zero/f", user=NOBODY)
    assert there.sh("test -r zero || test -w zero || test -x zero", user=NOBODY).returncode == 1


def test_what_the_server_allows_is_allowed(there: Place) -> None:
    there.out("mkdir d; echo 1 > d/f; chmod 700 d; chmod 600 d/f")
    for name, bits in (("d", 5), ("d/f", 4)):
        entries = [(1, 7, -1), (2, bits, NOBODY), (4, 0, -1), (0x10, bits, -1), (0x20, 0, -1)]  # acl(5): tag, bits, uid
        value = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
        os.setxattr(there.top / "export" / name, "system.posix_acl_access", value)
    assert there.out("cd d; ls; test -r f; cat f; test -r .", user=NOBODY) == "f\n1\n"
    assert there.sh("test -w d/f", user=NOBODY).returncode == 1


def test_access_tells_what_may_be_done(there: Place) -> None:
    there.out("echo 1 > f; chmod 604 f; cp f g; chmod 711 g; mkdir -m 711 d; mkdir -m 744 e")
    asked = "for f in f g d e; do for m in r w x; do test -$m $f && echo -n $m; done; echo; done"
    assert there.out(asked) == "rw\nrwx\nrwx\nrwx\n"
    assert there.out(asked, user=NOBODY) == "r\nx\nx\nr\n"


def test_who_may_write_may_touch(there: Place) -> None:
    there.out("echo 1 > f; chmod 666 f; touch -d @1000 f")
    there.out("touch f", user=NOBODY)
    assert os.stat(there.top / "export/f").st_mtime > 1_000_000_000
    assert "Operation not permitted" in there.error("touch -d @1000 f", user=NOBODY)
    assert "Operation not permitted" in there.error("touch -a -d @1000 f", user=NOBODY)
    there.out("chmod 644 f; touch -d @1000 f")
    assert "Permission denied" in there.error("touch f", user=NOBODY)
    assert os.stat(there.top / "export/f").st_mtime == 1000
    there.out("chmod 666 f")
    there.out("echo 2 > f; echo 3 >> f", user=NOBODY)
    assert (there.top / "export/f").read_text() == "2\n3\n"


def test_who_may_write_may_write_to_a_setuid_file_and_it_is_one_no_more(there: Place) -> None:
    there.out("echo 1 > f; chmod 6777 f")
    there.out("echo 2 > f", user=NOBODY)
    there.out("echo 3 >> f", user=NOBODY)
    assert (there.top / "export/f").read_text() == "2\n3\n"
    assert os.stat(there.top / "export/f").st_mode & 0o6000 == 0
    assert os.stat(there.dir / "f").st_mode & 0o7777 == 0o777


def test_a_directory_that_may_be_read_and_not_searched_is_listed(there: Place) -> None:
    there.out("mkdir d; echo 1 > d/f; chmod 744 d")
    assert there.sh("ls d", user=NOBODY).stdout == "f\n"
    assert "Permission denied" in there.error("cat d/f", user=NOBODY)
    assert "Permission denied" in there.error("cd d", user=NOBODY)


def test_a_pipe_joins_those_who_use_the_mount(there: Place) -> None:
    assert there.out("mkfifo p; echo through > p & cat p; stat -c %F p") == "through\nfifo\n"


def test_a_time_that_is_given_is_kept(there: Place) -> None:
    there.out("echo 1 > f; cp -p f g; touch -r f h; touch -d '2024-02-03 04:05:06.789012345' i")
    for name in "fghi":
        here, host = os.stat(there.dir / name), os.stat(there.top / "export" / name)
        assert (here.st_mtime_ns, here.st_atime_ns, here.st_ctime_ns) == (
            host.st_mtime_ns,
            host.st_atime_ns,
            host.st_ctime_ns,
        )
    assert len({os.stat(there.dir / name).st_mtime_ns for name in "fgh"}) == 1
    assert os.stat(there.dir / "i").st_mtime_ns % 10**9 == 789012345


@pytest.mark.parametrize("seconds", [-315000000, -86400, -1, 0, 1 << 31, 1 << 33])
def test_times_before_1970_are_times(there: Place, seconds: int) -> None:
    (there.top / "export/old").touch()
    os.utime(there.top / "export/old", (seconds, seconds))
    assert there.out("ls; stat -c '%X %Y' old") == f"old\n{seconds} {seconds}\n"
    there.out(f"touch -d @{seconds} new; : > half")
    os.utime(there.dir / "half", ns=(0, seconds * 10**9 + 5 * 10**8))
    assert os.stat(there.top / "export/new").st_mtime == seconds
    assert os.stat(there.top / "export/half").st_mtime_ns == seconds * 10**9 + 5 * 10**8
    assert os.stat(there.dir / "half").st_mtime_ns == seconds * 10**9 + 5 * 10**8


def test_modes_are_those_that_were_asked_for(there: Place) -> None:
    source = there.top / "source"
    source.write_text("1")
    source.chmod(0o754)
    there.out(
        "cp $T/source a; cp -p $T/source b; install -m 640 $T/source c; mkdir -m 2775 d; mkdir -m 1777 e;"
        "umask 077; cp $T/source g; mkdir h; umask 0; : > i; mkdir j; chmod 4755 b"
    )
    modes = {name: oct(os.stat(there.top / "export" / name).st_mode & 0o7777)[2:] for name in "abcdeghij"}
    assert modes == {
        "a": "754", "b": "4755", "c": "640", "d": "2775", "e": "1777", "g": "700", "h": "700", "i": "666", "j": "777",
    }  # fmt: skip
    assert {name: oct(os.stat(there.dir / name).st_mode & 0o7777)[2:] for name in "abcdeghij"} == modes


def test_a_file_that_was_just_made_can_be_mapped(there: Place) -> None:
    fd = os.open(there.dir / "made", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.ftruncate(fd, 8192)
        if there.cache == "none":
            with pytest.raises(OSError, match=os.strerror(errno.ENODEV)):
                mmap.mmap(fd, 8192)
            return
        with mmap.mmap(fd, 8192) as mapped:
            mapped[4000:4200] = b"x" * 200
            mapped.flush()
            assert os.pread(fd, 8192, 0) == bytes(4000) + b"x" * 200 + bytes(3992)
    finally:
        os.close(fd)
    assert (there.top / "export/made").read_bytes() == bytes(4000) + b"x" * 200 + bytes(3992)
    there.out(": > empty")
    fd = os.open(there.dir / "empty", os.O_RDWR)
    os.ftruncate(fd, 4096)
    with mmap.mmap(fd, 4096) as mapped:
        mapped[:3] = b"abc"
    os.close(fd)
    assert (there.top / "export/empty").read_bytes()[:3] == b"abc"


def test_locks_hold_within_one_mount_and_that_is_said(there: Place) -> None:
    second = there.top / "second"
    second.mkdir(exist_ok=True)
    done = mk9p("mount", "--fuse", "--aname", "fs/export", there.address, str(second))
    try:
        assert done.stderr == f"mk9p mount: note: {mount.LOCKS}\n"
        there.out("echo 1 > f")
        with open(there.dir / "f", "r+") as one, open(there.dir / "f", "r+") as two, open(second / "f", "r+") as three:
            fcntl.flock(one, fcntl.LOCK_EX)
            with pytest.raises(BlockingIOError):
                fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(three, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        mount.umount(str(second))


def test_a_name_that_is_not_utf_8_is_refused_in_words(there: Place) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EILSEQ)):
        os.mkdir(bytes(there.dir) + b"/\xff")


def test_what_another_has_written_and_closed_is_seen_by_who_opens(there: Place) -> None:
    second = there.top / "second"
    second.mkdir(exist_ok=True)
    assert (
        mk9p("mount", "--fuse", "--cache", there.cache, "--aname", "fs/export", there.address, str(second)).returncode
        == 0
    )
    try:
        for number in range(20):
            text = f"{number}" * (number // 3 + 1)
            for writer, readers in (
                (there.dir, (second, there.top / "export")),
                (second, (there.dir,)),
                (there.top / "export", (there.dir, second)),
            ):
                (writer / "f").write_text(f"{text} by {writer}")
                for reader in (*readers, writer):
                    assert (reader / "f").read_text() == f"{text} by {writer}"
                    assert (reader / "f").stat().st_size == len(f"{text} by {writer}")
    finally:
        mount.umount(str(second))


def read_from(there: Place) -> int:
    """Return how many bytes the server has sent in answer to reads, about."""
    rows = [line.split() for line in mk9p("-a", there.address, "cat", "stats/messages").stdout.splitlines()]
    return sum(int(row[4]) for row in rows if row[0] == "read")


def test_contents_are_kept_while_nobody_changes_them(there: Place) -> None:
    size = 300_000
    (there.top / "export/f").write_bytes(bytes(size))
    fetched = []
    for before in ("true", "true", "true", "printf 1 >> ../export/f"):
        there.out(before)
        sent = read_from(there)
        there.out("cat f > /dev/null")
        fetched.append(read_from(there) - sent > size)
    assert fetched == [True, there.cache == "none", there.cache == "none", True]


def test_extended_attributes_are_passed_on_where_they_are_asked_for(there: Place) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
        os.getxattr(there.dir, "user.a")
    with exported("--xattr", "--cache", there.cache) as other:
        file, host = other.dir / "f", other.top / "export/f"
        file.write_text("1")
        os.setxattr(file, "user.a", b"value")
        os.setxattr(host, "user.b", bytes(3000))
        assert os.getxattr(host, "user.a") == b"value"
        assert os.getxattr(file, "user.b") == bytes(3000)
        assert sorted(os.listxattr(file)) == ["user.a", "user.b"]
        with pytest.raises(FileExistsError):
            os.setxattr(file, "user.a", b"", os.XATTR_CREATE)
        with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
            os.setxattr(file, "user.c", b"x", os.XATTR_REPLACE)
        os.removexattr(file, "user.a")
        assert os.listxattr(host) == ["user.b"]
        file.write_text("2")
        assert host.read_text() == "2"
        os.setxattr(host, "trusted.t", b"1")
        assert "Operation not permitted" in other.error(
            'python3 -c \'import os; os.setxattr("f", "trusted.t", b"")\'', user=NOBODY
        )
