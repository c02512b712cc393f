"""A FUSE mount of a server that says what it may not: what is odd is shown as well as it can be or is an error of its own, and all else goes on."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mk9p.clients import mount
from tests.clients.mounting import Place, place

NUMBERS = [
    "before",
    "bits",
    "blksize",
    "blksize0",
    "blocks",
    "device",
    "first",
    "kind",
    "last",
    "links",
    "nokind",
    "nolinks",
    "nsec",
    "owner",
    "plain",
    "size",
]


@pytest.fixture(scope="module", params=["none", "mmap"])
def odd(request: pytest.FixtureRequest) -> Iterator[Place]:
    with place() as made:
        made.serve(str(Path(__file__).with_name("odd_server.py")))
        made.mount("--cache", request.param)
        yield made
        mount.umount(str(made.dir))


@pytest.fixture(autouse=True)
def _goes_on(odd: Place) -> Iterator[None]:
    yield
    assert odd.out("cat plain; ls sub") == "helloplain\n"
    assert len(odd.processes()) == 1


def test_absurd_numbers_hide_no_directory(odd: Place) -> None:
    assert odd.out("ls numbers").split() == NUMBERS
    assert len(odd.out("ls -lin numbers").splitlines()) == len(NUMBERS) + 1
    for name in NUMBERS:
        found = os.stat(odd.dir / "numbers" / name)
        assert 512 <= found.st_blksize <= 1 << 24
        assert found.st_mtime_ns % 10**9 >= 0
    stats = {name: os.stat(odd.dir / "numbers" / name) for name in NUMBERS}
    assert stats["size"].st_size == (1 << 63) - 1
    assert stats["before"].st_mtime_ns // 10**9 == -10
    assert stats["before"].st_atime_ns // 10**9 == -1
    assert stats["first"].st_mtime < stats["before"].st_mtime < 0 < stats["plain"].st_mtime < stats["last"].st_mtime
    assert stats["kind"].st_mode == stats["plain"].st_mode == stats["nokind"].st_mode == 0o100644
    assert stats["nolinks"].st_nlink == 0


def test_names_that_are_none_hide_no_directory(odd: Place) -> None:
    assert odd.out("ls names") == "ok\n"


def test_files_of_one_number_are_not_each_other(odd: Place) -> None:
    for _ in range(2):
        assert odd.out("cat same/one same/two same/one") == "I am one\nI am two\nI am one\n"
        assert odd.out("ls same/d1 same/d2 same/d1").split() == [
            "same/d1:",
            "in1",
            "same/d1:",
            "in1",
            "same/d2:",
            "in2",
        ]
        assert odd.out("cd same/d1; ls; ls ../d2; ls; cd ../d2; ls").split() == ["in1", "in2", "in1", "in2"]
    with open(odd.dir / "same/one") as one, open(odd.dir / "same/two") as two:
        assert (one.read(), two.read()) == ("I am one\n", "I am two\n")
    first, second, third, fourth = odd.out("stat -c %i same/one same/two same/hard1 same/hard2").split()
    assert first != second
    assert third == fourth, "two names of one file"


def test_a_directory_inside_itself_ends(odd: Place) -> None:
    assert odd.sh("cd loop/loop2/again/loop2/again/loop2 2>/dev/null; ls; cat ../../plain").returncode is not None
    odd.sh("find loop -maxdepth 5; stat loop loop/loop2/again; ls -R loop | head -n 50")


@pytest.mark.parametrize("name", ["nosys", "inner", "zero", "most", "big"])
def test_an_errno_is_an_answer_and_no_more(odd: Place, name: str) -> None:
    assert odd.sh(f"cat refused/{name}").returncode == 1
    assert odd.sh(f"echo > refused/{name}").returncode == 1
    assert odd.sh(f"mkdir refused/new; ln plain refused/new; mv plain refused/{name}; sync refused/{name}").returncode


def test_replies_that_say_more_than_was_asked(odd: Place) -> None:
    odd.sh("head -c 100000 replies/more | wc -c")
    assert odd.sh("echo > replies/wmore").returncode is not None
    assert "Input/output error" in odd.error("echo > replies/wzero")
    for name in ("long", "nullink"):
        assert odd.sh(f"readlink replies/{name}").returncode == 1
        odd.sh(f"cat replies/{name}; ls -l replies")


def test_a_file_that_turns_into_a_directory(odd: Place) -> None:
    for _ in range(5):
        odd.sh("stat replies/turns; ls -l replies/turns; cat replies/turns; cd replies/turns")


def test_a_listed_file_that_is_gone_hides_no_directory(odd: Place) -> None:
    assert odd.out("ls missing; ls repeated | sort -u") == "plain\nplain\n"


def test_a_server_that_hangs_up_is_dialled_again(odd: Place) -> None:
    assert "Input/output error" in odd.error("stat replies/ends")


def test_a_file_system_of_any_size(odd: Place) -> None:
    odd.sh("df .; stat -f .; df -i .")
