"""What was granted, when it was asked for and when it ended, and whether that could have happened one after the other.

A step is a number that grows with everything that happens. A grant takes place at some step between its call and its answer, an end at some step from
where it began on: linearizability says that these steps can be chosen so that no two leases that are in each other's way are held at once, and that
tokens grow with them. Tokens tell the order, so one pass finds the earliest step of each grant, or that there is none.
"""

import attrs

from mk9p.lease.wish import Wish
from tests.lease.compared import in_the_way


@attrs.define(eq=False)
class Grant:
    """One grant: asked for at step `call`, told at step `told`; from step `ends` on its holder had stopped, None for not yet."""

    wish: Wish
    token: int
    call: int
    told: int
    ends: int | None = None


def wrong(grants: list[Grant]) -> str:
    """Tell what could not have happened one after the other; nothing if all could."""
    before: list[Grant] = []
    step = 0
    for grant in sorted(grants, key=lambda one: one.token):
        if before and before[-1].token == grant.token:
            return f"token {grant.token} twice"
        step = max(step, grant.call)
        for other in before:
            if in_the_way(other.wish, grant.wish):
                if other.ends is None:
                    return f"{grant} although {other} has not ended"
                step = max(step, other.ends)
        if step > grant.told:
            return f"{grant} can have been granted at no step before {step}"
        before.append(grant)
    return ""
