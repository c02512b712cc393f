"""The file commands on a tree of stored files that a process of their own serves: nothing is lost, links are followed, names do no harm."""

import errno
import itertools
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import trio

from mk9p.client import connect
from mk9p.clients import copying
from mk9p.clients.listing import when
from mk9p.clients.tail import tail
from mk9p.errors import NineError
from mk9p.testing import SOON, child, mounted, serving_at
from mk9p.tree import Block, Dir, Log, Stream, Text

ME = [sys.executable, "-m", "mk9p"]


@attrs.frozen
class Run:
    """Runs a command on the served tree: its exit status, and what it says."""

    address: str

    def __call__(self, *words: str, stdin: str = "") -> tuple[int, str]:
        command = [*ME, "-a", self.address, *words]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=SOON)
        return done.returncode, done.stdout + done.stderr

    @contextmanager
    def started(self, *words: str, stdout: int) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen([*ME, "-a", self.address, *words], stdin=subprocess.DEVNULL, stdout=stdout)
        try:
            yield process
        finally:
            process.kill()
            process.wait(SOON)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "served" / "tree").mkdir(parents=True)
    return tmp_path / "served" / "tree"


@pytest.fixture
def exported(tree: Path) -> Iterator[Run]:
    """Serve `tree` as fs/tree."""
    where = f"unix!{tree.parent / 'socket'}"
    with child([*ME, "serve", "-l", where, f"fs:{tree}"], "listening"):
        yield Run(where)


def test_a_file_copied_onto_itself_keeps_its_bytes(exported: Run, tree: Path) -> None:
    (tree / "d").mkdir()
    (tree / "f").write_text("precious")
    os.link(tree / "f", tree / "hard")
    (tree / "link").symlink_to("f")
    (tree / "d" / "up").symlink_to("../link")
    (tree / "root").symlink_to("/fs/tree/f")
    names = ["f", "./f", "d/../f", "hard", "link", "d/up", "root", "/f"]
    for source, target in [("f", name) for name in names] + list(itertools.pairwise(names)):
        told = f"mk9p cp: :fs/tree/{target}: it is the same file as its source\n"
        assert exported("cp", f":fs/tree/{source}", f":fs/tree/{target}") == (1, told)
    for words in ((":fs/tree/f", str(tree / "link")), (str(tree / "hard"), ":fs/tree/f")):
        assert exported("cp", *words) == (1, f"mk9p cp: {words[1]}: it is the same file as its source\n")
    assert (tree / "f").read_text() == "precious"


def test_an_input_that_was_read_already_is_not_written_over_itself(exported: Run, tree: Path) -> None:
    (tree / "f").write_text("precious")
    words = [*ME, "-a", exported.address, "write", "fs/tree/f"]
    with (tree / "f").open("rb") as source:
        os.lseek(source.fileno(), 3, os.SEEK_SET)
        done = subprocess.run(words, stdin=source, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "mk9p: fs/tree/f: it is the same file as its source\n")
    assert (tree / "f").read_text() == "precious"
    (tree / "g").write_text("another")
    with (tree / "f").open("rb") as source:
        os.lseek(source.fileno(), 3, os.SEEK_SET)
        subprocess.run([*words[:-1], "fs/tree/g"], stdin=source, check=True)
    assert (tree / "g").read_text() == "cious"


