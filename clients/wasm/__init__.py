"""`mk9p wasm run|ps|move|save|show`: programs that go on on another kernel, through the files of its `wasm`.

running.py runs one and follows it, granted.py serves the files that it was granted, moving.py moves and saves, showing.py lists them and shows what a
state is.
"""

from collections.abc import Sequence

from mk9p.usage import parsed


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p wasm`."""
    chosen = parsed(arguments)
    if chosen.word == "show":
        from mk9p.clients.wasm.showing import show

        return show(chosen)
    if chosen.word == "ps":
        from mk9p.clients.wasm.showing import ps

        return ps(chosen)
    if chosen.word in ("move", "save"):
        from mk9p.clients.wasm import moving

        return moving.move_to(chosen) if chosen.word == "move" else moving.save_to(chosen)
    from mk9p.clients.wasm.running import run

    return run(chosen)
