"""What mount, bind and unmount make of a namespace, over trees in this process."""

import errno
from time import process_time

import pytest

from mk9p.auth import ROOT
from mk9p.compose.namespace import Namespace
from mk9p.compose.table import Flags, clean
from mk9p.errors import NineError
from mk9p.tree import Dir, Text
from mk9p.wire import QTDIR
from tests.compose.helpers_compose import Store, k1, k2, namespace
from tests.servers.trees import ls, read, walk
from tests.servers.trees import send as write


async def test_the_top_has_the_composers_own_files() -> None:
    ns = namespace()
    assert await ls(ns) == ["ctl", "ns", "events", "mounts", "k", "all", "srv", "error"]
    assert await ls(ns, "k") == []
    assert await read(ns, "ns") == ""


async def test_extra_children_stand_beside() -> None:
    from mk9p.compose.namespace import Namespace

    ns = Namespace(lambda address, spec, flags: Dir(), {"kernels": Dir({"status": Text("none\n")})})
    assert "kernels" in await ls(ns)
    assert await read(ns, "kernels/status") == "none\n"


async def test_a_mount_makes_its_name_and_the_directories_between() -> None:
    ns = namespace(k1=k1())
    await write(ns, "ctl", "mount k1 /k/k1\nmount k1 /far/off/place cpu")
    assert await ls(ns, "k") == ["k1"]
    assert await read(ns, "k/k1/name") == "k1"
    assert "far" in await ls(ns)
    assert await ls(ns, "far/off") == ["place"]
    assert await read(ns, "far/off/place/ctl") == "k1 cpu"


@pytest.mark.parametrize(
    "words", ["mount 'unix!/run/a\nb' /n", "mount unix!/run/a /n 'part\nof'", "mount unix!/run/a '/n\nm'"]
)
async def test_a_mount_is_one_line_of_the_table(words: str) -> None:
    ns = Namespace(lambda address, spec, flags: Dir())
    with pytest.raises(NineError) as caught:
        await write(ns, "ctl", words)
    assert caught.value.errno == errno.EINVAL
    assert await read(ns, "ns") == ""


async def test_a_new_mount_is_seen_from_a_directory_walked_to_before() -> None:
    ns = namespace(k1=k1(), k2=k2())
    ns.mount("k1", "/k/k1")
    k, far = await walk(ns, "k"), await walk(ns, "k/k1")
    ns.mount("k2", "/k/k2")
    ns.mount("k2", "/k/k1/other")
    assert await ls(k) == ["k1", "k2"]
    assert await read(k, "k2/name") == "k2"
    assert await read(far, "other/name") == "k2"


async def test_who_is_below_a_mount_point_stays_when_it_goes() -> None:
    ns = namespace(k1=k1(), k2=k2())
    ns.mount("k1", "/k/k1")
    top, cpu = await walk(ns, "k/k1"), await walk(ns, "k/k1/cpu")
    ns.unmount("/k/k1")
    assert await ls(ns, "k") == []
    with pytest.raises(FileNotFoundError):
        await walk(ns, "k/k1")
    assert await read(cpu, "ctl") == "k1 cpu"
    assert await read(top, "name") == "k1"


async def test_once_inside_one_tree_its_own_nodes_are_handed_out() -> None:
    tree = k1()
    ns = namespace(k1=tree)
    ns.mount("k1", "/k/k1")
    assert await walk(ns, "k/k1/cpu") is tree.children["cpu"]
    point = await walk(ns, "k/k1")
    assert point.walk("cpu", ROOT) is tree.children["cpu"]  # at once: no table below, no waiting


async def test_a_mount_inside_another_tree() -> None:
    ns = namespace(k1=k1(), k2=k2())
    ns.mount("k1", "/k/k1")
    ns.mount("k2", "/k/k1/cpu/0")  # over a directory that is there
    ns.mount("k2", "/k/k1/new/deep")  # and one that is not
    assert await ls(ns, "k/k1") == ["name", "cpu", "bin", "new"]
    assert await ls(ns, "k/k1/cpu") == ["ctl", "0"]
    assert await read(ns, "k/k1/cpu/0/name") == "k2"
    assert await read(ns, "k/k1/cpu/ctl") == "k1 cpu"
    assert await read(ns, "k/k1/new/deep/name") == "k2"


