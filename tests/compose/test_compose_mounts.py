"""Each word and flag of namespace(6), over trees in this process."""

import errno

import pytest
from helpers_compose import Link, Store, ls, make, namespace, read, walk, write

from mk9p.auth import NONE, ROOT, Principal
from mk9p.compose.table import clean
from mk9p.compose.union import lexical
from mk9p.errors import NineError
from mk9p.tree import Change, Dir, Node, Open, Stat, Text, settle
from mk9p.wire import QTDIR


def k1() -> Store:
    return Store({"name": "k1", "cpu": {"ctl": "k1 cpu", "0": {"status": "on"}}, "bin": {"ls": "k1 ls", "ps": "k1 ps"}})


def k2() -> Store:
    return Store({"name": "k2", "cpu": {"ctl": "k2 cpu"}, "bin": {"ls": "k2 ls", "top": "k2 top"}})


async def test_the_top_has_the_composers_own_files() -> None:
    ns = namespace()
    assert await ls(ns) == ["ctl", "ns", "events", "k", "all", "srv", "error"]
    assert await ls(ns, "k") == []
    assert await read(ns, "ns") == ""


async def test_extra_children_stand_beside() -> None:
    from mk9p.compose.namespace import Namespace

    ns = Namespace(lambda address, spec: Dir(), {"kernels": Dir({"status": Text("none\n")})})
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
    listed = dict(await settle(ns.root.entries(ROOT)))
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


async def test_creation_goes_to_the_first_with_c() -> None:
    one, two = k1(), k2()
    ns = namespace(k1=one, k2=two)
    await write(ns, "ctl", "mount k1 /bin bin\nmount -ac k2 /bin bin")
    await make(ns, "bin/new", "hello")
    assert "new" in two.children["bin"].children  # type: ignore[attr-defined]
    assert await read(ns, "bin/new") == "hello"
    bin_ = await walk(ns, "bin")
    await settle(bin_.mkdir("d", 0o755, ROOT))
    assert "d" in await ls(two, "bin")
    for name in ("symlink", "mknod", "link"):  # the made-up store cannot: it is asked
        with pytest.raises(NineError, match="Operation not permitted"):
            await settle(getattr(bin_, name)("n", *{"symlink": ["t"], "mknod": [0, 0], "link": [one]}[name], ROOT))


async def test_creation_without_c_is_forbidden_at_the_point_and_not_below() -> None:
    ns = namespace(k1=k1())
    await write(ns, "ctl", "mount k1 /k/k1")
    with pytest.raises(NineError, match="mounted directory forbids creation") as caught:
        await make(ns, "k/k1/new", "")
    assert caught.value.errno == errno.EPERM
    await make(ns, "k/k1/bin/new", "below")
    assert await read(ns, "k/k1/bin/new") == "below"
    await write(ns, "ctl", "mount -c k1 /k/k1")
    await make(ns, "k/k1/new", "there")
    assert await read(ns, "k/k1/new") == "there"


async def test_bind_of_a_place_on_itself_gives_it_c() -> None:
    one = k1()
    ns = namespace(k1=one, k2=k2())
    await write(ns, "ctl", "mount -c k1 /k/k1\nmount -b k2 /k/k1/bin bin")
    with pytest.raises(PermissionError):
        await make(ns, "k/k1/bin/new", "")
    await write(ns, "ctl", "bind -ac /k/k1/bin /k/k1/bin")
    await make(ns, "k/k1/bin/new", "")
    assert "new" in await ls(one, "bin")


