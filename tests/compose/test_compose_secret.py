"""The secret of inode numbers: kept for the next start, by nobody else, or not kept, and then a line says so."""

import os
import stat
from pathlib import Path
from threading import Thread

import pytest

from mk9p import state
from mk9p.compose import secret
from mk9p.compose.remote import Remote, Server
from mk9p.tree import qids


def test_the_secret_outlives_its_maker_and_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    first = secret.kept()
    assert len(first) == secret.SIZE
    assert secret.kept() == first
    assert os.listdir(tmp_path / "mk9p") == ["qids"]
    assert stat.S_IMODE((tmp_path / "mk9p/qids").stat().st_mode) == 0o600
    assert secret.kept(tmp_path / "other") != first
    assert not caplog.records


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert state.directory() == Path("/var/lib/mk9p")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state.directory() == tmp_path / ".local/state/mk9p"


@pytest.mark.parametrize("wrong", ["open", "short", "long", "link", "fifo", "theirs"])
def test_a_secret_that_others_may_know_is_none(
    tmp_path: Path, wrong: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "qids"
    known = {"short": b"x" * 31, "long": b"x" * 33}.get(wrong, b"x" * 32)
    if wrong == "fifo":
        os.mkfifo(path, 0o600)
    else:
        path.write_bytes(known)
        path.chmod(0o640 if wrong == "open" else 0o600)
    if wrong == "link":
        path.rename(tmp_path / "else")
        path.symlink_to("else")
    if wrong == "theirs":
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    made = {secret.kept(tmp_path), secret.kept(tmp_path)}
    assert len(made) == 2, "a new one each time"
    assert known not in made
    assert "inode numbers will change" in caplog.text


def test_a_secret_that_cannot_be_kept_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert len(secret.kept(tmp_path / "file/below")) == secret.SIZE
    assert "inode numbers will change" in caplog.text


def test_two_that_start_at_once_have_one_secret(tmp_path: Path) -> None:
    found: list[bytes] = []
    threads = [Thread(target=lambda: found.append(secret.kept(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert os.listdir(tmp_path) == ["qids"]


def server(address: str, key: bytes) -> Server:
    return Server(address, None, secret=key)  # type: ignore[arg-type]


def test_paths_are_the_same_for_the_same_server_and_secret_alone() -> None:
    one = server("tcp!a!1", b"k" * 32).paths
    assert one[7] == server("tcp!a!1", b"k" * 32).paths[7]
    others = [server("tcp!b!1", b"k" * 32).paths[7], server("tcp!a!1", b"l" * 32).paths[7], one[8]]
    assert len({one[7], *others}) == 4


def test_no_path_of_a_server_is_one_of_a_place_nor_to_be_had_from_others() -> None:
    one = server("tcp!a!1", b"k" * 32).paths
    known = {path: one[path] for path in (0, 1, 2, 3, 1 << 63, (1 << 64) - 1, *range(1000, 2000))}
    assert all(mapped < qids.PLACE for mapped in known.values())
    assert all(path >= qids.PLACE for path in (qids.ROOT, qids.child(qids.ROOT, "ctl"), qids.child(7, "x")))
    # Linear maps give one path away by others: that of 1 by those of 0, 2 and 3, for an exclusive or.
    assert known[0] ^ known[2] ^ known[3] != known[1]
    assert known[2] - known[1] != known[3] - known[2]


def test_what_was_mapped_is_not_kept_without_bound() -> None:
    one = server("tcp!a!1", b"k" * 32).paths
    first = one[0]
    for path in range(3 * qids.KEPT):
        assert one[path] < qids.PLACE
        assert len(one) <= qids.KEPT
    assert one[0] == first


def test_a_remote_says_the_mapped_path() -> None:
    from mk9p.auth import ROOT
    from mk9p.wire import Qid

    far = server("tcp!a!1", b"k" * 32)
    assert Remote(far, ROOT, far.tree(ROOT), "x", Qid(0, 0, 1)).path == far.paths[1]
    assert Remote(far, ROOT).path is None
