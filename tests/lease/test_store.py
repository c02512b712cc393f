"""The embedded store: what was told survives, whatever call of the system fails or is the last; damage is put aside and told."""

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import attrs
import pytest

from mk9p.errors import NineError
from mk9p.lease.book import Lease
from mk9p.lease.store import Disk, Memory, SqliteStore
from mk9p.lease.wish import SECOND, Resource, Wish
from mk9p.testing import SOON, child, hear

ROOT = Path(__file__).parent.parent.parent


def lease(number: int = 0, token: int = 1, path: str = "/k/k1", holder: str = "ann") -> Lease:
    return Lease(Wish(number, path, ("k", "it's k1\n", ""), "shared", holder, 60 * SECOND, 7), token, 1 << 62)


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return SqliteStore(tmp_path / "s" / "leases") if request.param == "sqlite" else Memory()


def test_what_was_put_is_there_as_it_was(store: Disk) -> None:
    store.put(lease())
    store.put(lease(1, 2, "/k/ü '"))
    store.put(lease(1, 2, "/k/ü '", "bob"))
    book = store.load()
    assert book.leases == {0: lease(), 1: lease(1, 2, "/k/ü '", "bob")}
    assert book.token == 2
    store.drop(1)
    store.drop(5)
    assert list(store.load().leases) == [0]
    assert store.load().token == 2, "a token is never given twice"
    store.enter("a", "ann", "a x 'y z'")
    store.enter("b", "ann", "b")
    store.remove("b")
    assert store.entries() == {"a": ("ann", "a x 'y z'")}
    store.close()


def test_it_is_there_again_and_one_process_has_it(tmp_path: Path) -> None:
    path = tmp_path / "s" / "leases"
    store = SqliteStore(path)
    store.put(lease())
    with pytest.raises(NineError, match="another composer has it") as caught:
        SqliteStore(path)
    assert caught.value.errno == errno.EBUSY
    store.close()
    again = SqliteStore(path)
    assert again.load().leases == {0: lease()}
    again.close()
    for name in os.listdir(path.parent):
        assert (path.parent / name).stat().st_mode & 0o077 == 0, name


def test_leases_and_entries_are_written_at_the_same_time(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s" / "leases")

    def leases() -> None:
        for number in range(200):
            store.put(lease(number % 9, number + 1))

    def entries() -> None:
        for number in range(200):
            store.enter(f"n{number % 9}", "ann", "n a 1")

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(leases), threads.submit(entries)]:
            done.result()
    assert (store.load().token, len(store.entries())) == (200, 9)
    store.close()


def test_where_others_can_read_it_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s" / "leases"
    SqliteStore(path).close()
    path.chmod(0o644)
    with pytest.raises(PermissionError, match="others can read it"):
        SqliteStore(path)


def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s" / "leases"
    SqliteStore(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 3")
    db.close()
    before = path.read_bytes()
    with pytest.raises(NineError, match="is of version 3, and this mk9p knows 2") as caught:
        SqliteStore(path)
    assert caught.value.errno == errno.EINVAL
    assert path.read_bytes() == before
    assert not [name for name in os.listdir(path.parent) if "damaged" in name]


def test_a_store_of_the_first_version_is_brought_to_this_one(tmp_path: Path) -> None:
    path = tmp_path / "s" / "leases"
    store = SqliteStore(path)
    store.put(lease(1, 5, "/k/k1"))
    store.close()
    db = sqlite3.connect(path)
    db.executescript("ALTER TABLE lease DROP COLUMN more; PRAGMA user_version = 1")
    db.close()
    store = SqliteStore(path)
    old, new = lease(1, 5, "/k/k1"), lease(2, 6, "/k/k2")
    more = (Resource("/k/k3/a b", ("k3", "a b")), Resource("/k/k3/'", ("k3", "'")))
    new = attrs.evolve(new, wish=attrs.evolve(new.wish, more=more))
    store.put(new)
    store.close()
    store = SqliteStore(path)
    assert store.load().leases == {1: old, 2: new}
    store.close()


@pytest.mark.parametrize("damage", ["text", "zeros", "cut", "page", "other", "mode", "token"])
def test_a_damaged_one_is_put_aside_and_told_and_tokens_still_grow(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s" / "leases"
    store = SqliteStore(path)
    for number in range(200):
        store.put(lease(number, number + 1, "/k/" + "x" * 200))
    store.close()
    data = path.read_bytes()
    if damage == "text":
        path.write_text("these are no leases\n" * 500)
    elif damage == "zeros":
        path.write_bytes(bytes(len(data)))
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "page":
        path.write_bytes(data[:4096] + Random(1).randbytes(4096) + data[8192:])
    else:
        db = sqlite3.connect(path)
        if damage == "other":
            db.executescript("DROP TABLE lease; DROP TABLE last; DROP TABLE entry; CREATE TABLE x (y)")
        else:
            db.execute("UPDATE lease SET mode = 'mine'" if damage == "mode" else "UPDATE last SET token = 3")
        db.commit()
        db.close()
    again = SqliteStore(path)
    book = again.load()
    assert not book.leases
    assert book.token > 200
    assert "is damaged" in caplog.text
    assert "nobody holds a lease" in caplog.text
    assert [name for name in os.listdir(path.parent) if "damaged" in name]
    again.put(lease(0, book.token + 1))
    again.close()


def test_tokens_still_grow_if_it_is_killed_just_after_a_damaged_one_was_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s" / "leases"
    store = SqliteStore(path)
    store.put(lease(0, 200))
    store.close()
    path.write_text("these are no leases\n" * 500)

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("mk9p.lease.store.log.error", kill)
        with pytest.raises(Killed):
            SqliteStore(path)
    again = SqliteStore(path)
    assert again.load().token > 200
    again.close()


def test_after_each_call_of_the_system_that_fails_or_is_the_last_it_has_what_was_told(tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    library = tmp_path / "faults.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, Path(__file__).with_name("faults.c"), "-ldl"], check=True
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.lease.faulty", str(tmp_path / "stores")],
        env={**os.environ, "LD_PRELOAD": str(library)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=10 * SOON,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["killed", "EIO", "ENOSPC"]


KILLED = """
import sys
from mk9p.lease.store import SqliteStore
from tests.lease.test_store import lease
from pathlib import Path
store = SqliteStore(Path(sys.argv[1]))
token = store.load().token
while True:
    token += 1
    store.put(lease(token % 50, token))
    print(token, flush=True)
"""


def test_one_that_is_killed_at_any_moment_has_what_it_told(tmp_path: Path) -> None:
    path, random, told = tmp_path / "s" / "leases", Random(4), 0
    for _ in range(12):
        with child([sys.executable, "-c", KILLED, str(path)], "", stdout=subprocess.PIPE, cwd=ROOT) as process:
            for _ in range(random.randrange(1, 40)):
                told = int(hear(process, ""))
            process.send_signal(signal.SIGKILL)
            assert process.stdout is not None
            told = max([told, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
            process.wait(SOON)
        store = SqliteStore(path)
        book = store.load()
        assert told <= book.token <= told + 1
        assert book.leases[book.token % 50].token == book.token
        store.close()
