"""What tshark makes of a capture: each 9P message with its direction, its fields, and what the dissector had to complain of."""

import subprocess
from pathlib import Path
from xml.etree import ElementTree

import attrs


@attrs.frozen
class Dissected:
    """One message as tshark shows it: `fields` by tshark's names, `left` the bytes at its end that were not understood."""

    from_client: bool
    name: str
    tag: int
    fields: dict[str, list[str]]
    left: str
    complaints: tuple[str, ...]


def dissect(tshark: str, capture: Path) -> list[Dissected]:
    """Return the messages of a capture. Of what TCP notes, only what it calls a warning or an error counts, as a complaint of the message."""
    words = [tshark, "-n", "-r", str(capture), "-T", "pdml"]
    done = subprocess.run(words, capture_output=True, timeout=120, check=True)
    found: list[Dissected] = []
    for packet in ElementTree.fromstring(done.stdout).iter("packet"):
        source = next(field.get("show") for field in packet.iter("field") if field.get("name") == "ip.src")
        for proto in packet.iter("proto"):
            name = proto.get("name")
            if name == "9p":
                found.append(_message(proto, source != "10.0.0.1"))
            elif name == "_ws.malformed":
                found[-1] = attrs.evolve(found[-1], complaints=(*found[-1].complaints, "malformed"))
            else:
                grave = _grave(proto)
                assert not grave, f"{name}: {grave}"
    return found


def _message(proto: ElementTree.Element, from_client: bool) -> Dissected:
    fields: dict[str, list[str]] = {}
    for field in proto.iter("field"):
        fields.setdefault(field.get("name", ""), []).append(field.get("show", ""))
    shown = next(field.get("showname", "") for field in proto.iter("field") if field.get("name") == "9p.msgtype")
    return Dissected(
        from_client,
        shown.removeprefix("Msg Type: ").partition(" ")[0],
        int(fields["9p.tag"][0]),
        fields,
        fields.get("9p.message_data", [""])[0].replace(":", ""),
        tuple(_grave(proto)),
    )


def _grave(proto: ElementTree.Element) -> list[str]:
    """Return the expert's warnings and errors."""
    found = []
    for field in proto.iter("field"):
        if field.get("name") == "_ws.expert":
            inside = {each.get("name"): each.get("show", "") for each in field.iter("field")}
            if int(inside["_ws.expert.severity"] or "0") >= 0x00600000:  # PI_WARN
                found.append(inside["_ws.expert.message"] or "")
    return found
