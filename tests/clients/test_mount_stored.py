"""Stored files, of a stranger (diod), mounted by FUSE: what made-up trees refuse, and the page cache."""

import os
from collections.abc import Iterator

import pytest

from mk9p.clients import mount
from mk9p.testing import child, until_true
from tests.clients.mounting import Place, place
from tests.interop.peers import program


@pytest.fixture(params=["none", "loose"])
def stored(request: pytest.FixtureRequest) -> Iterator[Place]:
    diod = program("diod", "diod")
    with place() as made:
        export = made.top / "export"
        export.mkdir()
        made.address = f"unix!{made.top}/s"
        words = ["-f", "-n", "-c", "/dev/null", "-L", str(made.top / "log"), "-e", str(export), "-l", f"{made.top}/s"]
        with child([diod, *words]):
            until_true(lambda: (made.top / "s").exists())
            made.mount("--aname", str(export), "--cache", request.param)
            yield made
            mount.umount(str(made.dir))


def test_files_are_made_changed_and_removed(stored: Place) -> None:
    stored.out("mkdir -p a/b; echo one > a/f; echo two >> a/f; cp a/f a/b/g; mv a/b a/c; ln -s f a/link; ln a/f a/hard")
    assert (stored.top / "export/a/f").read_text() == "one\ntwo\n"
    assert stored.out("ls a a/c; cat a/c/g a/link a/hard; readlink a/link") == (
        "a:\nc\nf\nhard\nlink\n\na/c:\ng\none\ntwo\none\ntwo\none\ntwo\nf\n"
    )
    stored.out("chmod 640 a/f; touch -d @1000000 a/f; truncate -s 5 a/f; sed -i s/one/1/ a/c/g")
    assert stored.out("stat -c '%a %s %h' a/f; cat a/f a/c/g") == "640 5 2\none\nt1\ntwo\n"
    assert "File exists" in stored.error("mkdir a")
    assert "Directory not empty" in stored.error("rmdir a")
    assert "No such file" in stored.error("cat nothing")
    stored.out("mkfifo a/pipe; rm -r a; mkdir again; df . > /dev/null")
    assert os.listdir(stored.top / "export") == ["again"]


def test_long_files_come_whole(stored: Place) -> None:
    data = os.urandom(5_000_001)
    (stored.top / "there").write_bytes(data)
    stored.out("cp $T/there copy; cmp copy $T/there; dd if=copy of=second bs=1M 2>/dev/null; sync second")
    assert (stored.top / "export/copy").read_bytes() == data
    assert (stored.top / "export/second").read_bytes() == data
    assert stored.out("dd if=copy bs=1M count=1 2>/dev/null | wc -c") == "1048576\n"


def test_a_changed_file_is_seen(stored: Place) -> None:
    (stored.top / "export/f").write_text("one\n")
    assert stored.out("cat f") == "one\n"
    (stored.top / "export/f").write_text("another\n")
    assert stored.out("cat f") == "another\n"


def test_many_files(stored: Place) -> None:
    for number in range(1000):
        (stored.top / "export" / f"f{number}").touch()
    assert stored.out("ls | wc -l; find . -name 'f99*' | wc -l") == "1000\n11\n"
    stored.out("rm f*")
    assert os.listdir(stored.top / "export") == []