async def test_bind_replaces() -> None:
    ns = namespace(k1=k1(), k2=k2())
    await write(ns, "ctl", "mount k1 /k/k1\nmount k2 /k/k2\nbind /k/k2/bin /k/k1/bin")
    assert await ls(ns, "k/k1/bin") == ["ls", "top"]
    assert await read(ns, "k/k1/bin/ls") == "k2 ls"


@pytest.mark.parametrize(
    ("flag", "first", "listed"), [("-b", "k2 ls", ["ls", "top", "ps"]), ("-a", "k1 ls", ["ls", "ps", "top"])]
)
async def test_bind_before_and_after_make_a_union(flag: str, first: str, listed: list[str]) -> None:
    ns = namespace(k1=k1(), k2=k2())
    await write(ns, "ctl", f"mount k1 /k/k1\nmount k2 /k/k2\nbind {flag} /k/k2/bin /k/k1/bin")
    assert await ls(ns, "k/k1/bin") == listed
    assert await read(ns, "k/k1/bin/ls") == first
    assert await read(ns, "k/k1/bin/ps") == "k1 ps"
    assert await read(ns, "k/k1/bin/top") == "k2 top"
    with pytest.raises(FileNotFoundError):
        await walk(ns, "k/k1/bin/none")


async def test_a_union_of_mounts_with_nothing_underneath() -> None:
    ns = namespace(k1=k1(), k2=k2())
    await write(ns, "ctl", "mount -a k1 /bin bin\nmount -a k2 /bin bin")
    assert await ls(ns, "bin") == ["ls", "ps", "top"]
    assert await read(ns, "bin/ls") == "k1 ls"


async def test_bind_of_a_file_over_a_file_and_to_a_new_name() -> None:
    ns = namespace(k1=k1(), k2=k2())
    await write(ns, "ctl", "mount k1 /k/k1\nmount k2 /k/k2\nbind /k/k2/name /k/k1/name\nbind /k/k1/cpu/ctl /here")
    assert await read(ns, "k/k1/name") == "k2"
    assert await read(ns, "here") == "k1 cpu"
    listed = dict(await ns.root.entries(ROOT))
    assert listed["here"].qtype & QTDIR == 0
    with pytest.raises(NineError, match="inconsistent mount"):
        await write(ns, "ctl", "bind -a /k/k2/name /k/k1/name")
    with pytest.raises(NotADirectoryError):
        await walk(ns, "here/x")


async def test_a_bind_shows_what_is_mounted_below_its_name() -> None:
    ns = namespace(k1=k1(), k2=k2())
    await write(ns, "ctl", "mount k1 /k/k1\nbind /k /n")
    assert await read(ns, "n/k1/name") == "k1"
    await write(ns, "ctl", "mount k2 /k/k2\nmount k2 /k/k1/a/b")
    assert await ls(ns, "n") == ["k1", "k2"]
    assert await read(ns, "n/k2/name") == "k2"
    assert await read(ns, "n/k1/a/b/name") == "k2"
    await write(ns, "ctl", "mount k1 /n/k2")  # at the new name only
    assert (await read(ns, "n/k2/name"), await read(ns, "k/k2/name")) == ("k1", "k2")


async def test_a_bind_follows_the_name() -> None:
    ns = namespace(k1=k1(), k2=k2())
    await write(ns, "ctl", "mount k1 /k/x\nbind /k/x/cpu /cpu")
    await write(ns, "ctl", "unmount /k/x")
    with pytest.raises(FileNotFoundError):
        await walk(ns, "cpu")
    assert "cpu" in await ls(ns)
    await write(ns, "ctl", "mount k2 /k/x")
    assert await read(ns, "cpu/ctl") == "k2 cpu"


