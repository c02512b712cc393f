"""The kernel's small files: what is there, what is not, what it will not say."""

import errno
import os
import threading
from pathlib import Path

import pytest
import trio

from mk9p.sysfs import link, names, put, refused, settable, text, threaded
from mk9p.tree.words import word


def test_text_is_without_blanks_around(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(" two words \n\n")
    assert text(f"{tmp_path}/file") == "two words"


def test_what_is_not_there_or_says_nothing_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for name in ("none", "none/below", "empty", "empty/below", "."):
        assert text(f"{tmp_path}/{name}") == ""
        assert text(f"{tmp_path}/{name}", "-") == "-"


def test_text_of_any_length_is_whole(tmp_path: Path) -> None:
    for size in (4095, 4096, 4097, 300_000):
        (tmp_path / "file").write_text("x" * size)
        assert text(f"{tmp_path}/file") == "x" * size


def test_text_is_read_from_the_real_kernel_in_its_pieces() -> None:
    assert text("/proc/self/status").startswith("Name:")
    said = text("/proc/self/smaps").splitlines()
    assert len(said) > 500
    assert said[-1].startswith("VmFlags:")


def test_bytes_that_are_no_utf8_are_shown_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\xffb\n")
    assert text(f"{tmp_path}/file") == "a\ufffdb"


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    before = os.listdir("/proc/self/fd")
    text(f"{tmp_path}")
    text(f"{tmp_path}/file")
    put(f"{tmp_path}/file", "y")
    with pytest.raises(OSError, match="No space"):
        put("/dev/full", "y")
    assert os.listdir("/proc/self/fd") == before


def test_put_replaces_and_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a longer one")
    put(f"{tmp_path}/file", "b")
    assert (tmp_path / "file").read_text() == "b"
    with pytest.raises(FileNotFoundError):
        put(f"{tmp_path}/none", "b")
    assert names(str(tmp_path)) == ["file"]


def test_put_is_one_write(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        put(str(fifo), "1 2\n3")
        assert os.read(reader, 100) == b"1 2\n3"
    finally:
        os.close(reader)


def test_put_raises_what_the_kernel_says() -> None:
    with pytest.raises(OSError, match="No space left") as raised:
        put("/dev/full", "x")
    assert raised.value.errno == errno.ENOSPC


def test_names(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").mkdir()
    assert sorted(names(str(tmp_path))) == ["a", "b"]
    assert names(f"{tmp_path}/none") == names(f"{tmp_path}/a") == []


def test_link(tmp_path: Path) -> None:
    (tmp_path / "driver").symlink_to("../../bus/pci/drivers/virtio-pci")
    assert link(f"{tmp_path}/driver") == "virtio-pci"
    assert link(f"{tmp_path}/none") == "-"
    assert link(f"{tmp_path}/none", "") == ""
    assert link(str(tmp_path)) == "-"


def test_settable(tmp_path: Path) -> None:
    for name, mode in (("b", 0o644), ("a", 0o200), ("c", 0o444)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    (tmp_path / "d").mkdir()
    assert settable(str(tmp_path)) == ["a", "b"]
    assert settable(f"{tmp_path}/none") == settable(f"{tmp_path}/a") == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "it cannot be 5: this needs root or CAP_DAC_OVERRIDE"),
        (errno.EPERM, "it cannot be 5: the kernel does not permit it, or only with CAP_SYS_ADMIN"),
        (errno.EROFS, "it cannot be 5: /sys is read-only here, as in a container"),
        (errno.ENODEV, "it cannot be 5: it is gone"),
        (errno.EINVAL, "it cannot be 5: Invalid argument"),
    ],
)
def test_a_refusal_says_what_and_why(number: int, words: str) -> None:
    error = refused(OSError(number, "x"), "it cannot be 5")
    assert (error.errno, str(error)) == (number, words)


async def test_a_threaded_function_has_its_signature_and_is_left_when_it_is_cancelled() -> None:
    began, go = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    class Slow:
        def limit(self, name: str, uw: int = 0) -> str:
            if name == "wait":
                token.run_sync_soon(began.set)
                assert go.wait(60)
            return f"{name} {uw} {threading.current_thread() is threading.main_thread()}"

    threads = trio.CapacityLimiter(1)
    limit = threaded(Slow().limit, threads)
    assert word("limit", limit).usage == "limit NAME [UW]"
    assert await limit("a", 5) == "a 5 False"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(limit, "wait")
        await began.wait()
        nursery.cancel_scope.cancel()
    assert threads.borrowed_tokens == 1  # until it comes back
    go.set()
    assert await limit("b") == "b 0 False"


async def test_what_a_threaded_function_raises_is_raised() -> None:
    with pytest.raises(FileNotFoundError):
        await threaded(put, trio.CapacityLimiter(1))("/none/such", "1")
