"""Numbers with units, in the signatures of ctl words and values: `def delay(self, seconds: Annotated[float, TIME])` takes `delay 20ms`."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

_WITH_UNIT: Final = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))([^\W\d_]*)")


@attrs.frozen
class Units:
    """What a number may be followed by, and how much that is: `Units({"": 1, "k": 1000})`. "" is the number alone."""

    factors: Mapping[str, int | float]

    def convert(self, to: type[int] | type[float]) -> Callable[[str], Any]:
        """Return a function that makes a number of a word. It raises ValueError for an unknown unit, and for a fraction where `to` is int."""

        def converted(word: str) -> Any:
            found = _WITH_UNIT.fullmatch(word)
            if found is None or found[2] not in self.factors:
                raise ValueError(word)
            number = float(found[1]) if "." in found[1] else int(found[1])
            value = number * self.factors[found[2]]
            if to is int and value != int(value):
                raise ValueError(word)
            return to(value)

        return converted

    @property
    def shown(self) -> str:
        """How usage shows what may follow the number."""
        return f"[{'|'.join(unit for unit in self.factors if unit)}]"


SIZE: Final = Units({"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40})
"""Bytes, as `512M`: powers of 1024, as memory and disks of kernels have them."""

TIME: Final = Units({"": 1, "ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600})
"""Seconds, as `20ms`."""