@pytest.mark.parametrize(
    "how", ["mount -r k1 /t", "mount k1 /k/k1\nbind -r /k/k1 /t", "mount -r k1 /k/k1\nbind /k /n\nbind -c /n/k1 /t"]
)
async def test_read_only_refuses_every_change_below(how: str) -> None:
    tree = k1()
    ns = namespace(k1=tree)
    await write(ns, "ctl", how)
    before = await ls(tree), await ls(tree, "bin")
    assert await read(ns, "t/bin/ls") == "k1 ls"
    assert await ls(ns, "t/cpu/0") == ["status"]
    for path in ("t", "t/bin"):
        node = await walk(ns, path)
        changes = [
            lambda node=node: node.create("new", 0o644, Open(ROOT, write=True)),
            lambda node=node: node.mkdir("new", 0o755, ROOT),
            lambda node=node: node.symlink("new", "x", ROOT),
            lambda node=node: node.link("new", tree, ROOT),
            lambda node=node: node.mknod("new", 0, 0, ROOT),
            lambda node=node: node.change(Change(mode=0), ROOT),
        ]
        names = [("ls", "bin"), ("bin", "cpu")][path == "t"]
        changes += [
            lambda node=node, name=names[0]: node.remove(name, ROOT),
            lambda node=node, name=names[0]: node.rename(name, node, "other", ROOT),
        ]
        for change in changes:
            with pytest.raises(NineError) as caught:
                await settle(change())
            assert caught.value.errno == errno.EROFS
    file = await walk(ns, "t/bin/ls")
    for flag in ("write", "truncate", "remove"):
        with pytest.raises(NineError, match="Read-only"):
            await settle(file.open(Open(ROOT, **{flag: True})))
    handle = await settle(file.open(Open(ROOT)))
    with pytest.raises(NineError, match="Read-only"):
        handle.change(Change(mode=0))
    assert (await ls(tree), await ls(tree, "bin")) == before


async def test_what_is_bound_from_a_read_only_place_is_read_only_through_it() -> None:
    ns = namespace(k1=k1())
    await write(ns, "ctl", "mount -c k1 /k/k1\nbind -r /k /n")
    await make(ns, "k/k1/one", "")
    with pytest.raises(NineError, match="Read-only"):
        await make(ns, "n/k1/two", "")
    with pytest.raises(NineError, match="Read-only"):
        await make(ns, "n/k1/bin/two", "")


async def test_exclusive_use_is_one_through_a_read_only_place() -> None:
    ns = namespace(k1=k1())
    await write(ns, "ctl", "mount k1 /k/k1\nmount -r k1 /r")
    assert {await walk(ns, "k/k1/name")} == {await walk(ns, "r/name")}


async def test_remove_and_rename_go_to_the_element_that_has_the_file() -> None:
    one, two = k1(), k2()
    ns = namespace(k1=one, k2=two)
    await write(ns, "ctl", "mount -c k1 /bin bin\nmount -a k2 /bin bin\nmount k2 /bin/sub")
    bin_ = await walk(ns, "bin")
    await settle(bin_.rename("top", bin_, "htop", ROOT))
    assert await ls(two, "bin") == ["ls", "htop"]
    await settle(bin_.remove("ls", ROOT))
    assert (await ls(one, "bin"), await ls(two, "bin")) == (["ps"], ["ls", "htop"])
    with pytest.raises(FileNotFoundError):
        await settle(bin_.remove("none", ROOT))
    for name in ("sub",):
        with pytest.raises(NineError, match="mount point"):
            await settle(bin_.remove(name, ROOT))
        with pytest.raises(NineError, match="mount point"):
            await settle(bin_.rename(name, bin_, "x", ROOT))
        with pytest.raises(NineError, match="mount point"):
            await settle(bin_.rename("ps", bin_, name, ROOT))


