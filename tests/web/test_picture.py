"""README's picture is the live page as it is now: drawn anew, it says the same (`make picture`)."""

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium: apt-get install chromium")


def shown(path: Path) -> tuple[list[str], dict[str, int]]:
    """Return what a picture says, word for word, and how many shapes of each kind it has. Where they stand depends on the machine's fonts."""
    shapes = list(ElementTree.parse(path).getroot())
    kinds = [shape.tag.rpartition("}")[2] for shape in shapes]
    words = " ".join(shape.text or "" for shape, kind in zip(shapes, kinds, strict=True) if kind == "text")
    return words.split(), {kind: kinds.count(kind) for kind in ("rect", "path")}


def test_it_says_what_the_page_says(tmp_path: Path) -> None:
    script = ROOT / ".ci/picture.py"
    subprocess.run([sys.executable, script, tmp_path / "page.svg"], check=True, stdout=subprocess.DEVNULL)
    words, shapes = shown(tmp_path / "page.svg")
    assert {"Kernels", "k0", "box", "down", "Mounts"} <= set(words)
    assert (words, shapes) == shown(ROOT / "docs/page.svg"), "the page has changed: make picture"