async def test_binds_in_circles_end() -> None:
    ns = namespace(k1=k1())
    await write(ns, "ctl", "mount k1 /k/k1\nbind / /x")
    assert "x" in await ls(ns, "x/x/x")
    assert await read(ns, "x/x/k/k1/name") == "k1"
    await write(ns, "ctl", "bind -b /k/k1 /\nbind -a /k/k1/cpu /k/k1")
    assert await read(ns, "name") == "k1"
    assert await ls(ns, "k/k1") == ["name", "cpu", "bin", "ctl", "0"]
    await ns.bind("/a", "/b", believe=True)
    await ns.bind("/b", "/a", believe=True)
    with pytest.raises(FileNotFoundError):
        await walk(ns, "a")
    many = [f"/m{n}" for n in range(9)]
    for old in many:
        for new in many:
            await ns.run(f"bind -a {new} {old}")
    with pytest.raises(NineError) as caught:
        await walk(ns, "m0")
    assert caught.value.errno == errno.ELOOP


async def test_unmount_of_one_of_several_and_of_what_is_not_there() -> None:
    ns = namespace(k1=k1(), k2=k2())
    await write(ns, "ctl", "mount k1 /k/k1\nmount -b k2 /k/k1\nbind -a /k/k1/bin /k/k1")
    await write(ns, "ctl", "unmount k2 /k/k1")
    assert await read(ns, "k/k1/name") == "k1"
    await write(ns, "ctl", "unmount /k/k1/bin /k/k1")
    assert await ls(ns, "k/k1") == ["name", "cpu", "bin"]
    for line in ("unmount k2 /k/k1", "unmount /k/k2", "unmount /k", "unmount /k/k1/cpu /k/k1"):
        with pytest.raises(NineError, match="not mounted"):
            await write(ns, "ctl", line)
    assert await read(ns, "error") == "not mounted\n"


async def test_the_errors_of_the_words() -> None:
    ns = namespace(k1=k1())
    await write(ns, "ctl", "mount k1 /k/k1")
    usages = {
        "mount": "usage: mount [-abcru] [-w SECONDS] ADDR OLD [SPEC]",
        "mount k1": "usage: mount [-abcru] [-w SECONDS] ADDR OLD [SPEC]",
        "mount -x k1 /k": "usage: mount [-abcru] [-w SECONDS] ADDR OLD [SPEC]",
        "mount -ab k1 /k": "usage: mount [-abcru] [-w SECONDS] ADDR OLD [SPEC]",
        "mount -w k1 /k": "usage: mount [-abcru] [-w SECONDS] ADDR OLD [SPEC]",
        "mount -w": "usage: mount [-abcru] [-w SECONDS] ADDR OLD [SPEC]",
        "mount -w 86401 k1 /k": "usage: mount [-abcru] [-w SECONDS] ADDR OLD [SPEC]",
        "mount -wr 60 k1 /k": "usage: mount [-abcru] [-w SECONDS] ADDR OLD [SPEC]",
        "bind -w 60 /k /n": "usage: bind [-abcr] NEW OLD",
        "mount -a -b k1 /k": "usage: mount [-abcru] [-w SECONDS] ADDR OLD [SPEC]",
        "bind - /k /n": "usage: bind [-abcr] NEW OLD",
        "bind /k /n /m": "usage: bind [-abcr] NEW OLD",
        "unmount": "usage: unmount [NEW] OLD",
    }
    for line, usage in usages.items():
        with pytest.raises(NineError) as caught:
            await write(ns, "ctl", line)
        assert (caught.value.errno, caught.value.ename) == (errno.EINVAL, usage)
    with pytest.raises(NineError, match=r"unknown word export; usage: mount .* bind .* unmount"):
        await write(ns, "ctl", "export")
    with pytest.raises(FileNotFoundError):
        await write(ns, "ctl", "bind /k/k1/none /n")
    with pytest.raises(NineError, match="bad dial string"):
        await write(ns, "ctl", "mount nowhere /n")
    assert await read(ns, "ns") == "mount k1 /k/k1\n"
    await write(ns, "ctl", "mount -rw 60 k1 /w")
    await write(ns, "ctl", "mount -w 5 -b k1 /k/k1")
    assert await read(ns, "ns") == "mount -w 5 k1 /k/k1\nmount -r -w 60 k1 /w\n"


def test_clean() -> None:
    assert [clean(p) for p in ("/", "", "/a/", "a//b", "/a/./b/../c", "/../x")] == ["", "", "/a", "/a/b", "/a/c", "/x"]
    with pytest.raises(NineError):
        clean("/a\nb")


