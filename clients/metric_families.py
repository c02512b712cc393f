"""Families of Prometheus's text format 0.0.4: made here, and taken from others with one more label.

A family is its HELP and TYPE lines, then its samples, all together, from whomever they come. What another server says is believed only where it is a
line of this format: every other line is left out, and so is a family beyond `FAMILIES` or a sample beyond `SAMPLES`.
"""

import re
from collections.abc import Mapping
from typing import Final

import attrs

from mk9p.ktext import split_lines

FAMILIES: Final = 1000  # a daemon has 30
SAMPLES: Final = 100_000  # 1,000 CPUs have 10,000
_NAME: Final = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABELS: Final = r'(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*"(?:,(?=[a-zA-Z_])|(?=\})))*'
_KEY: Final = re.compile(r'([a-zA-Z_]\w*)="(?:[^"\\]|\\.)*"', re.ASCII)
_SAMPLE: Final = re.compile(
    rf"({_NAME})(?:\{{({_LABELS})\}})? ([-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|Inf)|NaN)", re.ASCII
)
_HEAD: Final = re.compile(rf"# (HELP|TYPE) ({_NAME}) (.*)", re.ASCII)
_KINDS: Final = ("counter", "gauge", "histogram", "summary", "untyped")
_PARTS: Final = ("_bucket", "_sum", "_count")  # of a histogram
Labels = Mapping[str, object]


@attrs.define
class Family:
    """One family: what it is about, its kind, its samples as lines without an end."""

    about: str
    kind: str
    samples: list[str] = attrs.field(factory=list)


@attrs.define
class Families:
    """Families by their names."""

    _all: dict[str, Family] = attrs.field(factory=dict)
    _count: int = 0

    def gauge(self, name: str, about: str, labels: Labels, value: float) -> None:
        """Add a sample of a value that goes up and down."""
        self._put(name, about, "gauge", sample(name, labels, value))

    def counter(self, name: str, about: str, labels: Labels, value: float) -> None:
        """Add a sample of a count that begins at 0 and only grows."""
        self._put(name, about, "counter", sample(name, labels, value))

    def _put(self, name: str, about: str, kind: str, line: str) -> None:
        family = self._all.get(name)
        if family is None:
            if len(self._all) >= FAMILIES:
                return
            family = self._all[name] = Family(about, kind)
        if self._count < SAMPLES and family.kind == kind:
            self._count += 1
            family.samples.append(line)

    def add(self, other: "Families") -> None:
        """Add all samples of others."""
        for name, family in other._all.items():
            for line in family.samples:
                self._put(name, family.about, family.kind, line)

    def take(self, text: str, labels: Labels) -> None:
        """Add what another server says of itself, with labels before its own. Lines that are not of the format are left out."""
        heads: dict[str, dict[str, str]] = {}
        first = _inside(labels)
        for line in split_lines(text):
            if head := _HEAD.fullmatch(line):
                heads.setdefault(head[2], {})[head[1]] = head[3]
            elif found := _SAMPLE.fullmatch(line):
                name = next(
                    (found[1].removesuffix(part) for part in _PARTS if _histogram(heads, found[1], part)), found[1]
                )
                kind = heads.get(name, {}).get("TYPE", "untyped")
                inside = ",".join(each for each in (first, found[2]) if each)
                keys = _KEY.findall(inside)
                if kind in _KINDS and len(keys) == len(set(keys)):
                    about = heads.get(name, {}).get("HELP", "-")
                    self._put(name, about, kind, f"{found[1]}{{{inside}}} {found[3]}" if inside else line)

    def text(self) -> str:
        """Return the whole text, by the families' names."""
        lines = []
        for name, family in sorted(self._all.items()):
            lines += [f"# HELP {name} {family.about}", f"# TYPE {name} {family.kind}", *family.samples]
        return "".join(f"{line}\n" for line in lines)


def _histogram(heads: Mapping[str, Mapping[str, str]], name: str, part: str) -> bool:
    return name.endswith(part) and heads.get(name.removesuffix(part), {}).get("TYPE") == "histogram"


def sample(name: str, labels: Labels, value: float) -> str:
    """Return the line of a sample."""
    return f"{name}{{{_inside(labels)}}} {value}"


def _inside(labels: Labels) -> str:
    return ",".join(f'{key}="{_escaped(str(text))}"' for key, text in labels.items())


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
