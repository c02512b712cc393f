"""v9fs keeps a fid for each cached name with cache=loose: what a guest sees that looks at more names than its user may have here."""

from pathlib import Path

from mk9p.server.limits import Limits
from tests.kernels.guests import require
from tests.vm.test_vm_fs import exported

NAMES = 4000


async def test_a_user_who_caches_more_names_than_they_may_gets_enomem_until_the_kernel_drops_some(
    host: Path, home: Path
) -> None:
    require("uml")
    for directory in ("many", "other"):
        (host / directory).mkdir()
    for n in range(NAMES):
        (host / f"many/{n:05}").touch()
    (host / "other/f").write_text("f\n")
    async with exported(host, home, "uml", "uml", Limits(user_bytes=1 << 20)) as mounted:
        await mounted.mount("loose")
        at = mounted.where
        # find(1) looks at each for its size; what was cached stays usable, and what is new is not
        said = await mounted.sh(f"find {at}/many -size +0 2>&1 | grep -c 'Cannot allocate memory'")
        assert 0 < int(said) < NAMES
        said = await mounted.sh(f"ls {at}/many/00000 2>&1; cat {at}/other/f 2>&1; :")
        assert said == f"{at}/many/00000\ncat: {at}/other/f: Cannot allocate memory\n"
        said = await mounted.sh(f"echo 2 > /proc/sys/vm/drop_caches; cat {at}/other/f; ls {at}/many | wc -l")
        assert said == f"f\n{NAMES}\n"
