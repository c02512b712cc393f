"""The code generator: from a list of fields to straight-line `unpack` and `pack`.

In a frame fixed runs and variable parts take turns. Numbers and qids join into a run, and so does the length in front of a variable part; each run
is one precompiled `struct`. The code checks bounds once for each run and each variable part, against numbers known when it is generated.
complain.py works out what is wrong with a bad frame afterwards: a good frame pays only for comparisons.

In generated code the fields have their own names, and everything else starts with an underscore (Tlock has a field `start`, Rgetattr a `size`).
"""

import linecache
from collections.abc import Callable
from itertools import chain
from struct import Struct
from typing import Any, Final, NamedTuple

from mk9p.wire import complain
from mk9p.wire.const import MAXWELEM
from mk9p.wire.types import Dialect, Field, Qid

_SIZES: Final = {"B": 1, "H": 2, "I": 4, "Q": 8}
_LENGTHS: Final = {"string": "H", "names": "H", "qids": "H", "data": "I", "wstat": "H"}
_QID: Final = Struct("<BIQ")
_LENGTH: Final = Struct("<H")
_GLOBALS: Final[dict[str, Any]] = {
    "_new": tuple.__new__,
    "_Qid": Qid,
    "_chain": chain.from_iterable,
    "_pack_qids": tuple(Struct("<" + count * "BIQ").pack for count in range(MAXWELEM + 1)),
    "_unpack_qids": _QID.iter_unpack,
    "_pack_length": _LENGTH.pack,
    "_unpack_length": _LENGTH.unpack_from,
    "_say": complain,
}


class Text(NamedTuple):
    """Which strings an unpacker takes. `bytes`: also those that are not UTF-8, each wrong byte as a surrogate (PEP 383); `nul`: also a NUL in
    them."""

    bytes: bool
    nul: bool


STRICT: Final = Text(bytes=False, nul=False)  # in requests
TOLD: Final = Text(bytes=True, nul=False)  # in replies: a client can still use a file with such a name
LISTED: Final = Text(bytes=True, nul=True)  # in entries of directories: their reader checks each name by itself


class _Run:
    """One fixed run: struct codes, the expressions that its values come from or go to, and (field, bytes) for complaints."""

    def __init__(self) -> None:
        self.codes = ""
        self.expressions: list[str] = []
        self.parts: tuple[tuple[str, int], ...] = ()

    def add(self, part: str, codes: str, *expressions: str) -> None:
        self.codes += codes
        self.expressions += expressions
        self.parts += ((part, sum(_SIZES[code] for code in codes)),)

    @property
    def size(self) -> int:
        return sum(size for _, size in self.parts)


class _Function:
    """The source of one function and the constants it names; `compile` makes the function."""

    def __init__(self, what: str, dialect: Dialect, head: str, extra: dict[str, Any], text: Text = STRICT) -> None:
        self.what = what
        self.dialect = dialect
        self.text = text
        self.lines = [head]
        self.names = _GLOBALS | extra

    def add(self, *lines: str, indent: int = 1) -> None:
        self.lines += ["    " * indent + line for line in lines]

    def constant(self, stem: str, value: Any) -> str:
        name = f"_{stem}{len(self.names)}"
        self.names[name] = value
        return name

    def compile(self, name: str) -> Callable[..., Any]:
        """Return the function; tracebacks and debuggers find its source by its file name."""
        filename = f"<wire {self.what} {self.dialect.version} {name}>"
        text = "\n".join(self.lines) + "\n"
        linecache.cache[filename] = (len(text), None, [f"{line}\n" for line in text.split("\n")], filename)
        exec(compile(text, filename, "exec"), self.names)
        function: Callable[..., Any] = self.names[name]
        return function


