"""What a graph, a task, or a kernel may cost the composer: time and memory have an end."""

import errno
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from time import process_time

import attrs
import pytest
import trio

from mk9p.auth import ROOT, Principal
from mk9p.errors import NineError
from mk9p.servers.tf import farm, pipes
from mk9p.servers.tf.farm import Dealing
from mk9p.servers.tf.force import Force, Forces
from mk9p.servers.tf.graph import ATTRIBUTES, LONGEST, TASKS, parse
from mk9p.servers.tf.pipes import Held, Lines
from mk9p.servers.tf.places import fits, place
from mk9p.servers.tf.program import SOME, Program
from mk9p.servers.tf.reach import File, Space
from mk9p.servers.tf.running import Running
from mk9p.testing import SOON, until
from mk9p.tree import Block, Dir, Handle, Log, Node, Open, Stream, Text, settle
from mk9p.tree import log as logs
from mk9p.tree.slices import in_slices
from tests.tree.test_slices import turns_beside


def test_a_short_text_that_wants_a_million_workers_is_refused_before_they_are_made() -> None:
    text = "".join(f"a{n} k c\nb{n} k c\n[{TASKS}] a{n} ||| b{n}\n" for n in range(LONGEST // 40))
    began = process_time()
    with pytest.raises(NineError) as caught:
        parse(text)
    assert caught.value.errno == errno.E2BIG
    assert process_time() - began < 2, "making them takes four seconds and more"
    assert len(parse(f"a k c\nb k c\n[{TASKS - 1}] a ||| b\n").tasks) == TASKS


def test_what_is_wanted_of_a_kernel_is_short() -> None:
    graph = parse("a {release 6.*} c\n")
    assert fits(graph.tasks["a"].where, {"release": "6.1"})
    many = " ".join(f"a{n} b" for n in range(ATTRIBUTES + 1))
    for inside in (f"release {'*a' * 200}", f"{'r' * 300} x", many):
        with pytest.raises(NineError) as caught:
            parse(f"a {{{inside}}} c\n")
        assert caught.value.errno == errno.EINVAL


async def test_lines_without_an_end_have_one_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "PARTS", 100_000)
    held = Held()

    async def endless() -> bytes:
        return b"x" * 30_000

    async def ends() -> bytes:
        return pieces.popleft()

    pieces = deque([b"y" * 90_000, b""])
    assert await Lines(ends, held=held).next() == b"y" * 90_000 + b"\n"
    assert held.bytes == 0
    pieces = deque([b"a\n", b"y" * 50_000])
    one = Lines(ends, held=held)
    assert await one.next() == b"a\n"
    with pytest.raises(IndexError):
        await one.next()
    assert held.bytes == 50_000
    with pytest.raises(NineError) as caught:
        await Lines(endless, held=held).next()
    assert caught.value.errno == errno.EMSGSIZE


@attrs.define(eq=False)
class Fake:
    """A task that says what it is given to say (servers/tf/work.py)."""

    said: Callable[[], Awaitable[bytes]]
    taken: list[bytes] = attrs.field(factory=list)
    takes: trio.Event = attrs.field(factory=trio.Event)
    kernel: str = "k1"

    async def read(self) -> bytes:
        return await self.said()

    async def write(self, data: bytes) -> None:
        await self.takes.wait()
        self.taken.append(data)

    async def end_input(self) -> None:
        return

    async def wait(self) -> str:
        return ""

    async def close(self) -> None:
        return


async def test_long_jobs_and_answers_wait_with_who_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farm, "MUCH", 100_000)
    given = 0
    line = b"x" * 29_999 + b"\n"

    async def jobs() -> bytes:
        nonlocal given
        await trio.lowlevel.checkpoint()
        given += 1
        return line if given <= 50 else b""

    async def nothing() -> bytes:
        await trio.sleep_forever()
        return b""

    dealing = Dealing(Fake(jobs), {"w.0": Fake(nothing)}, None, lambda *what: None)  # type: ignore[arg-type, dict-item]
    dealing.alive = 1
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dealing._feed)
            await until(lambda: dealing.asked >= 100_000)
            await trio.testing.wait_all_tasks_blocked()
            assert given <= 6
            assert dealing.asked < 200_000
            nursery.cancel_scope.cancel()


async def test_a_log_keeps_few_bytes_whatever_the_lines_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST", 1000)
    log = Log(50)
    for n in range(40):
        log.emit("x", n)
    assert len(log.lines) < 40
    assert log.size == sum(map(len, log.lines)) <= 1000
    for _ in range(60):
        log.emit("y")
    assert log.size == sum(map(len, log.lines)) <= 1000
    log.emit("z" * 5000)
    assert len(log.lines) == 1
    handle = await settle(log.open(Open(ROOT)))
    said = bytes(await settle(handle.read(0, 1 << 16))).decode()
    assert "z" * 5000 in said


def kernel(more: dict[str, Node] | None = None, **parts: Node) -> Dir:
    """Return a namespace with one kernel, and with more files."""
    return Dir({"k": Dir({"k1": Dir({"status": Text("arch x86_64\n"), **parts})})}, more or {})


def begun(number: bytes, **files: Node) -> Dir:
    """Return a server of a kernel with one conversation, of which it says a number."""
    return Dir({"clone": Text(lambda: number, lambda line: None, mode=0o666), "0": Dir(files)})


def force(namespace: Dir, nursery: trio.Nursery, *lines: str) -> Force:
    made = Force(Forces(nursery, lambda who: namespace), 0, ROOT)
    made.add("\n".join(lines))
    return made


