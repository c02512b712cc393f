"""Synchronous Python on a served tree: what fsspec promises, on stored files (a server of real ones) and on made-up ones.

The server runs in a process of its own, so that nothing of its loop can help the client's.
"""

import csv
import errno
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mk9p.testing import SOON, until_true
from tests.clients.stored_tree import serving_stored

pytest.importorskip("fsspec", reason="fsspec is not installed")

import fsspec  # type: ignore[import-untyped]

from mk9p.clients.fsspec import NineFileSystem
from mk9p.errors import NineError


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the tree of stored_tree.py, and give where."""
    with serving_stored(tmp_path_factory.mktemp("served")) as where:
        yield where


@pytest.fixture
def fs(address: str) -> Iterator[Any]:
    fs = fsspec.filesystem("9p", address=address, skip_instance_cache=True)
    if fs.exists("/top/files"):
        fs.rm("/top/files", recursive=True)
    fs.mkdir("/top/files")
    yield fs
    fs.close()


def url(address: str, path: str) -> str:
    return "9p+unix://" + address.removeprefix("unix!").replace("/", "%2F") + path


def test_urls(address: str) -> None:
    assert fsspec.get_filesystem_class("9p") is NineFileSystem
    assert fsspec.get_filesystem_class("9p+unix") is NineFileSystem
    assert fsspec.get_filesystem_class("p9") is NineFileSystem
    for given, kwargs, path in (
        ("9p://box/k/k0", {"address": "tcp!box!564"}, "/k/k0"),
        ("9p://glenda@box:5640/", {"address": "tcp!box!5640", "uname": "glenda"}, "/"),
        ("9p://[::1]:564//a/./b/", {"address": "tcp!::1!564"}, "/a/b"),
        ("9p+unix://%2Frun%2Fmk9p%2Fns/a#b?c", {"address": "unix!/run/mk9p/ns"}, "/a#b?c"),
        ("p9+unix://%2Frun%2Fmk9p%2Fns/a", {"address": "unix!/run/mk9p/ns"}, "/a"),
        ("p9://host/a", {"address": "tcp!host!564"}, "/a"),
        ("9p:///x", {}, "/x"),
        ("x/y", {}, "/x/y"),
    ):
        assert (NineFileSystem._get_kwargs_from_urls(given), NineFileSystem._strip_protocol(given)) == (kwargs, path)
    for address, whole in (
        ("tcp!::1!564", "9p://[::1]:564/a"),
        ("tcp!box", "9p://box:564/a"),
        ("unix!/run/mk9p/ns", "9p+unix://%2Frun%2Fmk9p%2Fns/a"),
        ("exec!cat", "9p:///a"),
    ):
        fs = NineFileSystem(address, skip_instance_cache=True)
        assert fs.unstrip_protocol("a") == whole


def test_open_by_url(fs: Any, address: str) -> None:
    with fsspec.open(url(address, "/top/files/table.csv"), "w", newline="") as file:
        csv.writer(file).writerows([["name", "n"], ["a", 1], ["b", 2]])
    with fsspec.open(url(address, "/top/files/table.csv"), "r", newline="") as file:
        assert list(csv.DictReader(file)) == [{"name": "a", "n": "1"}, {"name": "b", "n": "2"}]
    with fsspec.open(url(address, "/top/files/z.gz"), "wb", compression="gzip") as file:
        file.write(b"x" * 100_000)
    with fsspec.open(url(address, "/top/files/z.gz"), compression="infer") as file:
        assert file.read() == b"x" * 100_000
    assert [each.path for each in fsspec.open_files(url(address, "/top/files/*"))] == [
        "/top/files/table.csv",
        "/top/files/z.gz",
    ]
    with fsspec.open("9p:///text", address=address) as file:
        assert file.read() == b"made up\n"


def test_pandas_reads_and_writes(fs: Any, address: str) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame({"a": range(1000), "b": [f"x{n}" for n in range(1000)]})
    where = url(address, "/top/files/table.csv").replace("9p+unix", "p9+unix")
    table.to_csv(where, index=False)
    assert fs.size("/top/files/table.csv") > 1000
    assert pandas.read_csv(where).equals(table)
    options = {"address": address}
    assert pandas.read_csv("p9:///top/files/table.csv", storage_options=options).equals(table)


def test_blocks_of_a_stored_file(fs: Any) -> None:
    data = os.urandom(3_000_000)
    with fs.open("/top/files/big", "wb") as file:
        for at in range(0, len(data), 70_001):
            file.write(data[at : at + 70_001])
    assert fs.size("/top/files/big") == len(data)
    reads_before = int(fs.cat_file("/reads"))
    with fs.open("/top/files/big", block_size=65536) as file:
        assert file.seek(1_000_000) == 1_000_000
        assert file.read(10) == data[1_000_000:1_000_010]
        assert file.read(10) == data[1_000_010:1_000_020]
        file.seek(-5, os.SEEK_END)
        assert file.read() == data[-5:]
    assert int(fs.cat_file("/reads")) - reads_before <= 2  # the second read of a block asked nobody
    assert fs.cat_file("/top/files/big") == data
    assert fs.cat_file("/top/files/big", 5, 2_000_005) == data[5:2_000_005]
    assert fs.cat_file("/top/files/big", start=-3) == data[-3:]
    assert fs.cat_file("/top/files/big", 7, 7) == b""
    assert fs.head("/top/files/big", 4) == data[:4]
    assert fs.cat_ranges(["/top/files/big"] * 2, [0, 10], [2, 12]) == [data[:2], data[10:12]]
    with fs.open("/top/files/big", cache_type="none") as file:
        assert file.read(3) == data[:3]


def test_made_up_files(fs: Any) -> None:
    assert fs.info("/text")["size"] == 0
    with fs.open("/text") as file:
        assert file.read() == b"made up\n"
    assert fs.cat_file("/text", 1, 4) == b"ade"
    assert fs.cat_file("/text", -3) == b"up\n"
    assert fs.cat(["/text", "/reads"])["/text"] == b"made up\n"
    with fs.open("/ctl", "w") as file:
        print("add 2", file=file)
        print("add 3", file=file)
        assert fs.cat_file("/added") == b"[]\n"  # both go in one write, when the file is closed
    fs.pipe_file("/ctl", b"add 1\n")
    assert fs.cat_file("/added") == b"[2, 3, 1]\n"
    with pytest.raises(NineError, match="usage: add N"), fs.open("/ctl", "w") as file:
        file.write("add two\n")
    with pytest.raises(NineError, match="usage: add N"):
        fs.pipe_file("/ctl", b"add two\n")


def test_writing(fs: Any) -> None:
    with fs.open("/top/files/f", "wb") as file:
        file.write(b"0123")
        file.flush()
        assert fs.cat_file("/top/files/f") == b"0123"
        file.write(b"456")
    with fs.open("/top/files/f", "ab") as file:
        assert file.tell() == 7
        file.write(b"789")
    with fs.open("/top/files/f", "r+b") as file:
        file.seek(2)
        file.write(b"xx")
        file.seek(0)
        assert file.read() == b"01xx456789"
        file.truncate(5)
    assert fs.cat_file("/top/files/f") == b"01xx4"
    with pytest.raises(FileExistsError):
        fs.open("/top/files/f", "xb")
    with pytest.raises(FileExistsError):
        fs.pipe_file("/top/files/f", b"", mode="create")
    fs.pipe_file("/top/files/new", b"made", mode="create")
    assert fs.cat_file("/top/files/new") == b"made"
    with pytest.raises(NotImplementedError), fs.transaction:
        fs.open("/top/files/f", "wb")


def test_names(fs: Any, tmp_path: Path) -> None:
    fs.makedirs("/top/files/a/b/c")
    fs.makedirs("/top/files/a/b", exist_ok=True)
    with pytest.raises(FileExistsError):
        fs.makedirs("/top/files/a/b")
    for name in ("one.txt", "two.txt", "three.bin"):
        fs.pipe_file(f"/top/files/a/{name}", name.encode())
    fs.pipe_file("/top/files/a/b/deep.txt", b"deep")
    assert fs.ls("/top/files/a", detail=False) == [
        "/top/files/a/b",
        "/top/files/a/one.txt",
        "/top/files/a/three.bin",
        "/top/files/a/two.txt",
    ]
    assert {each["name"]: each["type"] for each in fs.ls("/top/files/a")}["/top/files/a/b"] == "directory"
    assert fs.ls("/top/files/a/one.txt", detail=False) == ["/top/files/a/one.txt"]
    assert fs.glob("/top/files/a/*.txt") == ["/top/files/a/one.txt", "/top/files/a/two.txt"]
    assert fs.glob("/top/files/**/*.txt") == ["/top/files/a/b/deep.txt", "/top/files/a/one.txt", "/top/files/a/two.txt"]
    assert [(d, sorted(f)) for d, _, f in fs.walk("/top/files/a/b")] == [
        ("/top/files/a/b", ["deep.txt"]),
        ("/top/files/a/b/c", []),
    ]
    assert fs.find("/top/files/a/b") == ["/top/files/a/b/deep.txt"]
    assert fs.du("/top/files/a") == 7 + 7 + 9 + 4
    assert fs.exists("/top/files/a/one.txt")
    assert not fs.exists("/top/files/a/no")
    assert not fs.exists("/top/files/a/one.txt/no")
    assert (fs.isfile("/top/files/a/one.txt"), fs.isdir("/top/files/a"), fs.isdir("/")) == (True, True, True)

    fs.mv("/top/files/a/one.txt", "/top/files/a/b/uno.txt")
    fs.mv("/top/files/a/b/uno.txt", "/top/files")
    assert fs.cat_file("/top/files/uno.txt") == b"one.txt"
    assert not fs.exists("/top/files/a/one.txt")
    fs.cp_file("/top/files/uno.txt", "/top/files/copy")
    assert fs.cat_file("/top/files/copy") == b"one.txt"
    fs.copy("/top/files/a", "/top/files/again", recursive=True)
    assert fs.cat_file("/top/files/again/b/deep.txt") == b"deep"
    fs.get("/top/files/a", str(tmp_path / "got"), recursive=True)
    assert (tmp_path / "got/b/deep.txt").read_bytes() == b"deep"
    fs.put(str(tmp_path / "got"), "/top/files/put", recursive=True)
    assert fs.cat_file("/top/files/put/two.txt") == b"two.txt"

    with pytest.raises(IsADirectoryError):
        fs.rm("/top/files/a")
    with pytest.raises(NineError) as full:
        fs.rmdir("/top/files/a")
    assert full.value.errno == errno.ENOTEMPTY
    with pytest.raises(NotADirectoryError):
        fs.rmdir("/top/files/copy")
    fs.rm("/top/files/a", recursive=True)
    fs.rm(["/top/files/copy", "/top/files/uno.txt"])
    assert fs.ls("/top/files", detail=False) == ["/top/files/again", "/top/files/put"]


def test_times(fs: Any) -> None:
    before = datetime.now(UTC).timestamp() - 2
    fs.touch("/top/files/t")
    assert fs.modified("/top/files/t").timestamp() >= before
    assert fs.created("/top/files/t").timestamp() >= before
    fs.pipe_file("/top/files/t", b"kept")
    fs.touch("/top/files/t", truncate=False)
    assert fs.cat_file("/top/files/t") == b"kept"
    fs.touch("/top/files/t")
    assert fs.cat_file("/top/files/t") == b""


def test_errors_are_those_of_a_local_tree(fs: Any, address: str) -> None:
    failing: tuple[tuple[type[Exception], Callable[[], object]], ...] = (
        (FileNotFoundError, lambda: fs.open("/no")),
        (FileNotFoundError, lambda: fs.cat_file("/top/files/no")),
        (FileNotFoundError, lambda: fs.info("/no/no")),
        (FileNotFoundError, lambda: fs.ls("/no")),
        (FileNotFoundError, lambda: fs.rmdir("/no")),
        (NotADirectoryError, lambda: fs.info("/text/x")),
        (IsADirectoryError, lambda: fs.open("/top/files")),
        (IsADirectoryError, lambda: fs.cat_file("/top/files")),
        (PermissionError, lambda: fs.pipe_file("/text", b"x")),
        (ValueError, lambda: fs.open("/text", "q")),
    )
    for error, do in failing:
        with pytest.raises(error):
            do()
    for path, do in (
        ("/no/no", lambda: fs.info("/no/no")),
        ("/top/files", lambda: fs.open("/top/files")),
        ("/text", lambda: fs.pipe_file("/text", b"x")),
        ("/no", lambda: fs.rmdir("/no")),
        ("/top/files", lambda: fs.rm_file("/top/files")),
    ):
        with pytest.raises(NineError) as caught:
            do()
        again = pickle.loads(pickle.dumps(caught.value))
        assert (caught.value.filename, str(again)) == (path, f"{caught.value.strerror}: '{path}'")
    nobody = NineFileSystem(f"{address}-nobody", skip_instance_cache=True)
    with pytest.raises(FileNotFoundError, match="-nobody: "):
        nobody.ls("/")
    with pytest.raises(FileNotFoundError, match="-nobody"):
        nobody.exists("/x")  # that there is no server is no answer to whether there is a file


def test_many_threads_and_a_lost_connection(fs: Any) -> None:
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(fs.cat_file("/text"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"made up\n"] * 20
    held = fs.open("/top/files/held", "wb")
    fs.close()
    assert fs.cat_file("/text") == b"made up\n"
    held.write(b"x")
    with pytest.raises(OSError, match="gone"):
        held.close()


def test_threads_that_need_the_same_directories(fs: Any) -> None:
    """As pyarrow writes a data set of partitions: a directory that all of them need is made by one, and is in nobody's way."""
    start = threading.Barrier(8)
    failed: list[OSError] = []

    def make(n: int) -> None:
        for turn in range(10):
            start.wait(SOON)
            try:
                fs.mkdir(f"/top/files/set{turn}/below/part{n}")
            except OSError as error:
                failed.append(error)

    threads = [threading.Thread(target=make, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(fs.glob("/top/files/set*/below/part*")) == 80


def test_an_interrupted_read_is_flushed(fs: Any, address: str) -> None:
    """A Ctrl-C must not leave a reader at the server; in a process of its own, where the signal is the terminal's."""
    assert fs.cat_file("/waiting") == b"0\n"
    program = f"import fsspec; fsspec.filesystem('9p', address={address!r}).cat_file('/wait')"
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    until_true(lambda: fs.cat_file("/waiting") == b"1\n")
    process.send_signal(2)
    _, said = process.communicate(timeout=SOON)
    assert b"KeyboardInterrupt" in said
    until_true(lambda: fs.cat_file("/waiting") == b"0\n")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # of Python 3.12 on
def test_a_forked_child_dials_for_itself(fs: Any) -> None:
    assert fs.cat_file("/text") == b"made up\n"
    code = os.fork()
    if not code:
        try:
            os._exit(0 if fs.cat_file("/text") == b"made up\n" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(code, 0)[1]) == 0
    assert fs.cat_file("/text") == b"made up\n"