async def test_rename_out_of_a_tree_is_refused() -> None:
    ns = namespace(k1=k1(), k2=k2())
    await write(ns, "ctl", "mount -c k1 /k/k1\nmount -c k2 /k/k2")
    one = await walk(ns, "k/k1")
    await settle(one.rename("name", await walk(ns, "k/k2"), "name", ROOT))  # stores in one process can; see below
    with pytest.raises(NineError) as caught:
        await settle(one.rename("bin", await walk(ns, "k"), "bin", ROOT))
    assert caught.value.errno in (errno.EXDEV, errno.EPERM)


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
        "mount": "usage: mount [-abcr] ADDR OLD [SPEC]",
        "mount k1": "usage: mount [-abcr] ADDR OLD [SPEC]",
        "mount -x k1 /k": "usage: mount [-abcr] ADDR OLD [SPEC]",
        "mount -ab k1 /k": "usage: mount [-abcr] ADDR OLD [SPEC]",
        "mount -a -b k1 /k": "usage: mount [-abcr] ADDR OLD [SPEC]",
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


async def test_events_tell_what_was_done() -> None:
    ns = namespace(k1=k1())
    await write(ns, "ctl", "mount -c k1 '/k/k 1' bin\nbind -b '/k/k 1' /n\nunmount '/k/k 1' /n\nunmount '/k/k 1'")
    ns.mount("k1", "/k/k1")
    ns.up("k1", "")
    ns.down("k1", "", "connection reset")
    told = [line.decode().split(" ", 2)[2] for line in ns.events.lines]
    assert told == [
        "mount -c k1 '/k/k 1' bin\n",
        "bind -b '/k/k 1' /n\n",
        "unmount '/k/k 1' /n\n",
        "unmount '/k/k 1'\n",
        "mount k1 /k/k1\n",
        "up k1\n",
        "down k1 'connection reset'\n",
    ]
    assert ns.name("elsewhere", "") == "elsewhere"


async def test_the_user_is_handed_on() -> None:
    asked: list[Principal] = []

    class Asked(Store):
        def walk(self, name: str, who: Principal) -> Node:
            asked.append(who)
            return super().walk(name, who)

        def entries(self, who: Principal):  # type: ignore[no-untyped-def]
            asked.append(who)
            return super().entries(who)

    ns = namespace(k1=Asked({"a": {"b": "c"}}))
    ns.mount("k1", "/k/k1")
    await ns.bind("/k/k1/a", "/n")
    asked.clear()
    glenda = Principal("glenda", 1000)
    for who in (glenda, NONE, glenda):
        await ls(ns, "k/k1", who)
        await walk(ns, "n", who)
        assert set(asked) == {who}
        asked.clear()


async def test_a_bind_on_the_root_is_resolved_for_each_user() -> None:
    class Mine(Store):
        def walk(self, name: str, who: Principal) -> Node:
            return Store({"whose": who.name})

    ns = namespace(k1=Mine())
    ns.mount("k1", "/k/k1")
    await ns.bind("/k/k1/home", "/", flags=None)
    for name in ("glenda", "none"):
        assert await read(ns, "whose", Principal(name, 1000)) == name


async def test_the_paths_of_qids() -> None:
    ns = namespace(k1=k1(), k2=k2())
    await write(ns, "ctl", "mount k1 /k/k1\nmount -b k2 /k/k1/bin bin")
    listed = dict(await settle((await walk(ns, "k")).entries(ROOT)))
    assert (await walk(ns, "k/k1")).path == listed["k1"].path == lexical("/k/k1")
    assert (await walk(ns, "k/k1/bin")).path == lexical("/k/k1/bin")
    assert len({lexical(path) for path in ("", "/k", "/k/k1", "/k1/k", "/k/k2")}) == 5
    tree = k1()
    tree.children["cpu"].path = 77
    ns = namespace(k1=tree)
    await write(ns, "ctl", "mount k1 /k/k1\nmount k1 /k/k1/cpu/0/deep")
    assert (await walk(ns, "k/k1/cpu")).path == 77  # its own, though something is mounted below


async def test_status_and_statfs_are_the_first_elements() -> None:
    one, two = Store({"a": "1"}, mode=0o700), Store({}, mode=0o755)
    ns = namespace(k1=one, k2=two)
    await write(ns, "ctl", "mount k1 /n\nmount -a k2 /n")
    node = await walk(ns, "n")
    stat = await settle(node.stat())
    assert stat.mode & 0o777 == 0o700
    assert (await settle(node.statfs())).blocks == 1
    await settle(node.change(Change(mode=0o711), ROOT))
    assert (one.mode, two.mode) == (0o711, 0o755)


