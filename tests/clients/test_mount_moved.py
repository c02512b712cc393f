"""Directories that get other names while somebody is in them, through a FUSE mount: by the mount itself, by another one, and by the host."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mk9p.clients import mount
from mk9p.testing import SOON, until_true
from tests.clients.mounting import Place, exported, mk9p


@pytest.fixture(params=["none", "mmap"])
def there(request: pytest.FixtureRequest) -> Iterator[Place]:
    with exported("--cache", request.param) as made:
        yield made


HOW = {
    "the mount": "mv $T/mnt/p $T/mnt/pp",
    "the host": "mv $T/export/p $T/export/pp",
    "another mount": "mv $T/second/p $T/second/pp",
}


@pytest.mark.parametrize("who", HOW)
def test_work_goes_on_in_a_directory_whose_parent_was_renamed(there: Place, who: str) -> None:
    if who == "another mount":
        (there.top / "second").mkdir()
        assert mk9p("mount", "--fuse", "--aname", "fs/export", there.address, str(there.top / "second")).returncode == 0
    try:
        there.out(
            f"mkdir -p p/q; cd p/q; echo old > f; exec 5< f; {HOW[who]}; mkdir -p $T/mnt/p/q; echo another > $T/mnt/p/q/f;"
            'test "$(ls)" = f; test "$(cat f)" = old; test "$(cat <&5)" = old; : > new; mkdir d; ln f g; ln -s f l; mv g h;'
            'test "$(stat -c %s f)" = 4; echo more >> f; chmod 600 new; test "$(echo *)" = "d f h l new"'
        )
        assert sorted(os.listdir(there.top / "export/pp/q")) == ["d", "f", "h", "l", "new"]
        assert os.listdir(there.top / "export/p/q") == ["f"]
        assert there.out("cat pp/q/f p/q/f pp/q/l; stat -c %a pp/q/new") == "old\nmore\nanother\nold\nmore\n600\n"
    finally:
        if who == "another mount":
            mount.umount(str(there.top / "second"), lazy=True)


def test_a_file_that_is_open_is_the_same_file_whatever_its_name_leads_to(there: Place) -> None:
    there.out("echo old > f; echo new > g")
    with open(there.dir / "f", "r+") as file:
        number = os.fstat(file.fileno()).st_ino
        os.rename(there.top / "export/g", there.top / "export/f")
        assert there.out("cat f") == "new\n"
        assert os.stat(there.dir / "f").st_ino != number
        assert os.fstat(file.fileno()).st_ino == number
        assert file.read() == "old\n"
        os.unlink(there.dir / "f")
        assert os.fstat(file.fileno()).st_size == 4
        file.truncate(2)
        assert os.fstat(file.fileno()).st_size == 2


def test_names_of_one_file_are_one_inode(there: Place) -> None:
    assert len(set(there.out("echo 1 > a; ln a b; mkdir d; ln b d/c; stat -c %i a b d/c").split())) == 1
    assert len(set(there.out("rm a; mv b e; stat -c %i e d/c").split())) == 1
    assert there.out("du -s --inodes d e > /dev/null; stat -c %h e").split()[-1] == "2"
    number = there.out("stat -c %i d").strip()
    os.rename(there.top / "export/d", there.top / "export/dd")
    assert there.out("stat -c %i dd").strip() == number


def test_a_directory_that_comes_to_stand_below_another_is_found_there(there: Place) -> None:
    there.out(
        "mkdir -p a/b c; echo 1 > a/b/f; ls -R; cd a/b; mv $T/export/a/b $T/export/c/b; cat f; ls; cat ../../c/b/f $T/mnt/c/b/f"
    )
    there.out(
        "mkdir -p x/y/z; cd x/y/z; mv $T/mnt/x/y $T/mnt/yy; mv $T/mnt/x $T/mnt/yy/z/; pwd -P; echo 2 > g; cat $T/mnt/yy/z/g; ls x"
    )


def test_a_race_of_renames_loses_nothing(there: Place) -> None:
    (there.top / "export/p/q").mkdir(parents=True)
    (there.top / "second").mkdir()
    assert mk9p("mount", "--fuse", "--aname", "fs/export", there.address, str(there.top / "second")).returncode == 0
    over = threading.Event()

    def rename(root: str, one: str, other: str) -> None:
        while not over.is_set():
            for source, target in ((one, other), (other, one)):
                with suppress(FileNotFoundError):  # the other one has it by another name now
                    os.rename(f"{root}/{source}", f"{root}/{target}")

    racers = [
        threading.Thread(target=rename, args=(str(there.top / "export"), "p", "r")),
        threading.Thread(target=rename, args=(str(there.top / "second"), "p", "s")),
    ]
    program = """
import os, sys
for n in range(50):
    name = f"f{n}"
    with open(name, "x") as file: file.write(name)
    os.mkdir(f"d{n}")
    with open(f"d{n}/g", "x") as file: file.write(name)
    assert os.stat(name).st_size == len(name)
    assert open(name).read() == open(f"d{n}/g").read() == name
    assert len(os.listdir()) == 2 * n + 2
print("all")
"""
    try:
        with subprocess.Popen(
            [sys.executable, "-I", "-c", program],
            cwd=there.dir / "p/q",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            for racer in racers:
                racer.start()
            said = child.communicate(timeout=SOON)
        assert said == ("all\n", "")
    finally:
        over.set()
        for racer in racers:
            if racer.ident is not None:
                racer.join()
        mount.umount(str(there.top / "second"), lazy=True)


def test_a_server_that_came_back_gives_no_other_file_for_one_that_is_known(there: Place) -> None:
    there.out("mkdir -p p/q; echo old > p/q/f; mkdir kept; echo 1 > kept/f")
    with subprocess.Popen(
        ["bash", "-c", "read; cat f; read; cat f; cat ../../kept/f"],
        cwd=there.dir / "p/q",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as shell:
        assert shell.stdin is not None
        os.rename(there.top / "export/p", there.top / "export/pp")
        (there.top / "export/p/q").mkdir(parents=True)
        (there.top / "export/p/q/f").write_text("another\n")
        there.again()
        until_true(lambda: there.sh("cat mnt/kept/f", inside=False).returncode == 0)
        shell.stdin.write("\n\n")
        shell.stdin.flush()
        out, err = shell.communicate(timeout=SOON)
    assert "another" not in out
    assert err.count("Stale file handle") == 2, err
    assert there.out("cat p/q/f pp/q/f kept/f") == "another\nold\n1\n"


def test_a_directory_that_is_read_slowly_is_whole() -> None:
    with exported("--cache", "loose") as there:
        for number in range(600):
            (there.top / "export" / f"{number:0100}").touch()
        with os.scandir(there.dir) as found:
            assert next(found)
            time.sleep(1.3)  # longer than the kernel may believe what the mount asked for together
            assert len(list(found)) == 599