def test_what_has_a_longer_target_leaves_nothing_of_it(exported: Run, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("short")
    (tree / "short").write_text("short")
    for words in (
        (str(tmp_path / "short"), ":fs/tree/long"),
        (":fs/tree/short", ":fs/tree/long"),
        (":fs/tree/short", str(tree / "long")),
    ):
        (tree / "long").write_text("it was longer")
        assert exported("cp", *words) == (0, "")
        assert (tree / "long").read_text() == "short"


def test_what_cannot_be_copied_empties_nothing(exported: Run, tree: Path, tmp_path: Path) -> None:
    (tree / "dir").mkdir()
    (tree / "kept").write_text("kept")
    (tmp_path / "kept").write_text("kept")
    for words, about in {
        (":fs/tree/dir", ":fs/tree/kept"): ":fs/tree/dir",
        (":fs/tree/dir", str(tmp_path / "kept")): ":fs/tree/dir",
        (":fs/tree/dir", ":fs/tree/dir/in"): ":fs/tree/dir",
        (str(tree / "dir"), ":fs/tree/kept"): str(tree / "dir"),
    }.items():
        assert exported("cp", *words) == (1, f"mk9p cp: {about}: it is a directory: cp -r copies those\n")
    assert ((tree / "kept").read_text(), (tmp_path / "kept").read_text()) == ("kept", "kept")
    assert not list((tree / "dir").iterdir())


def test_links_are_followed_and_end_somewhere(exported: Run, tree: Path) -> None:
    (tree / "f").write_text("text\n")
    (tree / "sub").mkdir()
    (tree / "sub" / "g").write_text("below\n")
    (tree / "to").symlink_to("sub")
    (tree / "loop").symlink_to("loop")
    (tree / "new").symlink_to("sub/made")
    assert exported("cat", "fs/tree/to/g", "fs/tree/to/../f") == (0, "below\ntext\n")
    assert exported("ls", "fs/tree/to") == (0, "g\n")
    assert exported("ls", "-l", "fs/tree/to")[1].startswith("lrwxrwxrwx ")
    assert exported("cat", "fs/tree/loop") == (1, "mk9p: fs/tree/loop: Too many levels of symbolic links\n")
    assert exported("cp", ":fs/tree/f", ":fs/tree/new") == (0, "")
    assert (tree / "sub" / "made").read_text() == "text\n"


@pytest.mark.parametrize("when", [-1, -315_000_000, 1 << 40, -(1 << 40)])
def test_times_of_any_year_are_shown(exported: Run, tree: Path, when: int) -> None:
    (tree / "old").touch()
    try:
        os.utime(tree / "old", (when, when))
    except OSError:
        pytest.skip("the file system of this machine's temporary files has no such times")
    if os.stat(tree / "old").st_mtime != when:
        when = int(os.stat(tree / "old").st_mtime)
    for words in (["ls", "-l", "fs/tree"], ["stat", "fs/tree/old"], ["ls", "--json", "fs/tree"]):
        status, said = exported(*words)
        assert status == 0
        assert "Traceback" not in said


@pytest.mark.parametrize("seconds", [0, -1, -(1 << 62), 1 << 62, (1 << 64) - 1])
def test_a_time_without_a_date_is_a_number(seconds: int) -> None:
    shown = when(seconds * 1_000_000_000)
    assert shown == f"@{seconds}" or len(shown) >= 16
    assert (shown[0] == "@") == (abs(seconds) > 1 << 60)


NAMES = ["esc\x1b[31m", "cr\rx", "nl\nx", "\x9b31m", "\u202eright", "tab\t", "del\x7f"]


def test_names_do_nothing_to_a_terminal(exported: Run, tree: Path) -> None:
    for name in NAMES:
        (tree / name).mkdir()
        (tree / name / "in\x1b]0;x\x07").touch()
    for words in (["ls"], ["ls", "-l"], ["tree"], ["ls", *(f"fs/tree/{name}" for name in NAMES)]):
        status, said = exported(*words, *(["fs/tree"] if len(words) < 3 else []))
        assert status == 0
        assert all(c == "\n" or c.isprintable() for c in said)
    for name in NAMES:
        for words in (["stat", f"fs/tree/{name}"], ["cat", f"fs/tree/{name}"], ["cat", f"fs/tree/{name}/no\x1b"]):
            said = exported(*words)[1]
            assert said.count("\n") == 1
            assert said.removesuffix("\n").isprintable()
    assert set(json.loads(exported("ls", "--json", "fs/tree")[1])["fs/tree"][0]) >= {"name", "mode"}
    assert {each["name"] for each in json.loads(exported("ls", "--json", "fs/tree")[1])["fs/tree"]} == set(NAMES)


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_the_last_lines_of_a_file_of_any_length(exported: Run, tree: Path, size: int) -> None:
    lines = [b"%d %s\n" % (n, b"x" * (n % 97)) for n in range(size // 50 + 1)][: size and None]
    for content in (b"".join(lines), b"".join(lines)[:-1]):
        (tree / "log").write_bytes(content)
        for count in (1, 3, 2000):
            told = b"".join(content.splitlines(keepends=True)[-count:])
            assert exported("tail", "-n", str(count), "fs/tree/log") == (0, told.decode())


async def test_the_last_lines_of_what_is_made_up(tmp_path: Path) -> None:
    """A stream is followed after its last lines; a file ends after them."""
    log = Log()
    many = "".join(f"{n}\n" for n in range(1, 200_001))
    tree = Dir({"many": Text(many), "log": log, "records": Stream(per_open=lambda _: Records())})
    async with serving_at(f"unix!{tmp_path}/s", tree):
        for version in ("9P2000.L", "9P2000"):
            async with connect(f"unix!{tmp_path}/s", version=version) as client:
                for count, told in ((1, b"200000\n"), (2, b"199999\n200000\n"), (0, many.encode())):
                    said: list[bytes] = []
                    async with await client.open("many") as file:
                        await tail(file, count, said.append)
                    assert b"".join(said) == told
                for name, words in (("log", "two three four"), ("records", "8 9")):
                    for word in ("one", "two", "three"):
                        log.emit(word)
                    send, receive = trio.open_memory_channel[bytes](1000)
                    with trio.fail_after(SOON):
                        async with await client.open(name) as file, trio.open_nursery() as reading:
                            reading.start_soon(tail, file, 2, send.send_nowait)
                            told = await receive.receive()
                            if name == "log":
                                log.emit("four")
                                told += await receive.receive()
                            reading.cancel_scope.cancel()
                    assert " ".join(each.split()[-1].decode() for each in told.splitlines()) == words


async def test_a_disk_keeps_its_length(tmp_path: Path) -> None:
    content = bytearray(b"x" * 1000)

    def write(data: memoryview, offset: int) -> int:
        content[offset : offset + len(data)] = data
        return len(data)

    disk = Block(lambda count, at: content[at : at + count], write, size=lambda: len(content))
    (tmp_path / "image").write_bytes(b"image" * 20)
    async with mounted(Dir({"disk": disk, "text": Text("made up")})) as client:
        await copying.into(client, str(tmp_path / "image"), "disk")
        assert content == b"image" * 20 + b"x" * 900
        await copying.within(client, "text", "disk")
        assert content == b"made up" + content[7:]


class Records:
    """A stream that gives ten records, one a read, and then waits."""

    def __init__(self) -> None:
        self.next = 0

    async def receive(self) -> bytes:
        if self.next == 10:
            await trio.sleep_forever()
        self.next += 1
        return b"%d\n" % (self.next - 1)

    def send(self, data: bytes) -> int | None:
        raise NineError(errno.EACCES)

    def close(self) -> None:
        return None


def test_output_that_is_not_blocking_loses_nothing(exported: Run, tree: Path) -> None:
    data = os.urandom(1_000_000)
    (tree / "big").write_bytes(data)
    for name in range(3000):
        (tree / f"a-rather-long-name-of-file-{name}").touch()
    listed = "".join(sorted(f"{each.name}\n" for each in tree.iterdir())).encode()
    for words, content in ((["cat", "fs/tree/big"], data), (["ls", "fs/tree"], listed)):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with exported.started(*words, stdout=writer) as process:
            os.close(writer)
            poll = select.poll()
            poll.register(reader, select.POLLIN)
            poll.poll()
            time.sleep(0.3)  # it meets a full pipe
            with open(reader, "rb") as file:
                assert file.read() == content
            assert process.wait(SOON) == 0


@pytest.mark.parametrize(
    "words", ["ls fs/tree", "cat fs/tree/f", "tail fs/tree/f", "stat fs", "tree", "--help", "ls --help", "help"]
)
def test_output_that_cannot_be_written_is_one_line(exported: Run, tree: Path, words: str) -> None:
    (tree / "f").write_text("text\n")
    for to, said in ((">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")):
        script = ["sh", "-c", f'exec "$@" {to}', "sh", *ME, "-a", exported.address, *words.split()]
        done = subprocess.run(script, stderr=subprocess.PIPE, text=True, timeout=SOON)
        assert (done.returncode, done.stderr) == (1, f"mk9p {words.split()[0]}: standard output: {said}\n")


def test_the_standard_input_may_be_the_file_that_is_written(exported: Run, tree: Path) -> None:
    data = os.urandom(2_500_000)
    (tree / "f").write_bytes(data)
    with open(tree / "f", "rb") as file:
        command = [*ME, "-a", exported.address, "write", "fs/tree/f"]
        done = subprocess.run(command, stdin=file, stderr=subprocess.PIPE, text=True, timeout=SOON)
    assert (done.returncode, done.stderr) == (1, "mk9p: fs/tree/f: it is the same file as its source\n")
    assert (tree / "f").read_bytes() == data
    (tree / "g").write_text("short")
    with open(tree / "g", "rb") as file:
        assert subprocess.run(command, stdin=file, timeout=SOON).returncode == 0
    assert (tree / "f").read_text() == "short"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["ls", "no\udcff"], 1, "mk9p: no\\xff: "),
        (["cp", ":fs/tree/f", ""], 1, "mk9p cp: '': No such file or directory"),
        (["ps"], 1, "mk9p ps: no directory k, and no status: "),
        (["umount", ""], 1, "mk9p umount: '': no such directory"),
        (["run", "/", "--", "a\udcff"], 1, "mk9p run: "),
        (["no-such"], 2, "mk9p: no command 'no-such'"),
    ],
)
def test_what_may_go_wrong_is_one_line(exported: Run, tree: Path, words: list[str], status: int, said: str) -> None:
    (tree / "f").touch()
    done = exported(*words)
    assert (done[0], done[1][: len(said)], done[1].count("\n")) == (status, said, 1)


