"""A manual page, read: which files and words it describes, and with which examples. mk9p/testing/manual.py says what
shape a page has.

Code is everything between backquotes or fences. A sentence begins after a full stop or semicolon, and so does each paragraph and list item.
"""

import re
from collections.abc import Iterator, Mapping, Set
from typing import Final

import attrs

SECTIONS: Final = ("NAME", "SYNOPSIS", "DESCRIPTION", "ERRORS", "SOURCE", "BUGS")

Path = tuple[str, ...]

_PLACE: Final = re.compile(r"[A-Z]+(?:-[A-Z]+)*…?|^…$")  # names that stand for something else in the name of a file
_FENCED: Final = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_CODE: Final = r"`([^`]+)`"
_NAMES: Final = re.compile(rf"(?:Opening )?{_CODE}(?:(?:, or |, and |, | and | or ){_CODE})*")
_WORD: Final = re.compile(r"[a-z_-]+")


@attrs.frozen
class Shown:
    """A file as SYNOPSIS shows it. It has several paths, below the top, if several directories have the same files."""

    paths: tuple[Path, ...]
    directory: bool = False

    @property
    def name(self) -> str:
        """Return the last part of its path."""
        return self.paths[0][-1]

    def __str__(self) -> str:
        return "/".join(self.paths[0])


@attrs.frozen
class Page:
    """A page: its sections by name, the directory that its tree begins with, and the files of that."""

    sections: dict[str, str]
    top: str
    shown: list[Shown]

    @classmethod
    def parse(cls, text: str) -> "Page":
        """Parse a page; raises AssertionError if it lacks a section or a tree."""
        parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
        sections = dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))
        missing = [name for name in SECTIONS if not sections.get(name)]
        assert not missing, f"missing or empty: {', '.join(missing)}"
        assert tuple(name for name in sections if name in SECTIONS) == SECTIONS, f"the order is {', '.join(SECTIONS)}"
        assert re.match(r"\w[\w-]* [-\u2013] \S", sections["NAME"]), "NAME is not a name, a dash, and what it is"
        block = _FENCED.search(sections["SYNOPSIS"])
        lines = [line for line in block[1].splitlines() if line.strip() and line[:5] != "mk9p "] if block else []
        assert lines, "SYNOPSIS has no tree"
        assert lines[0].endswith("/"), "the tree of SYNOPSIS begins with no directory"
        return cls(sections, lines[0].strip("/"), list(_tree(lines[1:])))

    def named(self, text: str) -> Shown | None:
        """Return the file that a name in the text means: the one with this whole path, or the only one whose path ends so."""
        parts = tuple(text.strip("/").split("/"))
        ends = [one for one in self.shown if any(path[-len(parts) :] == parts for path in one.paths)]
        whole = [one for one in ends if parts in one.paths]
        return whole[0] if whole else ends[0] if len(ends) == 1 else None

    def find(self, path: Path, places: Mapping[str, str], *, directory: bool) -> tuple[Shown, Path] | None:
        """Return which entry of SYNOPSIS a file of the tree is, and on which path: by its own name rather than by a name that stands for it."""
        fits = [
            (sum(bool(_PLACE.search(part)) for part in shown), one, shown)
            for one in self.shown
            for shown in one.paths
            if (one.directory == directory or shown[-1] == "…") and _fits(shown, path, places)
        ]
        return min(fits, key=lambda fit: fit[0])[1:] if fits else None

    def example(self, one: Shown, code: list[str]) -> bool:
        """Tell whether some code uses that file. Its path begins with the last part of the top, or with directories before that."""
        top = self.top.rpartition("/")[2:][:1] if self.top else ()
        for path in one.paths:
            parts = ("[^/\\s]+".join(re.escape(piece) for piece in _PLACE.split(part)) for part in (*top, *path))
            expression = re.compile(rf"(?:^|[\s<>='\"/]){'/'.join(parts)}(?![\w/-])", re.MULTILINE)
            if any(" " in text and expression.search(text) for text in code):
                return True
        return False


def stands_for(name: str) -> bool:
    """Tell whether a name in SYNOPSIS stands for other names."""
    return _PLACE.search(name) is not None


def _tree(lines: list[str]) -> Iterator[Shown]:
    """Read the tree of SYNOPSIS below its top."""
    # the directories that a line may be in, and where they begin
    above: list[tuple[int, tuple[Path, ...]]] = [(-1, ((),))]
    for line in lines:
        names, indent = line.split(), len(line) - len(line.lstrip())
        while len(above) > 1 and above[-1][0] >= indent:
            above.pop()
        inside = above[-1][1]
        paths = {name: tuple((*path, *name.strip("/").split("/")) for path in inside) for name in names}
        folders = [name for name in names if name.endswith("/")]
        yield from (
            Shown((path[:-1],), directory=True) for name in names for path in paths[name] if "/" in name.strip("/")
        )
        if folders:
            above.append((indent, tuple(path for name in folders for path in paths[name])))
        if len(folders) == len(names):
            yield Shown(above[-1][1], directory=True)
        else:
            yield from (Shown(paths[name], name in folders) for name in names)


