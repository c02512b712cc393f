"""A module is made freezable without changing what it does, and whatever bytes come as one, the answer is a module or one error."""

import random
from typing import Any

import pytest
import wasmtime

from mk9p.errors import NineError
from mk9p.servers.wasm import container
from mk9p.servers.wasm.instrument.asyncify import asyncify
from mk9p.servers.wasm.instrument.binary import Refused
from mk9p.servers.wasm.instrument.checkpoints import inject, recursive
from mk9p.servers.wasm.instrument.expose import expose
from mk9p.servers.wasm.loading import check_imports, prepared
from mk9p.servers.wasm.machine import engine
from tests.wasm.conftest import Compiled

LOOPS = """
(module (memory (export "memory") 1) (table 2 funcref) (elem (i32.const 0) $even $odd)
  (global $g (mut i64) (i64.const 5))
  (type $t (func (param i32) (result i32)))
  (func $even (param i32) (result i32)
    (if (result i32) (i32.eqz (local.get 0)) (then (i32.const 1))
      (else (call_indirect (type $t) (i32.sub (local.get 0) (i32.const 1)) (i32.const 1)))))
  (func $odd (param i32) (result i32)
    (if (result i32) (i32.eqz (local.get 0)) (then (i32.const 0))
      (else (call_indirect (type $t) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0)))))
  (func (export "loops") (param i32) (result i32) (local i32 i32)
    (block $out
      (loop $a (result)
        (local.set 1 (i32.const 0))
        (loop $b
          (local.set 2 (i32.add (local.get 2) (call $even (local.get 1))))
          (block $x (block $y (block $z
            (br_table $x $y $z $b $out (i32.rem_u (local.get 1) (i32.const 3)))) (nop)) (nop))
          (local.set 1 (i32.add (local.get 1) (i32.const 1)))
          (br_if $b (i32.lt_u (local.get 1) (local.get 0))))
        (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
        (br_if $a (local.get 0))))
    (global.set $g (i64.add (global.get $g) (i64.const 1)))
    (i32.add (local.get 2) (loop $v (result i32) (i32.const 7))))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))
"""


def exports(module: bytes) -> tuple[wasmtime.Store, Any, list[str]]:
    store = wasmtime.Store(engine(fuel=False))
    called: list[str] = []
    made = wasmtime.Module(store.engine, module)
    functions = [
        wasmtime.Func(store, each.type, lambda name=each.name: called.append(name))
        for each in made.imports
        if isinstance(each.type, wasmtime.FuncType)
    ]
    return store, wasmtime.Instance(store, made, functions).exports(store), called


def test_a_module_does_the_same_with_checkpoints() -> None:
    plain = bytes(wasmtime.wat2wasm(LOOPS))
    store, before, _ = exports(plain)
    for made in (inject(plain), expose(asyncify(inject(plain)))):
        again, after, called = exports(made)
        for n in (1, 2, 5, 30):
            assert after["loops"](again, n) == before["loops"](store, n)
        assert not called
        after["mk9p.flag"].write(again, bytearray(b"\x10\0\0\0"), 8)  # 16 pages
        assert after["grow"](again, 3) == 1
        assert not called
        for more in (100, 0xFFFF_FFFF):
            after["grow"](again, more)
            assert called.pop() == "memory", "who wants more than there may be is told"


def test_all_that_a_module_keeps_is_exported() -> None:
    made = expose(asyncify(inject(bytes(wasmtime.wat2wasm(LOOPS)))))
    names = [each.name for each in wasmtime.Module(engine(fuel=False), made).exports]
    assert {"mk9p.flag", "mk9p.g0", "mk9p.m0", "mk9p.m1", "mk9p.m2", "asyncify_start_unwind"} <= set(names)


def test_functions_that_may_call_themselves_are_found() -> None:
    assert recursive([{1}, {2}, {0}, {3}, {0}, set()]) == {0, 1, 2, 3}
    assert recursive([{1}, set()]) == set()
    assert recursive([{(n + 1) % 5000} for n in range(5000)]) == set(range(5000))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('(module (memory 1 1 shared) (func (export "f")))', "threads"),
        ("(module (func (param i32) (loop (param i32) drop) (local.get 0) drop))", ""),
        ("(module (func i32.const 1 (loop (param i32) drop)))", "loops with parameters"),
        ('(module (memory 1) (func (export "asyncify_x")))', "a name of ours"),
        ("(module (memory i64 1))", "64-bit memories"),
        ("(module (func (param f32x4)))".replace("f32x4", "v128"), ""),
    ],
)
def test_what_cannot_be_made_freezable_is_refused_with_the_reason(text: str, words: str) -> None:
    try:
        module = bytes(wasmtime.wat2wasm(text))
    except wasmtime.WasmtimeError:
        pytest.fail("not a module to begin with")
    if words:
        with pytest.raises(Refused, match=words):
            inject(module)


@pytest.mark.parametrize("kind", ["v128", "externref", "funcref"])
def test_a_global_that_a_state_cannot_have_makes_a_module_that_is_not_freezable(kind: str) -> None:
    first = "v128.const i64x2 1 2" if kind == "v128" else f"ref.null {kind.removesuffix('ref')}"
    kept = f'(module (global $g (mut {kind}) ({first})) (func (export "f") (global.set $g ({first}))))'
    with pytest.raises(Refused, match="globals that are no numbers"):
        expose(bytes(wasmtime.wat2wasm(kept)))
    expose(bytes(wasmtime.wat2wasm(kept.replace(f"(mut {kind})", kind).replace(f"(global.set $g ({first}))", ""))))


def test_what_is_too_large_for_a_state_once_it_is_freezable_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    module = bytes(wasmtime.wat2wasm(LOOPS))
    assert prepared(module, "")[1] == ""
    monkeypatch.setattr(container, "MODULE", len(module))
    assert prepared(module, "") == (module, "it would be too large for a state")


def test_no_bytes_do_more_than_raise(program: Compiled, long: bool) -> None:
    """Only what comes out valid is ever given to Binaryen: here the readers alone are tried."""
    source, seen = program("greedy"), set()
    for _ in range(20_000 if long else 400):
        bent = bytearray(source)
        for _ in range(random.randint(1, 4)):
            bent[random.randrange(8, len(bent))] = random.randrange(256)
        if random.random() < 0.3:
            del bent[random.randrange(len(bent)) :]
        try:
            check_imports(bytes(bent))
            inject(bytes(bent))
            seen.add("made")
        except (Refused, NineError, IndexError) as error:
            seen.add(type(error).__name__)
    assert len(seen) > 1