def command(hear: bytes, status: bytes) -> Dir:
    """Return a `cmd` whose one command says something on its line before it has begun."""

    async def heard() -> bytes:
        await trio.lowlevel.checkpoint()
        return hear

    def empty(mode: int) -> Text:
        return Text(b"", lambda line: None, mode=mode)

    line = Stream(heard, lambda data: None)
    files = {name: empty(0o666) for name in ("data", "stderr", "wait")}
    return begun(b"0\n", line=line, status=Text(status), **files)


@pytest.mark.parametrize("number", [b"\xff\xfe", b"", b"../../k0/cmd/0", b"1 2", "²".encode()])
@pytest.mark.parametrize("where", ["cmd", "wasm"])
async def test_a_kernel_that_says_no_number_is_an_error_of_the_start(number: bytes, where: str) -> None:
    namespace = kernel({"m": Text("x")}, **{where: begun(number)})
    async with trio.open_nursery() as nursery:
        made = force(namespace, nursery, f"a k1 {'wasm m' if where == 'wasm' else 'true'}")
        with pytest.raises(NineError, match="it has no number") as caught:
            await made.start()
        assert caught.value.errno == errno.EIO
        assert made.state == "open"


async def test_a_kernel_that_says_without_an_end_what_its_shell_says_is_refused() -> None:
    async with trio.open_nursery() as nursery:
        made = force(kernel(cmd=command(b"x" * 9999, b"")), nursery, "a k1 true")
        with trio.fail_after(SOON), pytest.raises(NineError, match="other things than its shell"):
            await made.start()


async def test_a_kernel_that_tells_nothing_of_a_command_starts_it_without_a_number() -> None:
    async with trio.open_nursery() as nursery:
        made = force(kernel(cmd=command(b"\n", b"")), nursery, "a k1 true")
        await made.start()
        with trio.fail_after(SOON):
            await made.over.wait()
        assert made.running is not None
        assert made.running.works["a"].pid == "-"


async def test_a_bug_in_one_force_ends_that_force_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(self: Running) -> None:
        raise RuntimeError

    monkeypatch.setattr(Running, "run", fails)
    async with trio.open_nursery() as nursery:
        made = force(kernel(cmd=command(b"\n", b"")), nursery, "a k1 true")
        await made.start()
        with trio.fail_after(SOON):
            await made.over.wait()
        assert (made.state, made.line.split()[2:]) == ("failed", ["'internal", "error'"])


async def test_a_module_is_not_kept_as_a_whole() -> None:
    read, written = 0, 0

    def some(count: int, offset: int) -> bytes:
        nonlocal read
        read = max(read, offset + count)
        return bytes(count)

    def take(data: memoryview, offset: int) -> int:
        nonlocal written
        written = offset + len(data)
        assert read - written < 2 * SOME
        if written > 8 * SOME:
            raise NineError(errno.EFBIG)
        return len(data)

    wasm = begun(b"0\n", module=Block(None, take, mode=0o666))
    namespace = kernel({"m": Block(some, mode=0o444)}, wasm=wasm)
    async with trio.open_nursery() as nursery:
        with pytest.raises(NineError) as caught:
            await force(namespace, nursery, "a k1 wasm m").start()
    assert caught.value.errno == errno.EFBIG
    assert written > 8 * SOME


async def test_tasks_are_placed_while_others_have_their_turn() -> None:
    wanted = " ".join("a *b*?" for _ in range(60))
    graph = parse("\n".join(f"t{n} {{{wanted}}} x" for n in range(100)))
    kernels = {f"k{n}": {"a": "b" * 250} for n in range(30)}
    assert await turns_beside(in_slices(place(graph, kernels, Counter()))) > 5


async def test_one_user_has_a_share_of_the_text_of_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mk9p.servers.tf.force.GRAPHS", 100)
    ann, bob = Principal("ann", 41001), Principal("bob", 41002)

    async def begin(forces: Forces, who: Principal) -> Handle:
        clone = await settle(forces.walk("clone", who))
        handle = await settle(clone.open(Open(who, write=True)))
        number = bytes(await settle(handle.read(0, 9))).decode().strip()
        graph = await settle((await settle(forces.walk(number, who))).walk("graph", who))
        return await settle(graph.open(Open(who, write=True)))

    text = memoryview(b"a k1 " + b"x" * 50)
    async with trio.open_nursery() as nursery:
        forces = Forces(nursery, lambda who: Dir())
        await settle((await begin(forces, ann)).write(0, text))
        for who in (bob, ROOT, ROOT):
            await settle((await begin(forces, who)).write(0, text))
        with pytest.raises(NineError) as caught:
            await settle((await begin(forces, ann)).write(0, text))
        assert caught.value.errno == errno.ENOSPC
        await forces.aclose()


async def test_a_program_that_is_ended_while_it_moves_is_ended_where_it_went(monkeypatch: pytest.MonkeyPatch) -> None:
    def program(kernel: str) -> Program:
        path = f"k/{kernel}/wasm/0"
        return Program(kernel, path, File(Handle(), f"{path}/ctl"), space=Space(lambda who: Dir(), ROOT))

    here, there = program("k1"), program("k2")

    async def begun(*arguments: object) -> Program:
        await here.close()
        return there

    monkeypatch.setattr(Program, "begun", begun)
    with pytest.raises(NineError) as caught:
        await here.move("k2")
    assert caught.value.errno == errno.ESRCH
    assert there.ctl.closed
