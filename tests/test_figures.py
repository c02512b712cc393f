"""The figures of the benches, against those that were published."""

from pathlib import Path

import pytest

from tests.bench import figures
from tests.bench.figures import Figure


def test_what_has_become_slower_is_told_and_nothing_else() -> None:
    then = {
        f.name: f
        for f in (Figure("ratio", 2.0), Figure("time", 100, "us", lower=True), Figure("gone", 1), Figure("even", 1))
    }
    now = {
        f.name: f
        for f in (Figure("ratio", 1.8), Figure("time", 106, "us", lower=True), Figure("new", 1), Figure("even", 0.96))
    }
    assert figures.slower(now, then) == ["ratio: 1.8 , was 2: 11% worse", "time: 106 us, was 100: 6% worse"]
    better = {f.name: f for f in (Figure("ratio", 3.0), Figure("time", 50, "us", lower=True))}
    assert figures.slower(better, then) == []


def test_figures_are_noted_by_a_run_and_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "FILE", tmp_path / "figures.json")
    script = tmp_path / "script.py"
    script.write_text("from tests.bench.figures import note\nnote('one', 1.5)\nnote('two', 20, 'us', lower=True)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    monkeypatch.setattr(figures, "BENCHES", {"it": ("script",)})
    found = figures.run(["it"])
    assert found == {"one": Figure("one", 1.5), "two": Figure("two", 20, "us", True)}
    figures.publish(found)
    figures.publish({"two": Figure("two", 10, "us", True)})
    assert figures.published() == {"one": Figure("one", 1.5), "two": Figure("two", 10, "us", True)}
    assert figures.slower(found, figures.published()) == ["two: 20 us, was 10: 100% worse"]


def test_a_run_whose_figures_nobody_keeps_notes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(figures.NOTED, raising=False)
    figures.note("one", 1.0)
