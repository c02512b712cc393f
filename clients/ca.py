"""`mk9p ca`: certificates for TLS, for those who have no authority (mk9p/certificates.py)."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mk9p.certificates import Authority, Issued, directory
from mk9p.usage import parsed


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p ca`."""
    chosen = parsed(arguments)
    where = Path(chosen.dir) if chosen.dir else directory()
    return {"init": init, "issue": issue, "list": list_, "revoke": revoke}[chosen.word](where, chosen)


def init(where: Path, chosen: Any) -> int:
    """Make an authority."""
    authority = Authority.make(where, chosen.name, days=chosen.days)
    print(f"{authority.keys.ca}   for everybody who dials or listens")
    print(f"{authority.keys.crl}   for everybody who listens: `mk9p ca revoke` writes it")
    print(f"{where / 'ca.key'}   for nobody: who has it can be anybody")
    return 0


def issue(where: Path, chosen: Any) -> int:
    """Sign a certificate."""
    keys = Authority(where).issue(chosen.name, Path(chosen.into), chosen.host, days=chosen.days, renew=chosen.renew)
    print(f"{keys.cert} {keys.key}")
    use = "serve -l 'tls!*!5640'" if chosen.host else "-a 'tls!HOST!5640' ls"
    print(f"mk9p: cert:{chosen.name}; as in: mk9p {_flags(chosen, keys, use)}", file=sys.stderr)
    return 0


def _flags(chosen: Any, keys: Any, use: str) -> str:
    flags = f"--ca {keys.ca} --cert {keys.cert} --key {keys.key}"
    return f"{use} {flags}" if chosen.host else f"{flags} {use}"


def list_(where: Path, chosen: Any) -> int:
    """List what was issued."""
    issued = [_plain(each) for each in Authority(where).issued()]
    if chosen.json:
        print(json.dumps(issued))
        return 0
    for each in issued:
        print(each["number"], each["name"], each["until"], each["state"], ",".join(each["hosts"]) or "-")
    return 0


def _plain(each: Issued) -> dict[str, Any]:
    until = each.until.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"number": each.number, "name": each.name, "until": until, "state": each.state, "hosts": list(each.hosts)}


def revoke(where: Path, chosen: Any) -> int:
    """Revoke certificates."""
    authority = Authority(where)
    for each in authority.revoke(chosen.which):
        print(f"{each.number} {each.name} revoked")
    print(f"mk9p: servers see it when they have {authority.keys.crl}", file=sys.stderr)
    return 0
