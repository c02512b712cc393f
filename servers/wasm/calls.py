"""What a program imports, as functions of Python, called in 0.4 us and not in 10: wasmtime's unchecked callbacks, and one ctypes callback for each.

wasmtime-py's own functions look at the types of all arguments at each call. A module is linked by types, so an unchecked callback gets what its type
says: cells of 16 bytes, of which a number of 32 bits fills the lowest part and leaves the rest as it was.
"""

import ctypes
from collections.abc import Callable
from typing import Any, Final

import wasmtime
from wasmtime import _bindings as c

_CELLS: Final = ctypes.CFUNCTYPE(
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint64), ctypes.c_size_t
)
_MASK: Final = 0xFFFF_FFFF


class Calls:
    """Functions that were given to a linker. `raised` is what ended the program, where a function ended it."""

    def __init__(self) -> None:
        self.raised: BaseException | None = None
        self._kept: list[Any] = []

    def define(
        self, linker: wasmtime.Linker, module: str, name: str, types: str, function: Callable[..., int | None]
    ) -> None:
        """Give a function to a linker. `types` has an `i` for each argument of 32 bits and an `l` for each of 64; both come as unsigned numbers.

        What it returns is the result, of 32 bits; None where the function has none. What it raises ends the program.
        """
        result = name not in ("proc_exit", "checkpoint", "memory")
        i32, i64 = wasmtime.ValType.i32(), wasmtime.ValType.i64()
        kind = wasmtime.FuncType([i32 if t == "i" else i64 for t in types], [i32] if result else [])
        callback = _CELLS(self._adapted(types, function))
        self._kept += [callback, kind]
        error = c.wasmtime_linker_define_func_unchecked(
            linker.ptr(),
            ctypes.create_string_buffer(module.encode()),
            len(module),
            ctypes.create_string_buffer(name.encode()),
            len(name),
            kind.ptr(),
            ctypes.cast(callback, c.wasmtime_func_unchecked_callback_t),
            None,
            ctypes.cast(0, ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        )
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)

    def _adapted(self, types: str, function: Callable[..., int | None]) -> Callable[..., int | None]:
        """Return what wasmtime calls. The common numbers of arguments are spelt out: a loop would take longer than the call."""
        fail = self._fail
        m = [_MASK if t == "i" else (1 << 64) - 1 for t in types]

        def two(_: Any, __: Any, v: Any, n: int) -> int | None:
            try:
                v[0] = function(v[0] & m[0], v[2] & m[1])
            except BaseException as error:
                return fail(error)
            return None

        def four(_: Any, __: Any, v: Any, n: int) -> int | None:
            try:
                v[0] = function(v[0] & m[0], v[2] & m[1], v[4] & m[2], v[6] & m[3])
            except BaseException as error:
                return fail(error)
            return None

        def any_(_: Any, __: Any, v: Any, n: int) -> int | None:
            try:
                result = function(*[v[2 * i] & mask for i, mask in enumerate(m)])
                if result is not None:
                    v[0] = result
            except BaseException as error:
                return fail(error)
            return None

        return {2: two, 4: four}.get(len(types), any_)

    def _fail(self, error: BaseException) -> int | None:
        self.raised = error
        return ctypes.cast(c.wasmtime_trap_new(ctypes.create_string_buffer(b"host"), 4), ctypes.c_void_p).value
