"""The words of a graph of tasks, and where tasks go."""

from collections import Counter

import pytest

from mk9p.errors import NineError
from mk9p.servers.tf.graph import Farm, Where, parse
from mk9p.servers.tf.places import choose, fits
from mk9p.tree.slices import in_slices

GRAPH = """
# how rows are made
rows k0 /bin/rows --all 'a b'     # the master
row {arch x86_64 cpus >1} row
check {} wasm /check.wasm -q
[3] row ||| rows
log k1 cat
check | log
"""


def test_a_graph_has_its_tasks_pipes_and_farms() -> None:
    graph = parse(GRAPH)
    assert list(graph.tasks) == ["rows", "check", "log", "row.0", "row.1", "row.2"]
    assert graph.tasks["rows"].command == ("/bin/rows", "--all", "a b")
    assert graph.tasks["row.1"].where == Where("", (("arch", "x86_64"), ("cpus", ">1")))
    assert (graph.tasks["check"].kind, graph.tasks["check"].command) == ("wasm", ("/check.wasm", "-q"))
    assert graph.pipes == (("check", "log"),)
    assert graph.farms == (Farm("row", "rows", 3),)
    assert graph.farm_of("row.2") == graph.farms[0]
    assert graph.farm_of("rows") is None
    assert parse("a k1 x\nb k1 x\na <> b\n").pipes == (("a", "b"), ("b", "a"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no tasks"),
        ("a", "line 1: want NAME KERNEL COMMAND"),
        ("a k1", "line 1: want NAME KERNEL COMMAND"),
        ("a k1 wasm", "line 1: want NAME KERNEL COMMAND"),
        ("a.1 k1 true", "line 1: 'a.1' is no name of a task"),
        ("a ../k true", "line 1: '../k' is no name of a kernel"),
        ("a {arch true", "line 1: a { without its }"),
        ("a {arch} true", "line 1: want {ATTR VALUE...}"),
        ("a k1 'true", "line 1: unterminated quote"),
        ("a k1 true\na k1 true", "line 2: there is a task a already"),
        ("a k1 true\na | b", "line 2: no task b before this line"),
        ("a k1 true\na | a", "line 2: a pipe from a to itself"),
        ("a k1 x\nb k1 x\na | b |", "line 3: usage: A | B"),
        ("a k1 x\nb k1 x\na | b | b", "line 3: a pipe from b to itself"),
        ("a k1 x\nb k1 x\nc k1 x\na | b\nc | b", "the input of b is in 2 pipes"),
        ("a k1 x\nb k1 x\na ||| b", "line 3: usage: \\[N\\] A \\|\\|\\| B"),
        ("a k1 x\nb k1 x\n[0] a ||| b", "line 3: usage: \\[N\\] A \\|\\|\\| B, with N from 1"),
        ("a k1 x\nb k1 x\n[2] a | b", "line 3: usage: \\[N\\] A \\|\\|\\| B"),
        ("a k1 x\n[2] a ||| a", "line 2: a cannot be its own worker"),
        ("a k1 x\nb k1 x\nc k1 x\n[2] a ||| b\nb | c", "the output of b is in 2 pipes"),
        ("a k1 x\nb k1 x\n[1024] a ||| b", "1025 tasks: a force has 1024 at most"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, said: str) -> None:
    with pytest.raises(NineError, match=said):
        parse(text)


def test_a_kernel_fits_by_its_values() -> None:
    facts = {"arch": "x86_64", "release": "6.12.1-amd64", "cpus": "4", "memory": "1073741824"}
    for attributes, fit in (
        ((), True),
        ((("arch", "x86_64"),), True),
        ((("arch", "x86"),), False),
        ((("release", "6.12*"), ("cpus", ">3")), True),
        ((("cpus", ">4"),), False),
        ((("cpus", "<5"),), True),
        ((("cpus", ">many"),), False),
        ((("gpu", "*"),), True),
        ((("gpu", "a*"),), False),
    ):
        assert fits(Where("", attributes), facts) is fit, attributes


async def test_tasks_are_spread_by_cpus_and_lost_kernels_are_left_out() -> None:
    kernels = {"a": {"cpus": "1"}, "b": {"cpus": "2"}}
    tasks: Counter[str] = Counter()
    order = []
    for _ in range(6):
        order.append(await in_slices(choose(Where(), kernels, tasks)))
        tasks[order[-1]] += 1
    assert Counter(order) == {"a": 2, "b": 4}
    assert await in_slices(choose(Where(), kernels, tasks, {"b"})) == "a"
    assert await in_slices(choose(Where("b"), kernels, tasks, {"b"})) == "b"
