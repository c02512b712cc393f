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
    ("written", "plain"),
    [
        ("tcp:host:564", "tcp!host!564"),
        ("tcp:host", "tcp!host"),
        ("tcp:*:0", "tcp!*!0"),
        ("tcp:[::1]:9fs", "tcp!::1!9fs"),
        ("tcp://host:564", "tcp!host!564"),
        ("tcp://host:564/", "tcp!host!564"),
        ("tcp://[fe80::1%eth0]", "tcp!fe80::1%eth0"),
        ("vsock:3:564", "vsock!3!564"),
        ("unix:/run/mk9p/ns", "unix!/run/mk9p/ns"),
        ("unix:///run/mk9p/ns", "unix!/run/mk9p/ns"),
        ("unix:@abstract:a", "unix!@abstract:a"),
        ("unix:/a!b:c", "unix!/a!b:c"),
        ("char:/dev/hvc1", "char!/dev/hvc1"),
        ("fd:0:1", "fd!0!1"),
        ("exec:ssh h mk9p serve fd:0:1", "exec!ssh h mk9p serve fd:0:1"),
        ("9p://host:5640", "tcp!host!5640"),
        ("p9://user@host/", "tcp!host"),
        ("9p+unix://%2Frun%2Fmk9p%2Fns", "unix!/run/mk9p/ns"),
        ("unix!/a:b", "unix!/a:b"),
        ("tcp!::1!564", "tcp!::1!564"),
        ("/run/netns/a:b/tcp!h!1", "/run/netns/a:b/tcp!h!1"),
    ],
)
def test_an_address_without_exclamation_marks_is_the_same_address(written: str, plain: str) -> None:
    assert parse(written) == parse(plain)
    assert parse(written).address == plain


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("tcp:::1:564", "bad address 'tcp:::1:564': want HOST:PORT, and an IPv6 address in brackets: [::1]:564"),
        ("tcp:[::1", "an IPv6 address in brackets"),
        ("9p://host/k/k1", "bad address '9p://host/k/k1': the path in the tree is another argument"),
        ("9p:///", "it names no server"),
        ("il:h:1", "bad dial string 'il:h:1'"),
        ("tcp:", "bad dial string 'tcp:'"),
        ("unix:", "bad dial string 'unix:'"),
    ],
)
def test_an_address_that_is_written_wrong_is_refused_in_one_line(written: str, words: str) -> None:
    with pytest.raises(NineError) as caught:
        parse(written)
    assert caught.value.errno == errno.EINVAL
    assert words in str(caught.value)


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


WANT = "want NETWORK!ADDRESS, as tcp!host!564 or unix:/run/mk9p/ns"


@pytest.mark.parametrize(
    ("address", "number", "words"),
    [
        ("x", errno.EINVAL, f"bad dial string 'x': {WANT}"),
        ("", errno.EINVAL, f"bad dial string '': {WANT}"),
        ("tcp!", errno.EINVAL, f"bad dial string 'tcp!': {WANT}"),
        ("!h", errno.EINVAL, f"bad dial string '!h': {WANT}"),
        ("net/tcp!h", errno.EINVAL, f"bad dial string 'net/tcp!h': {WANT}"),
        ("unix!/a\0b", errno.EINVAL, f"bad dial string 'unix!/a\\x00b': {WANT}"),
        ("il!h!1", errno.EINVAL, "unknown network 'il': want one of tcp tls unix vsock fd char exec"),
        ("/run/netns/k1/unix!/a", errno.EINVAL, "only tcp and tls can be in another network namespace"),
        ("tcp!!564", errno.EINVAL, "tcp!!564: want tcp!HOST!PORT"),
        ("tcp!h!1!2", errno.EINVAL, "want tcp!HOST!PORT"),
        ("tcp!h!65536", errno.EINVAL, "port 65536 is above 65535"),
        ("tcp!h!-1", errno.EINVAL, "unknown port '-1'"),
        ("tcp!h!nosuch", errno.EINVAL, "unknown port 'nosuch': give a number"),
        ("vsock!x!1", errno.EINVAL, "bad CID 'x': want a number, local, host, mkN or *"),
        ("vsock!mk!1", errno.EINVAL, "bad CID 'mk': want a number, local, host, mkN or *"),
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
