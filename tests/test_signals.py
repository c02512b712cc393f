"""Signals and endings in words."""

import errno
import signal

import pytest

from mk9p import signals
from mk9p.errors import NineError


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("INT", 2),
        ("SIGINT", 2),
        ("sigint", 2),
        ("interrupt", 2),
        ("hangup", 1),
        ("alarm", 14),
        ("kill", 9),
        ("15", 15),
        ("RTMIN", signal.SIGRTMIN),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("RTMAX", signal.SIGRTMAX),
    ],
)
def test_a_signal_has_several_words(word: str, value: int) -> None:
    assert signals.number(word) == value


@pytest.mark.parametrize(
    "word", ["", "0", "65", "-1", "NOSUCH", "INT+1", "RTMIN+", "RTMIN+x", "RTMIN+99", "SIG", "_DFL", "BLOCK", "²"]
)
def test_other_words_are_no_signals(word: str) -> None:
    with pytest.raises(NineError, match="unknown signal") as caught:
        signals.number(word)
    assert caught.value.errno == errno.EINVAL


def test_every_signal_has_a_name_that_means_it() -> None:
    for value in signal.valid_signals():
        assert signals.number(signals.name(value)) == value
    assert signals.name(15) == "SIGTERM"
    assert signals.name(signal.SIGRTMIN + 1) == "SIGRTMIN+1"
    assert signals.name(33) == "33"  # the C library's own


def test_endings_and_back() -> None:
    for code in range(256):
        words = signals.ending(code << 8)
        assert words == (f"exit {code}" if code else "")
        assert signals.exit_code(words) == code
    for value in signal.valid_signals():
        assert signals.ending(value) == f"signal {signals.name(value)}"
        assert signals.ending(value | 0x80) == signals.ending(value)  # with a core dump
        assert signals.exit_code(signals.ending(value)) == 128 + value
    assert signals.exit_code("-") == 1