async def test_a_script_has_comments_quotes_and_line_numbers() -> None:
    ns = namespace(k1=Store({"it's": "x", "#": "y"}))
    await ns.run("# all of it\n\nmount k1 '/a b' # here\nbind '/a b/it''s' /x#y\n  bind '/a b/#' '/#'\n")
    assert (await read(ns, "x#y"), await read(ns, "#")) == ("x", "y")
    assert await read(ns, "ns") == "mount k1 '/a b'\nbind '/a b/it''s' /x#y\nbind '/a b/#' /#\n"
    with pytest.raises(
        NineError, match=r"^line 2: usage: mount \[-abcru\] \[-w SECONDS\] ADDR OLD \[SPEC\]$"
    ) as caught:
        await ns.run("mount k1 /n\nmount k1\nmount k1 /m")
    assert caught.value.errno == errno.EINVAL
    assert "n" in await ls(ns)
    assert "m" not in await ls(ns)


async def test_writing_ns_back_to_ctl_changes_nothing() -> None:
    ns = namespace(k1=k1(), k2=k2())
    await write(
        ns,
        "ctl",
        "mount k1 /k/k1\nmount -b k2 /k/k1/bin bin\nbind -acr /k/k1/cpu /k/k1/bin\nbind -c /k/k1/bin /n\nbind /k/k1/name /f",
    )
    await write(ns, "ctl", "unmount /k/k1\nmount -a k1 /k/k1")
    before = await read(ns, "ns")
    await write(ns, "ctl", before)
    assert await read(ns, "ns") == await read(ns, "ctl") == before
    ns.unmount("/k/k1")  # what is bound from it is gone too, and still that can be written back
    before = await read(ns, "ns")
    await write(ns, "ctl", before)
    assert await read(ns, "ns") == before


async def test_a_path_of_the_table_is_none_that_no_walk_could_reach() -> None:
    ns = Namespace(lambda address, spec, flags: Dir({}))
    for new, old in (("/k", "/a" * 400_000), ("/a" * 400_000, "/x"), ("/k", "/" + "n" * 256), ("/k", "/nn" * 2000)):
        with pytest.raises(NineError) as refused:
            await ns.bind(new, old, believe=True)
        assert refused.value.errno == errno.ENAMETOOLONG
    await ns.bind("/k", "/b" * 2040)
    assert len(await ns.resolver.elements("/b" * 2040, ROOT)) == 1
    with pytest.raises(FileNotFoundError):
        await ns.bind("/c" * 2040, "/x")


async def test_the_mount_table_has_an_end() -> None:
    ns = Namespace(lambda address, spec, flags: Dir({}))
    for n in range(3):
        await ns.bind("/k", f"/{n:03}" + "/a" * 2000, believe=True)
    with pytest.raises(NineError) as refused:
        await ns.bind("/k", "/003" + "/a" * 2000, believe=True)
    assert refused.value.errno == errno.ENOSPC
    before = ns.table.taken
    ns.unmount("/000" + "/a" * 2000)
    await ns.bind("/k", "/999" + "/a" * 2000, believe=True)
    assert ns.table.taken == before


async def test_binds_of_binds_have_an_end() -> None:
    ns = Namespace(lambda address, spec, flags: Dir({}))
    for n in range(300):
        await ns.bind(f"/b{n + 1}", f"/b{n}", believe=True)
    await ns.bind("/k", "/b300", believe=True)
    assert len(await ns.resolver.elements("/b260", ROOT)) == 1
    with pytest.raises(NineError) as refused:
        await ns.resolver.elements("/b0", ROOT)
    assert refused.value.errno == errno.ELOOP


def test_flags_are_read_in_a_time_that_goes_by_their_number() -> None:
    began = process_time()
    words = ["-r"] * 500_000 + ["-uw", "30", "tcp!box", "/k/box"]
    assert Flags.parse(words) == Flags(readonly=True, wait=30, untrusted=True)
    assert words == ["tcp!box", "/k/box"]
    assert process_time() - began < 2
    assert Flags.parse(["-w"]) is None
