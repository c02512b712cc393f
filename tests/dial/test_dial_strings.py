import errno

import pytest

from mk9p.dial import TRANSPORTS, Dial, dial, listen, parse
from mk9p.errors import NineError


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("tcp!host!564", (None, "tcp", "host!564")),
        ("tcp!::1!9fs", (None, "tcp", "::1!9fs")),
        ("unix!/a!b", (None, "unix", "/a!b")),
        ("fd!0!1", (None, "fd", "0!1")),
        ("exec!ssh k2 mk9p serve fd!0!1", (None, "exec", "ssh k2 mk9p serve fd!0!1")),
        ("/run/netns/k1/tcp!10.0.0.1!564", ("/run/netns/k1", "tcp", "10.0.0.1!564")),
    ],
)
def test_parse(address: str, parts: tuple[str | None, str, str]) -> None:
    found = parse(address)
    netns, network, rest = parts
    assert found == Dial(netns, TRANSPORTS[network], rest)
    assert found.address == address


@pytest.mark.parametrize(
    ("rest", "want"),
    [
        ("host", ("host", 564)),
        ("host!", ("host", 564)),
        ("*!0", ("*", 0)),
        ("fe80::1%eth0!9pfs", ("fe80::1%eth0", 564)),
        ("h!9fs", ("h", 564)),
        ("h!65535", ("h", 65535)),
    ],
)
def test_host_port(rest: str, want: tuple[str, int]) -> None:
    assert Dial(None, TRANSPORTS["tcp"], rest).host_port() == want


WANT = "want NETWORK!ADDRESS, as tcp!host!564 or unix!/run/mk9p/ns"


@pytest.mark.parametrize(
    ("address", "number", "words"),
    [
        ("x", errno.EINVAL, f"bad dial string 'x': {WANT}"),
        ("", errno.EINVAL, f"bad dial string '': {WANT}"),
        ("tcp!", errno.EINVAL, f"bad dial string 'tcp!': {WANT}"),
        ("!h", errno.EINVAL, f"bad dial string '!h': {WANT}"),
        ("net/tcp!h", errno.EINVAL, f"bad dial string 'net/tcp!h': {WANT}"),
        ("unix!/a\0b", errno.EINVAL, f"bad dial string 'unix!/a\\x00b': {WANT}"),
        ("il!h!1", errno.EINVAL, "unknown network 'il': want one of tcp unix vsock fd char exec"),
        ("tls!h!1", errno.EOPNOTSUPP, "TLS is not there yet"),
        ("/run/netns/k1/unix!/a", errno.EINVAL, "only tcp can be in another network namespace"),
        ("tcp!!564", errno.EINVAL, "tcp!!564: want tcp!HOST!PORT"),
        ("tcp!h!1!2", errno.EINVAL, "want tcp!HOST!PORT"),
        ("tcp!h!65536", errno.EINVAL, "port 65536 is above 65535"),
        ("tcp!h!-1", errno.EINVAL, "unknown port '-1'"),
        ("tcp!h!nosuch", errno.EINVAL, "unknown port 'nosuch': give a number"),
        ("vsock!x!1", errno.EINVAL, "bad CID 'x': want a number, local, host or *"),
        ("fd!1", errno.EINVAL, "want fd!READ!WRITE"),
        ("fd!a!b", errno.EINVAL, "want fd!READ!WRITE"),
        ("unix!@", errno.EINVAL, "a socket's path has 1 to 107 bytes"),
        ("unix!/" + "x" * 107, errno.ENAMETOOLONG, "a socket's path has 1 to 107 bytes"),
    ],
)
async def test_what_cannot_be_dialled_or_listened_on(address: str, number: int, words: str) -> None:
    for call in (dial, listen):
        with pytest.raises(NineError) as caught:
            await call(address)
        assert caught.value.errno == number
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


async def test_a_command_cannot_be_listened_on() -> None:
    with pytest.raises(NineError, match=r"^exec!cat: a command cannot be listened on: dial it$") as caught:
        await listen("exec!cat")
    assert caught.value.errno == errno.EINVAL


async def test_words_are_one_line() -> None:
    with pytest.raises(NineError) as caught:
        await dial("unix!/no\nsuch")
    assert str(caught.value) == "unix!/no such: no such socket: is its server running?"
