"""The checker of histories finds what is wrong."""

import pytest

from mk9p.lease.wish import SECOND, Mode, Wish
from tests.lease.history import Grant, wrong


def grant(token: int, call: int, told: int, ends: int | None, mode: Mode = "exclusive", key: str = "k1") -> Grant:
    return Grant(Wish(0, f"/{key}", (key,), mode, "ann", SECOND), token, call, told, ends)


def test_what_could_have_happened_is_right() -> None:
    assert not wrong([grant(1, 1, 2, 3), grant(2, 4, 5, None)])
    assert not wrong([grant(1, 1, 9, 5), grant(2, 2, 6, None)]), "they overlap, and the first may have ended at 5"
    assert not wrong([grant(1, 1, 2, None, "shared"), grant(2, 1, 2, None, "shared")])
    assert not wrong([grant(1, 1, 2, None), grant(2, 1, 2, None, key="k2")])


@pytest.mark.parametrize(
    "history",
    [
        [grant(1, 1, 2, None), grant(2, 3, 4, None)],
        [grant(1, 1, 2, 6), grant(2, 3, 4, None)],
        [grant(2, 1, 2, 3), grant(1, 4, 5, None)],
        [grant(1, 1, 2, 3, key="k2"), grant(1, 4, 5, None)],
        [grant(2, 1, 2, 3), grant(1, 4, 5, None, key="k2")],
        [grant(1, 1, 2, None, "shared"), grant(2, 3, 4, None)],
    ],
)
def test_what_could_not_is_found(history: list[Grant]) -> None:
    assert wrong(history)