def _fits(shown: Path, path: Path, places: Mapping[str, str]) -> bool:
    return len(shown) == len(path) and all(
        re.fullmatch(_expression(part, places), name) for part, name in zip(shown, path, strict=True)
    )


def _expression(part: str, places: Mapping[str, str]) -> str:
    """Return the expression for the names that a part of a path stands for."""
    expression, at = "", 0
    for place in _PLACE.finditer(part):
        what = places.get(place[0].removesuffix("…"), "[0-9]+" if place[0] == "N" else "[^/]+")
        expression += re.escape(part[at : place.start()]) + f"(?:{what})"
        at = place.end()
    return expression + re.escape(part[at:])


@attrs.define
class Told:
    """What a DESCRIPTION describes: names of files that begin sentences, the words of each ctl with their usages, and all code."""

    names: set[str] = attrs.field(factory=set)
    words: dict[Shown, dict[str, list[str]]] = attrs.field(factory=dict)
    code: list[str] = attrs.field(factory=list)

    @classmethod
    def of(cls, page: Page, ctls: Set[Shown]) -> "Told":
        """Read the DESCRIPTION of a page; `ctls` are those of its files that take words."""
        text = page.sections["DESCRIPTION"]
        prose = _FENCED.sub("\n", text)
        told = cls(code=[*_FENCED.findall(text), *(" ".join(code.split()) for code in re.findall(_CODE, prose))])
        ctl: Shown | None = None
        for kind, piece in _pieces(prose):
            begins = (
                _begins(piece) if kind != "row" else ((code, "") for code in re.findall(_CODE, piece.split(" | ")[0]))
            )
            for code, rest in begins:
                if kind != "text" and ctl is not None:
                    told._word(ctl, code)
                    continue
                told.names.add(code)
                one = page.named(code)
                if one in ctls and one is not None:
                    ctl = one
                    takes = re.match(rf" takes ({_NAMES.pattern})", rest)
                    for word in re.findall(_CODE, takes[1]) if takes else ():
                        told._word(ctl, word)
        return told

    def _word(self, ctl: Shown, code: str) -> None:
        if (word := _WORD.match(code)) is not None:
            self.words.setdefault(ctl, {}).setdefault(word[0], []).append(usage(code))

    def example(self, word: str) -> bool:
        """Tell whether some code says a word of a ctl: by `echo`, or on a line of its own in a block of several."""
        said = re.compile(
            rf"(?:^|(?:echo|printf|write) (?:.*(?:[\s'\"]|\\n))?){re.escape(word)}(?![a-z_-])", re.MULTILINE
        )
        usages = {form for words in self.words.values() for forms in words.values() for form in forms}
        return any(said.search(text) for text in self.code if usage(text) not in usages)


def usage(text: str) -> str:
    """Return a usage as a server writes it."""
    return " ".join(text.replace("…", "...").split())


def word_of(usage: str) -> str:
    """Return the word of a usage: `b` of `bSPEED`; empty if it has none."""
    found = _WORD.match(usage)
    return found[0] if found else ""


def _pieces(prose: str) -> Iterator[tuple[str, str]]:
    """Yield paragraphs ("text"), list items ("item") and rows of tables; rows of words ("row") are those whose head says so."""
    for paragraph in re.split(r"\n\s*\n|^#.*$", prose, flags=re.MULTILINE):
        kind, text, of_words = "text", list[str](), False
        for line in [*paragraph.strip().splitlines(), "- "]:
            row = line.replace("\\|", "|").strip("| ") if line.startswith("|") else ""
            if (row or line.startswith("- ")) and text:
                yield kind, " ".join(" ".join(text).split())
                text = []
            if row:
                of_words = of_words or row.split(" | ")[0].strip() in ("word", "setting")
                yield "row" if of_words else "text", row
            else:
                kind = "item" if line.startswith("- ") else "text" if not text else kind
                text.append(line.removeprefix("- "))


def begins(paragraph: str) -> list[str]:
    """Return the code that sentences of a paragraph begin with; not that of its list items, rows and examples."""
    text = re.split(r"(?:^|\n)(?:- |\||```)", paragraph, maxsplit=1)[0]
    return [code for code, _ in _begins(" ".join(text.split()))]


def _begins(text: str) -> Iterator[tuple[str, str]]:
    """Yield the code that sentences begin with, each with the rest of its sentence."""
    codes = re.findall(_CODE, text)
    numbers = iter(range(len(codes)))
    for sentence in re.split(r"(?<=[.;])\s+", re.sub(_CODE, lambda _: f"`{next(numbers)}`", text)):
        if (names := _NAMES.match(sentence)) is not None:
            rest = re.sub(_CODE, lambda found: f"`{codes[int(found[1])]}`", sentence[names.end() :])
            yield from ((codes[int(number)], rest) for number in re.findall(_CODE, names[0]))
