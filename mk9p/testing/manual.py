"""`check_page`: compares a manual page with its tree, both ways. It fails for what the page does not describe, and for what it describes and does
not exist.

A page is Markdown in the shape of Plan 9's section 3, with these sections in this order: NAME, SYNOPSIS, DESCRIPTION, ERRORS, SOURCE, BUGS; others
may come between. The tree must agree with these parts:

* NAME is a line: the name, a dash, what it is.
* SYNOPSIS has the tree as a code block, indented by levels. Names of directories end in `/`. Capitals stand for what differs (`N/`, `NAMEctl`,
  `PART…`), `…` for whatever exists. Directories that are alone on a line have the same files.
* DESCRIPTION has for each file a sentence that begins with its name, as code: `N/ctl` where there is another `ctl`. After the sentence of a ctl it
  has the ctl's words: list items (``- `online N…` bring CPUs into use``), rows of a table whose first column is `word` or `setting`, or names
  after "takes". A word has the arguments that its usage has, whatever their names.
* It has an example for each file, which is code with its path, and for each word, which is code that says it (`echo online 1 > cpu/ctl`). All last
  errors (`error`) are alike: one sentence and one example are enough.

The usage in the answer to an unknown word tells which words a ctl has: the check uses what a user sees.
"""

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Final

import attrs

from mk9p.client import Client
from mk9p.page import Page, Path, Shown, Told, stands_for, usage, word_of
from mk9p.tree import Stat

MOST: Final = 4  # files of each kind to look at: of all processes, a few
_WORD: Final = "no-such-word-at-all"


async def check_page(text: str, client: Client, *, places: Mapping[str, str] | None = None) -> None:
    """Compare a manual page with the tree that `client` has at its root; raises AssertionError that says everything that is wrong, one a line.

    The tree must have at least one file of each kind in SYNOPSIS. The check begins conversations itself, by opening `clone`; the caller makes the
    rest. `places` are regular expressions for the names in capitals (`{"NAME": "tty.*"}`), so no file with another name is taken for one of those;
    N is a number, all others may be any name. The check writes a word that no ctl has into each ctl.
    """
    page = Page.parse(text)
    async with AsyncExitStack() as stack:
        tree = _Tree(client, page, places or {}, stack)
        await tree.look()
        ctls = {one: await tree.words(paths) for one, paths in tree.ctls.items()}
    told = Told.of(page, ctls.keys())
    wrong = [*tree.wrong, *_files(page, told, tree.found)]
    for one, words in ctls.items():
        wrong += _words(one, words, told)
    assert not wrong, "\n".join(["the page and the tree differ:", *wrong])


def _files(page: Page, told: Told, found: set[Path]) -> Iterator[str]:
    """Say what is wrong with what a page says of files, of which those on these paths of SYNOPSIS were found."""
    named = {page.named(name) for name in told.names}
    ends = {name.rpartition("/")[2] for name in told.names}
    examples = {one for one in page.shown if page.example(one, told.code)}
    for one in page.shown:
        for path in one.paths:
            if path not in found and path[-1] != "…":
                yield f"{'/'.join(path)}: is in SYNOPSIS, and not in the tree"
        if one.directory or one.name == "…":
            continue
        error = one.name.endswith("error")
        if one not in named and not (error and one.name in ends):
            yield f"{one}: no sentence of DESCRIPTION begins with it"
        if one not in examples and not (error and any(other.name == one.name for other in examples)):
            yield f"{one}: has no example"


def _words(ctl: Shown, words: Mapping[str, str], told: Told) -> Iterator[str]:
    """Say what is wrong with what a page says of the words of a ctl."""
    there = told.words.get(ctl, {})
    for word, form in words.items():
        if word not in there:
            yield f"{ctl}: the word `{form}` is not in DESCRIPTION"
        elif not _told(form, there[word]):
            yield f"{ctl}: the page has `{'`, `'.join(there[word])}`, the usage is `{form}`"
        elif not told.example(word):
            yield f"{ctl}: the word {word} has no example"
    yield from (f"{ctl}: has no word `{forms[0]}`" for word, forms in there.items() if word not in words)


def _told(form: str, there: list[str]) -> bool:
    """Tell whether the page has a usage: as it is, or with each of the words that it gives to choose from."""
    shapes = {_shape(one) for one in there}
    choice = re.search(r"(?<= )[a-z_-]+(?:\|[a-z_-]+)+", form)
    each = {form.replace(choice[0], one, 1) for one in choice[0].split("|")} if choice else set()
    return _shape(form) in shapes or bool(each and {_shape(one) for one in each} <= shapes)


def _shape(form: str) -> str:
    """Return a usage without the names of its arguments. Marks for optional, repeated and literal parts stay."""
    return re.sub(r"[A-Z][A-Z_=!-]*", "X", form)


@attrs.define
class _Tree:
    """What exists in the tree of a page: the paths of SYNOPSIS that were found, and the ctls with their real paths."""

    client: Client
    page: Page
    places: Mapping[str, str]
    stack: AsyncExitStack
    found: set[Path] = attrs.field(factory=set)
    ctls: dict[Shown, list[str]] = attrs.field(factory=dict)
    wrong: list[str] = attrs.field(factory=list)

    async def look(self, folder: str = "") -> None:
        """Look at all files below a directory, a few of each kind; begin conversations, and hold them until the stack is closed."""
        names = {entry.name: entry.is_dir for entry in await self._listed(folder)}
        seen: dict[Path, int] = {}
        for name, directory in names.items():
            path = f"{folder}/{name}".lstrip("/")
            found = self.page.find(tuple(path.split("/")), self.places, directory=directory)
            if found is None:
                self.wrong.append(f"{path}: is in the tree, and not in SYNOPSIS")
                continue
            one, shown = found
            self.found.add(shown)
            seen[shown] = seen.get(shown, 0) + 1
            if one.name == "…" or (stands_for(one.name) and seen[shown] > MOST):
                continue
            if directory:
                with suppress(FileNotFoundError):  # gone meanwhile
                    await self.look(path)
            elif f"{name.removesuffix('ctl')}error" in names and f"{name}ctl" not in names:
                self.ctls.setdefault(one, []).append(path)

    async def _listed(self, folder: str) -> list[Stat]:
        entries = await self.client.listdir(folder)
        if any(entry.name == "clone" for entry in entries):
            ctl = await self.stack.enter_async_context(await self.client.open(f"{folder}/clone", "r+"))
            await ctl.pread(100, 0)
            entries = await self.client.listdir(folder)
        return entries

    async def words(self, paths: list[str]) -> dict[str, str]:
        """Return the words of ctls, with their usage, as they tell it themselves."""
        words: dict[str, str] = {}
        for path in paths:
            refusal: OSError | None = None
            try:
                await self.client.write(path, _WORD)
            except OSError as error:
                refusal = error
            said = (await self.client.read(f"{path.removesuffix('ctl')}error")).strip()
            assert refusal is not None, f"{path}: takes any word"
            assert refusal.errno == errno.EINVAL, f"{path}: an unknown word is {refusal!r}"
            assert "usage: " in said, f"{path}: an unknown word is answered with {said!r}, which tells no words"
            words |= {word_of(form): usage(form) for form in said.partition("usage: ")[2].split(" · ")}
        return words
