"""pyz.py FILE: make mk9p.pyz, one file that any Python 3.11 or newer runs: `python3 mk9p.pyz`, or the file itself.

It is an archive of Python's own kind (zipapp). Python imports from it as it lies there: nothing is unpacked, so it runs from a read-only disk and
leaves nothing behind. The same tree gives the same bytes.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import bundle

FIRST: Final = b"#!/usr/bin/env python3\n"
WHEN: Final = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can say


def main(path: Path) -> None:
    """Write the archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as there:
        folder = Path(there) / "bundle"
        bundle.main(folder)
        with path.open("wb") as file:
            file.write(FIRST)
            with ZipFile(file, "w", ZIP_DEFLATED) as archive:
                for each in sorted(folder.rglob("*")):
                    if each.is_file():
                        info = ZipInfo(str(each.relative_to(folder)), WHEN)
                        info.external_attr = 0o644 << 16
                        info.compress_type = ZIP_DEFLATED
                        archive.writestr(info, each.read_bytes())
    path.chmod(0o755)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
