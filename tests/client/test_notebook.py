"""Cells of a notebook, in a real IPython: the way in that fits works, and each other one says which that is."""

import json
import subprocess
import sys
from pathlib import Path

from mk9p.testing import SOON, child

READ = "    print((await ns.read('status'))[:5])"
PLAIN = "    print(ns.read('status')[:5])"
OURS = "asyncio has mk9p.aio.connect, plain code mk9p.sync.connect"
# a cell, and what its error says; nothing: it prints the beginning of the file
CELLS = (
    (f"async with mk9p.aio.connect(A) as ns:\n{READ}", ""),
    (f"with mk9p.sync.connect(A) as ns:\n{PLAIN}", ""),
    (f"async with mk9p.connect(A) as ns:\n{READ}", f"mk9p.connect is for trio, which does not run here: {OURS}"),
    (f"with mk9p.connect(A) as ns:\n{PLAIN}", "plain code has mk9p.sync.connect"),
    (f"with mk9p.aio.connect(A) as ns:\n{PLAIN}", "plain code has mk9p.sync.connect"),
    (f"async with mk9p.sync.connect(A) as ns:\n{READ}", "`async with` has mk9p.aio.connect in asyncio"),
    ("ns = await mk9p.aio.connect(A)", "this is for `async with`"),
    ("mk9p.aio.connect(A).read('status')", "no 'read' outside of the block: this is for `async with`"),
    ("%autoawait trio", None),
    (f"async with mk9p.connect(A) as ns:\n{READ}", ""),
    (f"async with mk9p.aio.connect(A) as ns:\n{READ}", "trio has mk9p.connect"),
)
NOTEBOOK = """
import contextlib, io, json, sys
from IPython.core.interactiveshell import InteractiveShell
shell, told = InteractiveShell.instance(), []
shell.run_cell(f"import mk9p, mk9p.sync, mk9p.aio; A = {sys.argv[1]!r}")
for cell in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        result = shell.run_cell(cell)
    error = result.error_before_exec or result.error_in_exec
    told.append([str(error) if error else "", printed.getvalue()])
print(json.dumps(told))
"""


def test_a_cell_that_uses_the_wrong_way_in_says_which_is_right(tmp_path: Path) -> None:
    where = f"unix:{tmp_path}/s"
    with child([sys.executable, "-m", "mk9p", "serve", "-l", where, "host"], "listening"):
        done = subprocess.run(
            [sys.executable, "-W", "error::RuntimeWarning", "-c", NOTEBOOK, where],
            input=json.dumps([cell for cell, _ in CELLS]),
            env={"PATH": "/usr/bin:/bin", "IPYTHONDIR": str(tmp_path), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=SOON,
            check=True,
        )
    for (cell, wanted), (error, printed) in zip(CELLS, json.loads(done.stdout), strict=True):
        if wanted is None:
            continue
        assert wanted in error, cell
        assert bool(error) == bool(wanted), (cell, error)
        assert wanted or printed == "name \n", (cell, printed)