@pytest.mark.parametrize(
    "words",
    [["ls", "-l"], ["cat", "fs/tree/notes"], ["write", "fs/tree/notes", "x"], ["stat", "fs/tree/notes"], ["tree"]],
)
def test_short_commands_import_no_trio(exported: Run, tree: Path, words: list[str]) -> None:
    (tree / "notes").write_text("text\n")
    text = "import sys, mk9p.__main__ as m; status = m.main(sys.argv[1:]); assert not {'trio', 'attr'} & set(sys.modules); sys.exit(status)"
    command = [sys.executable, "-c", text, "-a", exported.address, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SOON)
    assert (done.returncode, done.stderr) == (0, "")


def test_names_of_the_tree_are_found_by_patterns(exported: Run, tree: Path) -> None:
    for name in ("a1", "a2", "b1"):
        (tree / name).mkdir()
        (tree / name / "f").write_text(f"{name}\n")
    (tree / "b1" / ".hidden").write_text("")
    (tree / "a[12]").write_text("literal\n")
    assert exported("cat", "fs/tree/a?/f") == (0, "a1\na2\n")
    assert exported("cat", "/fs/*/[ab]1/f") == (0, "a1\nb1\n")
    assert exported("cat", "fs/tree/a[12]") == (0, "literal\n")
    assert exported("ls", "fs/tree/a?/f") == (0, "fs/tree/a1/f\nfs/tree/a2/f\n")
    assert exported("ls", "fs/tree/b*") == (0, ".hidden\nf\n")
    assert exported("ls", "fs/tree/[ab]1") == (0, "fs/tree/a1:\nf\nfs/tree/b1:\n.hidden\nf\n")
    assert exported("stat", "fs/tree/*/.h*")[1].count("\n") == 1
    assert (
        exported("cat", "fs/tree/c*", "fs/tree/a1/f")
        == (
            1,
            "mk9p: fs/tree/c*: no name in the tree fits this pattern\na1\n",
        )
        or exported("cat", "fs/tree/c*", "fs/tree/a1/f")[0] == 1
    )


