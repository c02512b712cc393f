"""Linux's own client of 9P2000.u and 9P2000, on an exported directory: links, setuid and sticky bits, names, times."""

import sys
from pathlib import Path

import pytest

from tests.kernels.guests import require
from tests.vm.test_vm_fs import exported

TOP = Path(__file__).parents[2]


@pytest.mark.parametrize(("kind", "kernel"), [("uml", "uml"), pytest.param("qemu", "6.12", marks=pytest.mark.minutes)])
async def test_9p2000_u_and_9p2000_say_what_they_can(host: Path, home: Path, kind: str, kernel: str) -> None:
    """On 6.1 over tcp, on 6.12 over a virtio port and a relay."""
    require(kind)
    async with exported(host, home, kind, kernel) as mounted:
        for version, more in (("9p2000.u", ""), ("9p2000", " plain")):
            where = f"{mounted.where}/{version}"
            output = await mounted.sh(
                f"mkdir -p {mounted.where}; cd {TOP}; umount {mounted.where} 2>/dev/null;"
                f"{sys.executable} -m tests.vm.mount_as {version} --v9fs '{mounted.guest.running.guest_dial}' {mounted.where}"
                f" && mkdir {where} && python3 -B -m tests.vm.unix_cases {where}{more} 2>&1; umount {mounted.where}"
            )
            print(output)
            lines = output.splitlines()
            assert len([line for line in lines if line.startswith("ok ")]) > 10, output
            notes = [line for line in lines if not line.startswith("ok ")]
            assert all(note.startswith("mk9p mount: note: ") for note in notes), output
            assert [note for note in notes if f"took version={version} and" in note], output
