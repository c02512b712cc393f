"""JSON that somebody else says, read at one door: whatever is wrong with it is one error."""

import json
import math
from typing import Any

__all__ = ["from_json"]


def from_json(data: bytes | bytearray | str) -> Any:
    """Read it. Raises ValueError for what is no JSON, numbers that are none, text that cannot be written, and what is nested too deeply."""
    try:
        found = json.loads(data, parse_constant=_none, parse_float=_finite)
        if (b"\\u" if isinstance(data, bytes | bytearray) else "\\u") in data:  # type: ignore[operator]
            # half of a surrogate pair is no letter, unless it stands for a byte that is not UTF-8 (PEP 383)
            json.dumps(found, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return found


def _none(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    found = float(text)
    return found if math.isfinite(found) else _none(text)
