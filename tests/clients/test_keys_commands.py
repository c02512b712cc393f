"""`mk9p ca`, `context`, `login`, `-c`: keys and names at hand, and nobody else's."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mk9p import contexts, sync
from mk9p.__main__ import main
from mk9p.client import connect
from mk9p.dial import Keys
from mk9p.errors import NineError
from mk9p.testing import in_thread, serving_at
from mk9p.tree import Dir, Text
from tests.dial.keyring import Keyring


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("MK9P", "MK9P_CONTEXT", "MK9P_CA", "MK9P_CERT", "MK9P_KEY", "MK9P_CRL"):
        monkeypatch.setenv(name, "x")  # so that what a command sets is undone
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Keyring]]:
    """The address of a tree, and the authority of its certificate."""
    ring = Keyring(tmp_path)
    with in_thread(serving_at("tls!localhost!0", Dir({"hi": Text("hello\n")}), keys=ring.server)) as (host, _):
        yield host.address, ring


def test_an_authority_is_made_and_used_by_commands_alone(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["ca", "issue", "ann"]) == 1
    assert "no authority here: `mk9p ca init` makes one" in capfd.readouterr().err
    assert main(["ca", "init"]) == 0
    ca = home / "config/mk9p/ca/ca.pem"
    assert str(ca) in capfd.readouterr().out
    assert main(["ca", "issue", "server", "--host", "localhost"]) == 0
    assert main(["ca", "issue", "ann"]) == 0
    server = Keys(str(ca), str(home / "server.pem"), str(home / "server.key"))
    with in_thread(serving_at("tls!localhost!0", Dir({"hi": Text("hello\n")}), keys=server)) as (host, _):
        capfd.readouterr()
        flags = ["--ca", str(ca), "--cert", "ann.pem", "--key", "ann.key", "-a", host.address]
        assert main([*flags, "cat", "hi"]) == 0
        assert capfd.readouterr().out == "hello\n"
        assert main([f"--ca={ca}", "--cert=ann.pem", "--key=ann.key", "-a", host.address, "cat", "hi"]) == 0
        assert capfd.readouterr().out == "hello\n"
        assert main(["ca", "revoke", "ann"]) == 0
        assert main([*flags, "cat", "hi"]) == 1
        assert "it refuses our certificate, which was revoked" in capfd.readouterr().err
    assert main(["ca", "list", "--json"]) == 0
    listed = json.loads(capfd.readouterr().out)
    assert [(each["name"], each["state"], each["hosts"]) for each in listed] == [
        ("ann", "revoked", []),
        ("server", "good", ["localhost"]),
    ]
    assert main(["ca", "list"]) == 0
    assert " ann " in capfd.readouterr().out


def test_a_context_is_an_address_and_keys_under_a_name(
    served: tuple[str, Keyring], home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    address, ring = served
    ann = ring.issue("ann")
    assert main(["context", "add", "lab", address, "--ca", ann.ca, "--cert", ann.cert, "--key", ann.key]) == 0
    assert main(["context", "add", "other", "unix!/nowhere"]) == 0
    assert main(["-c", "lab", "cat", "hi"]) == 0
    assert capfd.readouterr().out == "hello\n"


def test_the_context_in_use_comes_after_a_and_the_variable(
    served: tuple[str, Keyring], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    address, ring = served
    ann = ring.issue("ann")
    contexts.save("lab", contexts.Context(address, ann.ca, ann.cert, ann.key))
    assert sync.address_of(None) == "unix!/run/mk9p/ns"
    assert main(["context", "use", "lab"]) == 0
    assert sync.address_of(None) == address
    with sync.connect() as client:
        assert client.read("hi") == "hello\n"
    monkeypatch.setenv("MK9P", "unix!/elsewhere")
    assert sync.address_of(None) == "unix!/elsewhere"
    assert sync.address_of("unix!/here") == "unix!/here"
    monkeypatch.delenv("MK9P")
    assert main(["context", "list"]) == 0
    assert capfd.readouterr().out == f"* lab {address} {ann.cert}\n"
    assert main(["context", "use"]) == 0
    assert sync.address_of(None) == "unix!/run/mk9p/ns"
    assert main(["context", "use", "lab"]) == 0
    assert main(["context", "remove", "lab"]) == 0
    assert sync.address_of(None) == "unix!/run/mk9p/ns", "a context that is gone is not in use"


async def test_python_takes_a_context_by_name(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    ann = ring.issue("ann")
    async with serving_at("tls!localhost!0", Dir({"hi": Text("hello\n")}), keys=ring.server) as host:
        contexts.save("lab", contexts.Context(host.address, ann.ca, ann.cert, ann.key))
        async with connect(context="lab") as client:
            assert await client.read("hi") == "hello\n"
        with pytest.raises(NineError, match="no context 'nolab'; there are: lab"):
            async with connect(context="nolab"):
                raise AssertionError("it connected")


def test_a_login_tries_it_and_keeps_only_what_worked(
    served: tuple[str, Keyring], capfd: pytest.CaptureFixture[str]
) -> None:
    address, ring = served
    ann = ring.issue("ann")
    assert main(["login", address, "--ca", ann.ca]) == 1
    assert "give --cert and --key" in capfd.readouterr().err
    assert contexts.names() == []
    assert main(["login", address, "--ca", ann.ca, "--cert", ann.cert, "--key", ann.key]) == 0
    assert f"in at {address}; context localhost" in capfd.readouterr().out
    assert contexts.current() == "localhost"
    assert main(["login"]) == 0, "again, with what is known"
    assert main(["cat", "hi"]) == 0


def test_files_of_contexts_are_closed_and_what_is_open_is_not_read(home: Path) -> None:
    contexts.save("lab", contexts.Context("unix!/a", cap="secret"))
    path = home / "config/mk9p/contexts/lab"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert contexts.load("lab").aname == "cap!secret"
    path.chmod(0o644)
    with pytest.raises(NineError, match="others can read it: chmod 600"):
        contexts.load("lab")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "a b", "a" * 65, "../x"])
def test_a_bad_name_is_no_path(name: str) -> None:
    with pytest.raises(NineError, match="bad name of a context"):
        contexts.save(name, contexts.Context("unix!/a"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("address unix!/a\nwhat x\n", "line 2: want one of address ca cert key cap"),
        ("address unix!/a\naddress unix!/b\n", "line 2"),
        ("ca /x\n", "no address"),
        ("address\n", "line 1"),
    ],
)
def test_a_damaged_context_is_told_by_its_line(home: Path, text: str, words: str) -> None:
    contexts.save("lab", contexts.Context("unix!/a"))
    (home / "config/mk9p/contexts/lab").write_text(text)
    with pytest.raises(NineError, match=words):
        contexts.load("lab")


def test_a_capability_of_a_context_is_for_its_address_alone(home: Path) -> None:
    from mk9p.client.client import way_in

    contexts.save("lab", contexts.Context("unix!/a", cap="secret"))
    contexts.use("lab")
    assert way_in(None, "", None, None) == ("unix!/a", "cap!secret", None)
    assert way_in("unix!/b", "", None, None) == ("unix!/b", "", None)
    assert way_in(None, "mine", None, None) == ("unix!/a", "mine", None)