def unpacker(
    what: str, fields: tuple[Field, ...], dialect: Dialect, *, make: str = "", text: Text = STRICT, **extra: Any
) -> Callable[..., Any]:
    """Generate `unpack(buf, start, end)`, which returns the fields as a tuple, or what the function named `make` makes from them."""
    f = _Function(what, dialect, "def unpack(_buf, _start, _end):", extra, text)
    got = {field.name: field.name for field in fields}
    run = _Run()
    at = "_start"
    for field in fields:
        name, kind = field.name, field.kind.name
        if dialect not in field.dialects:
            f.add(f"{name} = {field.default!r}")
        elif field.kind.code:
            if field.late:
                f.add(f"if _end - {at} == {run.size}:")
                _read(f, run, at, indent=2)
                f.add(f"return {make}({', '.join([*list(got.values())[:-1], repr(field.default)])})", indent=2)
            run.add(name, field.kind.code, name)
        elif kind == "qid":
            values = [f"{name}_{part}" for part in Qid._fields]
            run.add(name, "BIQ", *values)
            got[name] = f"_new(_Qid, ({', '.join(values)}))"
        else:
            run.add(f"the length of {name}", _LENGTHS[kind], "_n")
            _check(f, run, at, "<")
            _read(f, run, at)
            f.add(f"_p = {at} + {run.size}")
            _UNPACK[kind](f, name)
            f.add("_p = _q")
            run = _Run()
            at = "_p"
    _check(f, run, at, "!=")
    if not make and run.expressions == list(got.values()):
        f.add(f"return {_struct(f, run)}(_buf, {at})")
        return f.compile("unpack")
    if run.parts:
        _read(f, run, at)
    f.add(f"return {make}({', '.join(got.values())},)")
    return f.compile("unpack")


def _check(f: _Function, run: _Run, at: str, wrong: str) -> None:
    f.add(f"if _end - {at} {wrong} {run.size}:", f"    _say.misfit({f.what!r}, {run.parts!r}, _end - {at})")


def _read(f: _Function, run: _Run, at: str, *, indent: int = 1) -> None:
    f.add(f"{', '.join(run.expressions)}, = {_struct(f, run)}(_buf, {at})", indent=indent)


def _struct(f: _Function, run: _Run) -> str:
    return f.constant("unpack", Struct("<" + run.codes).unpack_from)


def _take(f: _Function, name: str, size: str, *, indent: int = 1) -> None:
    """Set _q to the end of the variable part at _p."""
    f.add(
        f"_q = _p + {size}",
        "if _q > _end:",
        f"    _say.misfit({f.what!r}, (({name!r}, {size}),), _end - _p)",
        indent=indent,
    )


def _text(f: _Function, name: str, field: str, *, indent: int = 1) -> None:
    wrong = f"    _say.bad_text({f.what!r}, {field!r})"
    if f.text.bytes:
        f.add(f"{name} = str(_buf[_p:_q], 'utf-8', 'surrogateescape')", indent=indent)
    else:
        f.add("try:", f"    {name} = str(_buf[_p:_q], 'utf-8')", "except UnicodeDecodeError:", wrong, indent=indent)
    if not f.text.nul:
        f.add(f"if '\\0' in {name}:", wrong, indent=indent)


def _unpack_string(f: _Function, name: str) -> None:
    _take(f, name, "_n")
    _text(f, name, name)


def _unpack_data(f: _Function, name: str) -> None:
    _take(f, name, "_n")
    f.add(f"{name} = _buf[_p:_q] if _buf.__class__ is memoryview else memoryview(_buf)[_p:_q]")


def _unpack_names(f: _Function, name: str) -> None:
    f.add(f"if _n > {MAXWELEM}:", f"    _say.bad_count({f.what!r}, {name!r}, _n)")
    f.add("_q = _p", "_found = []", "for _ in range(_n):")
    f.add("if _end - _p < 2:", f"    _say.misfit({f.what!r}, (('the length of a name', 2),), _end - _p)", indent=2)
    f.add("_n, = _unpack_length(_buf, _p)", "_p += 2", indent=2)
    _take(f, "a name", "_n", indent=2)
    _text(f, "_name", "a name", indent=2)
    f.add("_found.append(_name)", "_p = _q", indent=2)
    f.add(f"{name} = tuple(_found)")


def _unpack_qids(f: _Function, name: str) -> None:
    f.add(f"if _n > {MAXWELEM}:", f"    _say.bad_count({f.what!r}, {name!r}, _n)")
    _take(f, name, f"_n * {_QID.size}")
    f.add(f"{name} = tuple([_new(_Qid, _each) for _each in _unpack_qids(_buf[_p:_q])])")


def _unpack_wstat(f: _Function, name: str) -> None:
    _take(f, name, "_n")
    f.add("if _n < 2 or _unpack_length(_buf, _p)[0] != _n - 2:", f"    _say.bad_size({f.what!r}, {name!r})")
    f.add(f"{name} = _unpack_stat(_buf, _p + 2, _q)")


