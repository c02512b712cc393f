"""Binaryen's asyncify, in this process: it makes a module whose stack can be taken down into a memory of its own, and put up again from there.

The library comes with PyPI's icpp-binaryen, whose Python has no function for it; so this calls its C interface (binaryen-c.h).
"""

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from mk9p.ktext import split_words
from mk9p.servers.wasm.instrument.binary import Refused

VERSION: Final = 2  # of what this folder makes of a module: a cache must not give out an older one
PAGES: Final = 256  # of 64 KiB, for the stack that was taken down: eight times what the engine lets a program have

_CALLS: Final = """
fd_allocate fd_datasync fd_filestat_get fd_filestat_set_size fd_filestat_set_times fd_pread fd_pwrite fd_read fd_readdir fd_seek fd_sync
fd_write fd_close path_create_directory path_filestat_get path_filestat_set_times path_link path_open path_readlink path_remove_directory
path_rename path_symlink path_unlink_file poll_oneoff
"""
BLOCKING: Final = ("mk9p.checkpoint", *(f"wasi_snapshot_preview1.{call}" for call in split_words(_CALLS)))
"""The calls in which a program may be frozen."""

_FEATURES: Final = """
Atomics MutableGlobals NontrappingFPToInt SIMD128 BulkMemory SignExt ReferenceTypes Multivalue MultiMemory
"""


class _Written(ctypes.Structure):
    _fields_ = (("binary", ctypes.c_void_p), ("size", ctypes.c_size_t), ("source_map", ctypes.c_char_p))


@lru_cache(maxsize=1)
def _library() -> Any:
    """Return Binaryen's library. Raises Refused where it is not installed."""
    try:
        import icpp_binaryen
    except ImportError:
        raise Refused("icpp-binaryen is not installed: pip install 'mk9p[wasm]'") from None
    path = Path(icpp_binaryen.__file__).parent / "lib" / "libbinaryen.so"
    try:
        lib: Any = ctypes.CDLL(str(path))
    except OSError as error:
        raise Refused(f"icpp-binaryen does not work here: {error}") from None
    pointer, words = ctypes.c_void_p, ctypes.c_char_p
    lib.BinaryenModuleRead.restype = pointer
    lib.BinaryenModuleRead.argtypes = [words, ctypes.c_size_t]
    lib.BinaryenModuleAllocateAndWrite.restype = _Written
    lib.BinaryenModuleAllocateAndWrite.argtypes = [pointer, words]
    lib.BinaryenModuleRunPasses.argtypes = [pointer, ctypes.POINTER(words), ctypes.c_uint32]
    lib.BinaryenModuleSetFeatures.argtypes = [pointer, ctypes.c_uint32]
    lib.BinaryenModuleOptimize.argtypes = [pointer]
    lib.BinaryenSetPassArgument.argtypes = [words, words]
    return lib


def asyncify(module: bytes) -> bytes:
    """Return a module that has been asyncified. It must be a valid one: Binaryen ends the process for some others."""
    lib = _library()
    features = 0
    for each in split_words(_FEATURES):
        features |= getattr(lib, f"BinaryenFeature{each}")()
    made = ctypes.c_void_p(lib.BinaryenModuleRead(module, len(module)))
    lib.BinaryenModuleSetFeatures(made, features)
    lib.BinaryenSetOptimizeLevel(2)
    lib.BinaryenSetShrinkLevel(0)
    arguments = {
        "asyncify-in-secondary-memory": "1",
        "asyncify-secondary-memory-size": str(PAGES),
        "asyncify-imports": ",".join(BLOCKING),
    }
    for key, value in arguments.items():
        lib.BinaryenSetPassArgument(key.encode(), value.encode())
    lib.BinaryenModuleOptimize(made)
    lib.BinaryenModuleRunPasses(made, (ctypes.c_char_p * 1)(b"asyncify"), 1)
    lib.BinaryenModuleOptimize(made)
    written = lib.BinaryenModuleAllocateAndWrite(made, None)
    return ctypes.string_at(written.binary, written.size)
