"""kerf's own command line at the emulated kernel: so what mk9p is tested at is what kerf takes for that kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernels.multikernel.place import placed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernels.multikernel.place import Place

INIT = "kerf init --cpus=1-5 --memory=512MB@0 || exit\n"
STATUS = "cat /sys/fs/multikernel/instances/*/status"


@pytest.fixture
def place() -> Iterator[Place]:
    with placed() as place:
        yield place


def test_the_life_of_an_instance(place: Place) -> None:
    said = place.sh(f"""{INIT}
        kerf create k1 --cpus=1,2 --memory=256MB || exit
        {STATUS}
        kerf load k1 -k /bin/true -c quiet || exit
        {STATUS}
        kerf start k1 || exit
        {STATUS}
        kerf update k1 --cpus=1,2,4 || exit
        kerf update k1 --memory=320MB || exit
        kerf show k1
        kerf delete k1
        kerf kill k1 || exit
        kerf unload k1 || exit
        {STATUS}
        kerf delete k1 || exit
        ls /sys/fs/multikernel/instances
        kerf init --cpus=none --memory=none || exit
        tail -n1 /proc/iomem""")
    states = [word for word in said.split("\n") if word in ("ready", "loaded", "active", "failed")]
    assert states == ["ready", "loaded", "active", "ready"], said
    assert "cpus = <0x0 0x1 0x0 0x2 0x0 0x4>" in said, said
    assert "memory-bytes = <0x0 0x14000000>" in said, said
    assert "currently ACTIVE" in said
    assert said.endswith("Pool updated (transaction 5)\n00001000-0009ffff : System RAM\n"), said


def test_devices_and_what_is_refused(place: Place) -> None:
    said = place.sh(f"""{INIT}
        kerf create k1 --cpus=1 --memory=64MB || exit
        kerf create k2 --cpus=1 --memory=64MB && echo doubled
        kerf create k2 --cpus=2 --memory=1GB && echo too much
        echo refuse the spawn did not answer > /sys/fs/multikernel/.order
        kerf update k1 --cpus=1,2
        cat /sys/fs/multikernel/overlays/tx_2/status /sys/fs/multikernel/overlays/tx_2/instance
        rmdir /sys/fs/multikernel/overlays/tx_1 && ls /sys/fs/multikernel/instances
        kerf start k1
        env printf 'boot 7\\n' > /sys/fs/multikernel/.syscall
        env printf x > /sys/fs/multikernel/overlays/new; cat /sys/fs/multikernel/overlays/tx_*/status | tail -n1
        env printf x > /sys/fs/multikernel/device_tree
        mkdir /sys/fs/multikernel/instances/k9""")
    assert "doubled" not in said
    assert "too much" not in said
    assert "failed: the spawn did not answer\n/instances/k1\n" in said, said
    assert "Instance 'k1' not found" in said  # it was rolled back
    assert "failed: no device tree" in said
    assert "No such process" in said
    assert said.count("Device or resource busy") == 1
    assert "Operation not permitted" in said or "Permission denied" in said


def test_a_console(place: Place) -> None:
    said = place.sh(f"""{INIT}
        kerf create k1 --cpus=1 --memory=64MB && kerf load k1 -k /bin/true -c one && kerf start k1 || exit
        exec 3<>/dev/mktty; echo 1 >&3; head -n2 <&3; echo typed >&3; head -n1 <&3""")
    assert "Linux version 0 (emulated)\nCommand line: one console=mktty0\ntyped\n" in said, said
