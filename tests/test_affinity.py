"""CPU lists and masks as the kernel writes them, and work kept off CPUs on a made-up /proc."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mk9p.affinity import CpuList, Setting, away, interrupts, keep_off, listed, masked, numbers, unmasked

CPUS = st.frozensets(st.integers(0, 200))


def test_lists_are_the_kernels() -> None:
    assert numbers("0-2,5,7-8") == [0, 1, 2, 5, 7, 8]
    assert numbers("") == []
    assert listed([8, 0, 1, 2, 5, 7]) == "0-2,5,7-8"
    assert listed([]) == ""
    assert list(CpuList.chosen([CpuList("3"), CpuList("0-1,3")])) == [3, 0, 1, 3]
    assert next(CpuList.chosen([CpuList("7-999999999999")])) == 7  # not expanded


@pytest.mark.parametrize("text", ["", "x", "1-", "-1", "3-1", "1,,2", "0-15:2/8", "\u0661"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        CpuList(text)


def test_masks_are_the_kernels() -> None:
    """As /proc/irq/default_smp_affinity shows them, in words of 32 bits."""
    assert masked([0, 1, 2, 3]) == "f"
    assert masked([]) == "0"
    assert masked([0, 32]) == "1,00000001"
    assert masked([64]) == "1,00000000,00000000"
    assert unmasked("00000001,0000000f") == [0, 1, 2, 3, 32]
    assert unmasked("0") == []


@given(CPUS)
def test_what_is_written_is_read_back(cpus: frozenset[int]) -> None:
    assert frozenset(numbers(listed(cpus))) == frozenset(unmasked(masked(cpus))) == cpus


@given(CPUS, CPUS, CPUS, st.integers(0, 200))
def test_nothing_goes_where_it_is_kept_off(
    cpus: frozenset[int], off: frozenset[int], others: frozenset[int], left: int
) -> None:
    others = others | {left}
    off = off - {left}
    found = away(cpus, off, others)
    assert found
    assert not found & off
    assert found == cpus - off or not cpus - off


def test_what_was_moved_before_is_moved_anew(tmp_path: Path) -> None:
    for n, cpus in ((1, "0"), (2, "0-1"), (3, "2")):
        (tmp_path / f"proc/irq/{n}").mkdir(parents=True)
        (tmp_path / f"proc/irq/{n}/smp_affinity_list").write_text(f"{cpus}\n")
    settings = interrupts(str(tmp_path))
    assert list(settings) == [1, 2, 3]
    kept = {settings[1].path: frozenset({3}), settings[2].path: frozenset({0, 1, 3})}
    assert keep_off(settings.values(), frozenset({1}), frozenset({0, 1, 2, 3}), kept=kept) == {}
    assert [sorted(s.read()) for s in settings.values()] == [[0], [0, 3], [2]]


def test_a_refusal_counts_where_it_really_goes(tmp_path: Path) -> None:
    """A setting that cannot be written is refused if what it is of goes there, and not for what it may."""
    (tmp_path / "list").symlink_to("/sys/devices/system/cpu/online")
    (tmp_path / "where").write_text("")
    off, others = frozenset({0}), frozenset({1})
    refused = Setting(str(tmp_path), "list")
    assert list(keep_off([refused], off, others)) == [refused]
    assert keep_off([Setting(str(tmp_path), "list", effective="where")], off, others) == {}
    assert keep_off([Setting(str(tmp_path), "none")], off, others) == {}
