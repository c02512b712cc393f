"""A step of a demo: a command that `bash` runs in the mounted namespace as it is printed, so a demo shows what a person would see."""

import os
import shlex
import subprocess
from typing import Final

import attrs

from mk9p.clients import lab as labs
from mk9p.clients.common import SILENCE, say
from mk9p.itself import itself

SECONDS: Final = 60  # for one command: an emulated kernel on a busy machine takes one or two


@attrs.frozen
class Step:
    """One command, what to print before it, and what its output must contain."""

    about: str
    command: str
    holds: str


def show(lab: labs.Lab, step: Step, *, seconds: float = SECONDS) -> bool:
    """Print a command, run it, print its output, and tell whether that is as it should be."""
    if step.about:
        print(f"\n# {step.about}")
    print(f"$ {step.command}", flush=True)
    environment = {**os.environ, "MK9P": lab.address}
    this = f'mk9p() {{ {shlex.join(itself())} "$@"; }}'
    with subprocess.Popen(
        ["bash", "-c", f"{this}; {step.command}"],
        cwd=lab.mount,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        waited = 0.0
        while True:
            try:
                said, _ = process.communicate(timeout=SILENCE)
                break
            except subprocess.TimeoutExpired:
                waited += SILENCE
            if waited >= seconds:
                process.kill()
                say(f"no answer in {seconds:.0f} seconds")
                return False
            say(f"no answer for {waited:.0f} s yet: an emulated kernel on a busy machine takes a while")
    print(said.rstrip(), flush=True)
    if step.holds in said:
        return True
    say(f"expected to see {step.holds!r}")
    return False
