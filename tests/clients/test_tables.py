"""Tables of the manual: each file that has columns says which, as `explain` and `cat` on a terminal need it, and the examples have those."""

import re
from collections.abc import Iterator

import pytest

from mk9p.clients.columns import _WORDS
from mk9p.clients.explain import Columns, columns_of, told
from mk9p.clients.help import page, pages
from mk9p.page import Page, Shown

# what has several words on a line and is no table: records in somebody else's form, words that can be written back, answers, lines of keys and values
NO_TABLES = {
    "auth policy": "rules",
    "compose ns": "words",
    "dev kmsg": "records of the kernel's",
    "dev/block NAME/raw": "a status of SCSI",
    "dev/tty NAMEstatus": "two lines of uart(3), and one of its own",
    "kernels NAME/wait": "words",
    "mem node/N/status": "keys and values",
    "net tcp/N/status": "a state, then keys and values",
    "net cs": "answers",
    "net dns": "answers",
    "net ndb": "an entry of ndb(6)",
    "net ipifc/N/status": "keys and values, then addresses",
    "power cap/ZONE/status": "keys and values, then constraints",
    "sensors cooling_deviceN/status": "keys and values",
    "sensors thermal_zoneN/status": "keys and values, then trips",
    "registry new": "it takes one line",
    "proc N/ns": "words, then mounts as words",
    "proc N/args": "arguments",
    "wasm N/ns": "words",
}


def each() -> Iterator[tuple[str, Page, Shown]]:
    for name in pages():
        whole = Page.parse(page(name))
        yield from ((name, whole, shown) for shown in whole.shown if not shown.directory and shown.name != "…")


def examples(whole: Page, shown: Shown) -> Iterator[str]:
    """Yield the lines that the examples of a file show of it."""
    for fenced in re.findall(r"^```\n(.*?)^```", "\n\n".join(told(whole, shown)), re.DOTALL | re.MULTILINE):
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", fenced, re.MULTILINE):
            if (said := re.fullmatch(r"(?:cat|tail -n \d+) (\S+)", command)) is not None:
                names = tuple(said[1].removeprefix("/mnt/n/").split("/"))
                top = tuple(whole.top.rpartition("/")[2:]) if whole.top else ()
                for at in range(len(names)):
                    if names[at : at + len(top)] == top:
                        hit = whole.find(names[at + len(top) :], {}, directory=False)
                        if hit is not None and hit[0] == shown:
                            yield from (line for line in output.splitlines() if line != "…")
                            break


def fit(names: tuple[str, ...], words: list[str]) -> bool:
    """Tell whether a line may have these words: all columns, or none of the last one, or more of a last one that may be several."""
    most = len(words) if names[-1].endswith("…") else len(names)
    return len(names) - 1 <= len(words) <= most


def test_the_columns_of_a_table_are_those_that_its_examples_have() -> None:
    tried = 0
    for name, whole, shown in each():
        if names := columns_of(whole, shown).names:
            for line in examples(whole, shown):
                assert fit(names, _WORDS.findall(line)), (name, str(shown), line)
                tried += 1
    assert tried > 40


def test_a_file_with_several_words_on_a_line_is_a_table_or_has_keys_and_values() -> None:
    lacking = []
    for name, whole, shown in each():
        if columns_of(whole, shown).names or shown.name.endswith(("ctl", "error", "config")):
            continue
        text = " ".join("\n\n".join(told(whole, shown)).split())
        if not re.search(
            r"for each (value|thing|attribute|property)|`key value`|a line for each of `|an attribute a line", text
        ):
            lacking += [f"{name} {shown}"] if any(" " in line for line in examples(whole, shown)) else []
    assert set(lacking) <= NO_TABLES.keys()


def test_a_file_that_is_told_to_have_a_layout_has_columns() -> None:
    layout = re.compile(r"`[A-Z]+(?:_[A-Z]+)?(?: [A-Z][A-Z_]+){2,}[^`]*`|`SEQ TIME_NS")
    lacking = []
    for name, whole, shown in each():
        block = next((block for block in told(whole, shown) if block.startswith((f"`{shown.name}`", f"`{shown}`"))), "")
        if layout.search(re.split(r"\n(?:```|\||- )", block)[0]) and not shown.name.endswith(("ctl", "error")):
            lacking += [] if columns_of(whole, shown).names else [f"{name} {shown}"]
    assert set(lacking) <= NO_TABLES.keys()


def test_what_is_no_table_is_in_the_manual() -> None:
    assert {f"{name} {shown}" for name, _, shown in each()} >= NO_TABLES.keys()


@pytest.mark.parametrize(
    ("text", "names", "waits"),
    [
        ("`x` has a line for each CPU: `N STATE`.", ("N", "STATE"), False),
        ("`x` blocks, and gives one line, `pid 'status'`.", ("pid", "status"), False),
        ("`x` waits: `SEQ TIME_NS up NAME`, `SEQ TIME_NS down NAME`.", ("SEQ", "TIME_NS", "WHAT", "ARGS…"), True),
        ("`x` has a line for each call, `N WHO`. A read waits for the next line.", ("N", "WHO"), True),
        ("`x` has `name` and `type`, then a line for each trip, `N TEMP`.", (), False),
        ("`x` has a line for each value: `name type`.", (), False),
        ("`x` has all on one line: `cat t/x`.", (), False),
    ],
)  # fmt: skip
def test_a_sentence_tells_columns_in_these_forms(text: str, names: tuple[str, ...], waits: bool) -> None:
    whole = Page({"DESCRIPTION": text}, "t", [Shown((("x",),))])
    assert columns_of(whole, whole.shown[0]) == Columns(names, waits)
