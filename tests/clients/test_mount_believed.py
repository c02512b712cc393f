"""What the kernel believes of a FUSE mount for a second, and what it must not: a second mount and the host change the files meanwhile."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mk9p.clients import mount
from tests.clients.mount_tree import NOBODY
from tests.clients.mounting import Place, exported, mk9p


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    """One mount, as it is without any word, and a second one of the same tree."""
    with exported() as made:
        second = made.top / "second"
        second.mkdir()
        assert mk9p("mount", "--fuse", "--aname", "fs/export", made.address, str(second)).returncode == 0
        yield made
        mount.umount(str(second), lazy=True)


@pytest.fixture(autouse=True)
def _afresh(there: Place) -> Iterator[None]:
    yield
    there.out("find . -mindepth 1 -delete")


def known(there: Place) -> None:
    """Have the kernel know all that is there."""
    there.out("find . -ls; cat $(find . -type f) /dev/null")


WHO = {"the host": "export", "another mount": "second"}


@pytest.mark.parametrize("who", WHO)
def test_who_opens_a_name_gets_the_file_that_it_leads_to_now(there: Place, who: str) -> None:
    other = there.top / WHO[who]
    for n in range(5):
        there.out(f"mkdir -p d; echo old{n} > d/f")
        known(there)
        (other / "new").write_text(f"new{n}\n")
        os.rename(other / "new", other / "d/f")
        assert (there.dir / "d/f").read_text() == f"new{n}\n"
        assert (there.dir / "d/f").stat().st_ino == os.stat(there.dir / "d/f").st_ino
        os.unlink(other / "d/f")
        with pytest.raises(FileNotFoundError):
            open(there.dir / "d/f").close()


@pytest.mark.parametrize("who", WHO)
def test_who_opens_below_a_directory_that_was_replaced_gets_what_is_there_now(there: Place, who: str) -> None:
    other = there.top / WHO[who]
    there.out("mkdir -p p/q; echo old > p/q/f; echo both > p/q/g")
    known(there)
    os.rename(other / "p", other / "pp")
    (other / "p/q").mkdir(parents=True)
    (other / "p/q/f").write_text("new\n")
    (other / "p/q/more").write_text("more\n")
    assert (there.dir / "p/q/f").read_text() == "new\n"
    assert (there.dir / "p/q/more").read_text() == "more\n"
    with pytest.raises(FileNotFoundError):
        open(there.dir / "p/q/g").close()
    assert sorted(os.listdir(there.dir / "p/q")) == ["f", "more"]


@pytest.mark.parametrize("who", WHO)
def test_what_is_changed_by_name_is_what_the_name_leads_to_now(there: Place, who: str) -> None:
    other = there.top / WHO[who]
    for change in (
        "rm p/f",
        "chmod 600 p/f",
        "truncate -s 1 p/f",
        ": > p/f",
        "mkdir p/d",
        "mv p/f p/h",
        "ln p/f p/h",
        "echo > p/n",
        "touch -d @5 p/f",
        "rmdir p/e",
        "ln -s f p/l",
    ):
        there.out("mkdir -p p/e; echo old > p/f; chmod 644 p/f")
        known(there)
        before = os.stat(there.top / "export/p/f")
        os.rename(other / "p", other / "pp")
        (other / "p/e").mkdir(parents=True)
        (other / "p/f").write_text("new\n")
        there.out(change)
        kept = os.stat(there.top / "export/pp/f")
        assert sorted(os.listdir(there.top / "export/pp")) == ["e", "f"], change
        assert (kept.st_size, kept.st_mode, kept.st_nlink) == (4, before.st_mode, 1), change
        there.out("rm -r p pp")


def test_status_is_believed_for_a_second_and_asked_for_by_who_opens(there: Place) -> None:
    there.out("echo old > f")
    known(there)
    assert os.stat(there.dir / "f").st_size == 4
    (there.top / "export/f").write_text("longer\n")
    with open(there.dir / "f") as file:
        assert os.fstat(file.fileno()).st_size == 7
        assert file.read() == "longer\n"
    os.stat(there.dir / "f")
    (there.top / "export/f").write_text("")
    time.sleep(1.2)
    assert os.stat(there.dir / "f").st_size == 0


def test_what_was_made_meanwhile_is_listed(there: Place) -> None:
    for n in range(20):
        (there.top / ("export", "second", "mnt")[n % 3] / f"f{n}").touch()
        assert len(os.listdir(there.dir)) == n + 1
    there.out("mkdir d; touch d/a")
    time.sleep(1.2)
    for _ in range(3):  # its time is of long ago: names are kept
        assert os.listdir(there.dir / "d") == ["a"]
    (there.top / "export/d/b").touch()
    assert sorted(os.listdir(there.dir / "d")) == ["a", "b"]
    os.unlink(there.dir / "d/a")
    assert os.listdir(there.dir / "d") == ["b"]


def test_a_listing_shows_what_was_written_here_just_now(there: Place) -> None:
    there.out("mkdir d; echo 1 > d/f")
    time.sleep(1.2)
    known(there)
    for size in range(2, 20):
        with open(there.dir / "d/f", "a") as file:
            file.write("x")
        with os.scandir(there.dir / "d") as entries:
            assert [entry.stat(follow_symlinks=False).st_size for entry in entries] == [size + 1]


def test_nobody_comes_to_a_status_through_a_directory_that_is_closed_to_them(there: Place) -> None:
    there.out("mkdir -m 700 closed; echo 1 > closed/f; mkdir -p d/e; echo 1 > d/e/f")
    known(there)
    assert "Permission denied" in there.error("stat closed/f", user=NOBODY)
    there.out("stat d/e/f", user=NOBODY)
    there.out("chmod 700 d")
    assert "Permission denied" in there.error("stat d/e/f", user=NOBODY)
    assert "Permission denied" in there.error("cat d/e/f", user=NOBODY)
    assert there.out("stat -c %s d/e/f") == "2\n"


def test_what_was_read_at_opening_is_not_shown_after_a_write(there: Place) -> None:
    (there.top / "export/f").write_text("old\n")
    known(there)
    (there.top / "export/f").write_text("new\n")
    with open(there.dir / "f", "rb", buffering=0) as reader, open(there.dir / "f", "r+b", buffering=0) as writer:
        writer.write(b"N")
        assert reader.read() == b"New\n"


def test_when_nobody_replaces_a_file_any_more_everybody_gets_the_last(there: Place) -> None:
    def replace(text: str) -> None:
        (there.top / "export/new").write_text(text)
        os.rename(there.top / "export/new", there.top / "export/f")

    def write() -> None:
        for n in range(300):
            replace(f"{n:04}")

    replace("first")
    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        with suppress(OSError):  # ESTALE, if it was replaced between looking up and opening, twice
            (there.dir / "f").read_text()
    writer.join()
    assert (there.dir / "f").read_text() == "0299"


def test_contents_that_changed_under_the_same_times_and_length_are_read_again(there: Place) -> None:
    file = there.top / "export/f"
    file.write_text("old\n")
    known(there)
    time.sleep(1.1)  # the status is not believed any more, the contents are
    times = file.stat()
    file.write_text("new\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as `cp -p`, rsync and tar do
    assert (there.dir / "f").read_text() == "new\n"


def test_a_file_that_is_opened_by_its_descriptor_is_that_file(there: Place) -> None:
    there.out("echo old > f")
    known(there)
    with open(there.dir / "f", "rb") as file:
        (there.top / "export/new").write_text("new\n")
        os.rename(there.top / "export/new", there.top / "export/f")
        with open(f"/proc/self/fd/{file.fileno()}", "rb") as again:
            assert again.read() == b"old\n"
        os.fchmod(file.fileno(), 0o600)
        with open(f"/proc/self/fd/{file.fileno()}", "wb"):
            pass
        assert os.fstat(file.fileno()).st_size == 0
    assert (there.top / "export/f").read_text() == "new\n"
    assert os.stat(there.top / "export/f").st_mode & 0o777 == 0o644


def test_without_a_cache_nothing_is_believed() -> None:
    with exported("--cache", "none") as made:
        made.out("mkdir p; echo old > p/f; ls -l p")
        (made.top / "export/p/f").write_text("longer\n")
        assert os.stat(made.dir / "p/f").st_size == 7
        os.unlink(made.top / "export/p/f")
        with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
            os.stat(made.dir / "p/f")


def test_status_of_an_open_file_is_that_file_s(there: Place) -> None:
    there.out("echo old > f")
    known(there)
    with open(there.dir / "f") as file:
        known(there)
        (there.top / "export/f").write_text("longer\n")
        with open(there.dir / "f"):  # the kernel is told of it
            assert os.fstat(file.fileno()).st_size == os.stat(there.dir / "f").st_size == 7
        time.sleep(1.2)
        os.rename(there.top / "export/f", there.top / "export/g")
        (there.top / "export/f").write_text("")
        assert os.fstat(file.fileno()).st_size == 7