async def test_files_open_below_are_counted_by_the_tree_that_counts_them() -> None:
    class Counted(Store):
        users = 0

        def hold(self) -> None:  # type: ignore[override]
            self.users += 1

        def release(self) -> None:  # type: ignore[override]
            self.users -= 1

    tree = Counted({"data": "x"})
    ns = namespace(k1=tree, k2=k2())
    await write(ns, "ctl", "mount k1 /n\nmount -r k1 /r")
    for path in ("n", "r"):
        node = await walk(ns, path)
        assert node.hold is not None
        assert node.release is not None
        node.hold()
        assert tree.users == 1
        await settle(node.release())
        assert tree.users == 0


async def test_a_server_that_is_down_spoils_only_its_own_branch() -> None:
    down, up = Link({"bin": {"a": "1"}}), k2()
    ns = namespace(k1=down, k2=up)
    await write(
        ns, "ctl", "mount k1 /k/k1\nmount k2 /k/k2\nmount -b k1 /both\nmount -a k2 /both\nmount k2 /k/k1/in/side"
    )
    down.state = "down"
    assert await ls(ns, "k") == ["k1", "k2"]
    assert await ls(ns, "k/k2") == ["name", "cpu", "bin"]
    point = await walk(ns, "k/k1")
    for broken in (point.stat, lambda: point.entries(ROOT), lambda: point.walk("bin", ROOT)):
        with pytest.raises(OSError, match="k1 is down") as caught:
            await settle(broken())  # type: ignore[arg-type, misc]
        assert caught.value.errno == errno.EIO
    assert await read(ns, "both/bin/ls") == "k2 ls"
    assert await ls(ns, "both") == ["name", "cpu", "bin"]
    assert isinstance(await settle((await walk(ns, "both")).stat()), Stat)
    assert await read(ns, "k/k1/in/side/name") == "k2"
    with pytest.raises(OSError, match="k1 is down"):
        await walk(ns, "both/none")
    await write(ns, "ctl", "bind /k/k1/bin /later")  # believed, since nobody can say
    down.state = "up"
    assert await read(point, "bin/a") == "1"
    assert await read(ns, "later/a") == "1"


async def test_a_silent_server_holds_no_bind_up(autojump_clock: object) -> None:
    silent = Link({"bin": {"a": "1"}})
    ns = namespace(k1=silent)
    ns.mount("k1", "/k/k1")
    silent.state = "silent"
    await write(ns, "ctl", "bind /k/k1/bin /n")
    silent.state = "up"
    assert await read(ns, "n/a") == "1"


async def test_a_listing_asks_no_server_below() -> None:
    tree = Link({"a": "1"})
    ns = namespace(k1=tree)
    ns.mount("k1", "/k/k1")
    ns.mount("k1", "/deep/in/here")
    tree.state = "silent"
    assert await ls(ns, "k") == ["k1"]
    assert await ls(ns, "deep") == ["in"]
    assert tree.asked == 0


async def test_one_server_mounted_twice_is_one() -> None:
    made: list[str] = []
    from mk9p.compose.namespace import Namespace

    def mounter(address: str, spec: str) -> Node:
        made.append(address)
        return k1()

    ns = Namespace(mounter)
    ns.mount("a", "/k/k1")
    ns.mount("a", "/n")
    ns.mount("a", "/n", flags=None)
    ns.mount("a", "/m", "spec")
    assert made == ["a", "a"]


def test_clean() -> None:
    assert [clean(p) for p in ("/", "", "/a/", "a//b", "/a/./b/../c", "/../x")] == ["", "", "/a", "/a/b", "/a/c", "/x"]
    with pytest.raises(NineError):
        clean("/a\nb")
