"""The figures of the benches, kept and compared: `python -m tests.bench.figures` prints what has become slower than what was published.

Each bench notes its figures by `note`, besides printing its table. `figures.json` has those of the table that docs/performance.md shows. A figure
that is more than 5 % worse than there is printed, with both. Most are ratios to a rival in the same run, so that they hold on other machines too;
times and sizes are of the machine that the file names. `--publish` writes the file anew: of all figures that were measured, and the rest as it was.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import attrs

FILE: Final = Path(__file__).with_name("figures.json")
NOTED: Final = "MK9P_BENCH_FIGURES"  # names the file in which a run notes its figures
WORSE: Final = 0.05
BENCHES: Final[dict[str, tuple[str, ...]]] = {
    "bench": ("tests.bench", "--one-core"),
    "thousand": ("tests.bench.thousand",),
    "events": ("tests.bench.events",),
    "connections": ("tests.bench.connections",),
    "fuse": ("tests.bench.fuse",),
    "tls": ("tests.bench.tls",),
    "guests": ("tests.bench.guests",),
    "wasm": ("tests.bench.wasm",),
    "wasm beside": ("tests.bench.wasm_beside",),
}


@attrs.frozen
class Figure:
    """One figure of one row. `lower`: less is better."""

    name: str
    value: float
    unit: str = ""
    lower: bool = False

    def worse(self, than: "Figure") -> float:
        """Return by how much this is worse, as a part of the other; below 0 if it is better."""
        if not than.value or not self.value:
            return 0.0
        return (self.value / than.value if self.lower else than.value / self.value) - 1


def note(name: str, value: float, unit: str = "", *, lower: bool = False) -> None:
    """Note a figure of a row, if this run's are kept."""
    if where := os.environ.get(NOTED):
        with Path(where).open("a") as file:
            file.write(json.dumps(attrs.asdict(Figure(name, round(value, 4), unit, lower))) + "\n")


def run(names: list[str]) -> dict[str, Figure]:
    """Run benches, whose tables are printed as they come; returns what they noted."""
    with tempfile.NamedTemporaryFile("r") as noted:
        for name in names:
            subprocess.run([sys.executable, "-m", *BENCHES[name]], env={**os.environ, NOTED: noted.name}, check=False)
        figures = [Figure(**json.loads(line)) for line in noted]
    return {figure.name: figure for figure in figures}


def published() -> dict[str, Figure]:
    """Return the figures that were published last."""
    known: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {"figures": []}
    return {figure["name"]: Figure(**figure) for figure in known["figures"]}


def publish(figures: dict[str, Figure]) -> None:
    machine = f"{platform.python_implementation()} {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} processors"
    rows = [attrs.asdict(figure) for figure in {**published(), **figures}.values()]
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    FILE.write_text(f'{{"machine": {json.dumps(machine)}, "figures": [\n{lines}\n]}}\n')


def slower(now: dict[str, Figure], then: dict[str, Figure]) -> list[str]:
    """Return a line for each figure that is worse than before by more than `WORSE`."""
    return [
        f"{name}: {figure.value:g} {figure.unit}, was {then[name].value:g}: {figure.worse(then[name]):.0%} worse"
        for name, figure in now.items()
        if name in then and figure.worse(then[name]) > WORSE
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bench", nargs="*", help=f"of {' '.join(BENCHES)}; else all")
    parser.add_argument("--publish", action="store_true", help="write the file anew")
    chosen = parser.parse_args()
    if unknown := set(chosen.bench) - set(BENCHES):
        parser.error(f"no such bench: {' '.join(sorted(unknown))}")
    found = run(chosen.bench or list(BENCHES))
    lines = slower(found, published())
    print(
        "\nslower than published:" if lines else f"\n{len(found)} figures, none slower than published", *lines, sep="\n"
    )
    if chosen.publish:
        publish(found)
    return bool(lines)


if __name__ == "__main__":
    raise SystemExit(main())