_UNPACK: Final = {
    "string": _unpack_string,
    "data": _unpack_data,
    "names": _unpack_names,
    "qids": _unpack_qids,
    "wstat": _unpack_wstat,
}


def packer(
    what: str, fields: tuple[Field, ...], dialect: Dialect, *, number: int | None = None, **extra: Any
) -> Callable[..., bytes]:
    """Generate `pack(*fields)`, which returns the bytes; it accepts fields that the dialect lacks, and leaves them out.

    With a type number it packs a message, size[4] type[1] in front; without, a stat entry, size[2] in front.
    """
    may_lack = [field.late or len(field.dialects) < len(Dialect) for field in fields]
    head = ", ".join(
        f"{field.name}={field.default!r}" if may else field.name for field, may in zip(fields, may_lack, strict=True)
    )
    f = _Function(what, dialect, f"def pack({head}):", extra)
    run = _Run()
    if number is None:
        run.add("size", "H", "_size")
    else:
        run.add("size[4] type[1]", "IB", "_size", str(number))
    size = [] if number else ["-2"]  # a stat's size does not count itself
    texts: list[str] = []
    chunks: list[str] = []
    for field in fields:
        name, kind = field.name, field.kind.name
        if dialect not in field.dialects:
            continue
        if field.kind.code:
            run.add(name, field.kind.code, name)
        elif kind == "qid":
            run.add(name, "BIQ", *(f"{name}[{i}]" for i in range(len(Qid._fields))))
        else:
            texts += _PACK[kind](what, name)
            run.add(name, _LENGTHS[kind], f"_n_{name}")
            size += [str(run.size), f"len(_{name})"]
            chunks += [_write(f, run), f"_{name}"]
            run = _Run()
    if run.codes:
        size.append(str(run.size))
        chunks.append(_write(f, run))
    if texts:
        f.add("try:")
        f.add(*texts, indent=2)
        f.add("except UnicodeEncodeError as _error:", f"    _say.no_text({what!r}, _error)")
    f.add(f"_size = {' + '.join(size)}")
    if number is None:
        f.add("if _size > 65535:", f"    _say.too_long({what!r}, 'the entry', _size)")
    f.add(f"return {' + '.join(chunks)}" if len(chunks) <= 2 else f"return b''.join(({', '.join(chunks)}))")
    return f.compile("pack")


def _write(f: _Function, run: _Run) -> str:
    return f"{f.constant('pack', Struct('<' + run.codes).pack)}({', '.join(run.expressions)})"


def _pack_string(what: str, name: str) -> list[str]:
    return [
        f"_{name} = {name}.encode('utf-8', 'surrogateescape')",
        f"_n_{name} = len(_{name})",
        f"if _n_{name} > 65535:",
        f"    _say.too_long({what!r}, {name!r}, _n_{name})",
    ]


def _pack_data(_what: str, name: str) -> list[str]:
    return [f"_{name} = {name}", f"_n_{name} = len({name})"]


def _pack_names(what: str, name: str) -> list[str]:
    return [
        f"_n_{name} = len({name})",
        f"if _n_{name} > {MAXWELEM}:",
        f"    _say.too_many({what!r}, {name!r}, _n_{name})",
        "_found = []",
        f"for _name in {name}:",
        "    _text = _name.encode('utf-8', 'surrogateescape')",
        "    if len(_text) > 65535:",
        f"        _say.too_long({what!r}, 'a name', len(_text))",
        "    _found += (_pack_length(len(_text)), _text)",
        f"_{name} = b''.join(_found)",
    ]


def _pack_qids(what: str, name: str) -> list[str]:
    return [
        f"_n_{name} = len({name})",
        f"if _n_{name} > {MAXWELEM}:",
        f"    _say.too_many({what!r}, {name!r}, _n_{name})",
        f"_{name} = _pack_qids[_n_{name}](*_chain({name}))",
    ]


def _pack_wstat(_what: str, name: str) -> list[str]:
    return [f"_{name} = _pack_stat({name})", f"_n_{name} = len(_{name})"]


_PACK: Final = {
    "string": _pack_string,
    "data": _pack_data,
    "names": _pack_names,
    "qids": _pack_qids,
    "wstat": _pack_wstat,
}