def test_directories_are_copied_whole_into_within_and_out_of_a_tree(exported: Run, tree: Path, tmp_path: Path) -> None:
    (tree / "d" / "deep").mkdir(parents=True)
    (tree / "d" / "run").write_text("#!/bin/sh\n")
    (tree / "d" / "run").chmod(0o751)
    (tree / "d" / "deep" / "bytes").write_bytes(bytes(range(256)) * 5000)
    (tree / "d" / "link").symlink_to("deep/bytes")
    (tree / "d" / "deep").chmod(0o555)
    out = tmp_path / "out"
    assert exported("cp", "-r", ":fs/tree/d", str(out)) == (0, "")
    assert exported("cp", "-r", ":fs/tree/d", ":fs/tree/copy") == (0, "")
    (tree / "there").mkdir()
    assert exported("cp", "-r", str(out), ":fs/tree/there") == (0, "")
    for copy in (out, tree / "copy", tree / "there" / "out"):
        assert (copy / "run").stat().st_mode & 0o7777 == 0o751
        assert (copy / "deep").stat().st_mode & 0o7777 == 0o555
        assert (copy / "deep" / "bytes").read_bytes() == (tree / "d" / "deep" / "bytes").read_bytes()
        assert os.readlink(copy / "link") == "deep/bytes"
    status, said = exported("cp", "-r", ":fs/tree/d", ":fs/tree/d/again")
    assert (status, said) == (1, "mk9p: :fs/tree/d/again: it is inside of its source\n")
    assert not (tree / "d" / "again").exists()
    assert exported("cp", ":fs/tree/d/run", ":fs/tree/d/deep/bytes", str(tmp_path / "nowhere")) == (
        1,
        f"mk9p cp: {tmp_path / 'nowhere'}: Not a directory\n",
    )
    assert exported("cp", ":fs/tree/d/*", ":fs/tree/there")[0] == 1  # `deep` is a directory
    assert (tree / "there" / "run").read_text() == "#!/bin/sh\n"


def test_a_tree_is_json_too(exported: Run, tree: Path) -> None:
    (tree / "d" / "e" / "f").mkdir(parents=True)
    (tree / "d" / "text\x1b").touch()
    status, said = exported("tree", "--json", "-d", "2", "fs/tree")
    assert status == 0
    inside = [{"name": "e", "contents": []}, {"name": "text\x1b"}]
    assert json.loads(said) == [{"name": "d", "contents": inside}]


def test_json_has_numbers_of_64_bits_as_strings(exported: Run, tree: Path) -> None:
    (tree / "f").write_text("12345")
    (entry,) = json.loads(exported("stat", "--json", "fs/tree/f")[1])
    assert entry["length"] == "5"
    assert int(entry["mtime"]) == (tree / "f").stat().st_mtime_ns
    assert isinstance(entry["qid"]["path"], str)
    assert entry["mode"] == (tree / "f").stat().st_mode
