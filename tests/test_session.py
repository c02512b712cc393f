"""The tables of one conversation, without trio: who waits for whom, what a flush does, in which order things end."""

import errno
from collections.abc import Callable
from typing import Any

import pytest

from mk9p.errors import NineError
from mk9p.session import LINK, WRITE_SIDE, Request, Session
from mk9p.wire import NOFID
from mk9p.wire import messages as m
from mk9p.wire.roles import ORDER


def arrive(
    session: Session[str], tag: int, type_: int, *args: object, duplex: bool = False, cancel: bool = True
) -> Request:
    """Let a request arrive that does not answer at once."""
    request = Request(tag, type_, None)
    blockers = session.blockers(type_, args, duplex)
    session.enter(request, args, blockers)
    if cancel and not blockers:
        request.cancel = cancelled(request)
    return request


def cancelled(request: Request) -> Callable[[], None]:
    request.work = 0

    def cancel() -> None:
        request.work += 1

    return cancel


WAITS = [  # earlier, later: must the later one wait?
    (m.Twalk, (0, 1, ("a",)), m.Topen, (1, 0), True),
    (m.Twalk, (0, 1, ("a",)), m.Twalk, (0, 2, ("b",)), False),
    (m.Twalk, (0, 1, ("a",)), m.Twalk, (1, 2, ("b",)), True),
    (m.Twalk, (0, 0, ("a",)), m.Twalk, (0, 2, ("b",)), True),
    (m.Topen, (1, 0), m.Tread, (1, 0, 9), True),
    (m.Topen, (1, 0), m.Tread, (2, 0, 9), False),
    (m.Tread, (1, 0, 9), m.Tread, (1, 9, 9), False),
    (m.Tread, (1, 0, 9), m.Tclunk, (1,), False),
    (m.Tread, (1, 0, 9), m.Twrite, (1, 0, b""), False),
    (m.Twrite, (1, 0, b""), m.Twrite, (1, 1, b""), True),
    (m.Twrite, (1, 0, b""), m.Tread, (1, 0, 9), True),
    (m.Twrite, (1, 0, b""), m.Tclunk, (1,), True),
    (m.Twrite, (1, 0, b""), m.Tgetattr, (1, 0), True),
    (m.Twrite, (1, 0, b""), m.Tfsync, (1, 0), True),
    (m.Tclunk, (1,), m.Tattach, (1, NOFID, "u", "a"), True),
    (m.Tsetattr, (1,) + (0,) * 9, m.Tgetattr, (1, 0), True),
    (m.Tgetattr, (1, 0), m.Tsetattr, (1,) + (0,) * 9, False),
    (m.Tremove, (1,), m.Twalk, (1, 2, ()), True),
    (m.Trenameat, (1, "a", 2, "b"), m.Tclunk, (1,), False),
    (m.Trename, (1, 2, "b"), m.Tgetattr, (1, 0), True),
    (m.Tlink, (1, 2, "x"), m.Tgetattr, (2, 0), False),
]


@pytest.mark.parametrize(("first", "first_args", "second", "second_args", "waits"), WAITS)
def test_who_waits_for_whom(
    first: type[m.Message],
    first_args: tuple[Any, ...],
    second: type[m.Message],
    second_args: tuple[Any, ...],
    waits: bool,
) -> None:
    session: Session[str] = Session()
    a = arrive(session, 1, first.type, *first_args)
    b = arrive(session, 2, second.type, *second_args)
    assert bool(b.blockers) is waits
    ready, _ = session.finish(a)
    assert ready == ([b] if waits else [])


def test_a_duplex_file_reads_while_a_write_waits() -> None:
    session: Session[str] = Session()
    arrive(session, 1, m.Twrite.type, 1, 0, b"")
    assert not arrive(session, 2, m.Tread.type, 1, 0, 9, duplex=True).blockers
    assert arrive(session, 3, m.Twrite.type, 1, 0, b"", duplex=True).blockers


def test_every_fid_that_a_message_names_has_its_place_in_the_order() -> None:
    for cls in m.MESSAGES:
        fids = {i for i, field in enumerate(cls.fields[1:]) if field.name.endswith("fid") or field.name == "dirfd"}
        assert fids == {i for part in ORDER.get(cls.type, ()) for i in part}, cls


def test_a_chain_runs_in_the_order_of_arrival() -> None:
    session: Session[str] = Session()
    walk = arrive(session, 1, m.Twalk.type, 0, 1, ("a",))
    open_ = arrive(session, 2, m.Topen.type, 1, 0)
    reads = [arrive(session, tag, m.Tread.type, 1, 0, 9) for tag in (3, 4)]
    clunk = arrive(session, 5, m.Tclunk.type, 1)
    assert session.finish(walk) == ([open_], [])
    assert session.finish(open_) == ([*reads, clunk], [])


def test_one_that_waits_for_two_runs_after_the_second() -> None:
    session: Session[str] = Session()
    a = arrive(session, 1, m.Topen.type, 1, 0)
    b = arrive(session, 2, m.Topen.type, 2, 0)
    both = arrive(session, 3, m.Trenameat.type, 1, "x", 2, "y")
    assert session.finish(b) == ([], [])
    assert session.finish(a) == ([both], [])


def test_a_flush_of_nothing_is_answered_at_once() -> None:
    session: Session[str] = Session()
    assert session.flush(7, 6) == ([], [7])
    assert session.flush(7, 7) == ([], [7])


def test_a_flush_cancels_what_runs_and_is_answered_after_it() -> None:
    session: Session[str] = Session()
    read = arrive(session, 1, m.Tread.type, 1, 0, 9)
    assert session.flush(2, 1) == ([], [])
    assert session.flush(3, 1) == ([], [])
    assert read.work == 2
    assert set(session.tags) == {1, 2, 3}
    assert session.finish(read) == ([], [2, 3])
    assert not session.tags


def test_a_flush_of_a_flush_is_answered_after_it() -> None:
    session: Session[str] = Session()
    read = arrive(session, 1, m.Tread.type, 1, 0, 9)
    session.flush(2, 1)
    assert session.flush(3, 2) == ([], [])
    assert session.finish(read) == ([], [2, 3])


def test_a_flushed_waiter_never_runs_and_lets_others_go_on() -> None:
    session: Session[str] = Session()
    open_ = arrive(session, 1, m.Topen.type, 1, 0)
    write = arrive(session, 2, m.Twrite.type, 1, 0, b"")
    read = arrive(session, 3, m.Tread.type, 1, 0, 9)
    assert len(read.blockers) == 2
    assert session.flush(9, 2) == ([], [9])
    assert write.cleared
    assert session.finish(open_) == ([read], [])


def test_fids_are_known_or_refused() -> None:
    session: Session[str] = Session(max_fids=2)
    session.check(5)
    session.fids[5] = "five"
    assert session.fid(5) == "five"
    for number, wrong in ((6, errno.EBADF), (NOFID, errno.EBADF)):
        with pytest.raises(NineError) as caught:
            session.fid(number)
        assert caught.value.errno == wrong
    with pytest.raises(NineError) as caught:
        session.check(5)
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(NineError) as caught:
        session.check(NOFID)
    assert caught.value.errno == errno.EBADF
    session.check(6)
    session.fids[6] = "six"
    with pytest.raises(NineError) as caught:
        session.check(7)
    assert caught.value.errno == errno.EMFILE


def test_a_claim_that_was_taken_over_is_not_dropped_by_its_first_owner() -> None:
    session: Session[str] = Session()
    first = arrive(session, 1, m.Twrite.type, 1, 0, b"")
    second = arrive(session, 2, m.Twrite.type, 1, 0, b"")
    session.finish(first)
    assert session.claims == {1 + WRITE_SIDE: second}


def test_what_waited_for_a_dropped_write_waits_for_the_one_before() -> None:
    session: Session[str] = Session()
    first, second, third = (arrive(session, tag, m.Twrite.type, 1, 0, b"") for tag in (1, 2, 3))
    assert session.flush(9, 2) == ([], [9])
    assert second.cleared
    assert list(third.blockers) == [first]
    assert list(first.followers) == [third]
    assert session.finish(first) == ([third], [])


def crowd(session: Session[str], count: int) -> tuple[list[Request], Request, list[Request]]:
    """Let many run that each keep back a walk to a fid, a clunk wait for them all, and many wait for the clunk."""
    before = []
    for n in range(count):
        before.append(arrive(session, n, m.Twalk.type, 1, 1000 + n, ()))
        arrive(session, count + n, m.Twalk.type, 2, 1000 + n, ())
    between = arrive(session, 2 * count, m.Tclunk.type, 2)
    behind = [arrive(session, 2 * count + 1 + n, m.Tread.type, 2, 0, 10) for n in range(count)]
    return before, between, behind


def links(session: Session[str]) -> int:
    """Count the links of all that is there, of what has no tag any more too."""
    seen: dict[Request, None] = {}
    todo = list(session.tags.values())
    while todo:
        request = todo.pop()
        if request not in seen:
            seen[request] = None
            todo += [*request.followers, *request.blockers]
    return sum(len(request.blockers) for request in seen)


def test_a_dropped_request_between_many_and_many_leaves_no_more_links_than_there_were() -> None:
    session: Session[str] = Session()
    before, between, behind = crowd(session, 100)
    assert (len(between.blockers), len(between.followers)) == (100, 100)
    already = links(session)
    assert session.flush(9999, between.tag) == ([], [9999])
    assert links(session) <= already
    assert between.tag not in session.tags
    for request in before[:-1]:
        ready, _ = session.finish(request)
        assert not set(ready) & set(behind)
    ready, _ = session.finish(before[-1])
    assert [request for request in ready if request in behind] == behind
    for request in ready:
        session.finish(request)
    for request in list(session.tags.values()):
        session.finish(request)
    assert (session.held, session.claims, session.users, links(session)) == (0, {}, {}, 0)


def test_a_dropped_request_is_forgotten_with_the_last_that_waited_for_it() -> None:
    session: Session[str] = Session()
    before, between, behind = crowd(session, 10)
    held = session.held - between.size - sum(request.size for request in behind)
    session.flush(9999, between.tag)
    for request in reversed(behind):
        assert session.flush(9999, request.tag) == ([], [9999])
    assert session.held == held
    assert all(between not in request.followers for request in before)


def test_a_claim_goes_to_nobody_who_had_none_also_by_way_of_dropped_requests() -> None:
    session: Session[str] = Session()
    before, between, behind = crowd(session, 10)
    session.flush(9999, between.tag)
    last = arrive(session, 9998, m.Tclunk.type, 2)
    assert {between, *before} <= set(last.blockers)
    session.flush(9999, last.tag)
    assert 2 not in session.claims
    ready = [request for done in before for request in session.finish(done)[0]]
    assert [request for request in ready if request in behind] == behind


def test_a_write_after_a_dropped_one_waits_for_the_one_before() -> None:
    session: Session[str] = Session()
    first, _ = (arrive(session, tag, m.Twrite.type, 1, 0, b"") for tag in (1, 2))
    session.flush(9, 2)
    third = arrive(session, 3, m.Twrite.type, 1, 0, b"")
    assert list(third.blockers) == [first]
    session.finish(first)
    session.finish(third)
    assert (session.claims, session.tags) == ({}, {})


def test_the_bytes_of_requests_under_way_are_counted() -> None:
    session: Session[str] = Session()
    write = Request(1, m.Twrite.type, None, 100)
    session.enter(write, (1, 0, b""))
    other = Request(2, m.Twrite.type, None, 11)
    session.enter(other, (1, 0, b""), session.blockers(m.Twrite.type, (1, 0, b"")))
    assert session.held == 111 + LINK, "the second waits for the first"
    session.drop(other)
    assert session.held == 100
    session.finish(write)
    assert session.held == 0


def test_a_long_chain_of_flushes_is_answered_in_order() -> None:
    session: Session[str] = Session()
    read = arrive(session, 0, m.Tread.type, 1, 0, 9)
    for tag in range(1, 5000):
        session.flush(tag, tag - 1)
    assert session.finish(read) == ([], list(range(1, 5000)))
    assert session.tags == {}


def test_a_claim_waits_until_those_that_use_the_fid_have_begun() -> None:
    session: Session[str] = Session()
    slow = arrive(session, 1, m.Twalk.type, 0, 5, ("slow",))
    clunk = arrive(session, 2, m.Tclunk.type, 5)
    walk = arrive(session, 3, m.Twalk.type, 3, 5, ("x",))  # waits for its new fid
    link = arrive(session, 4, m.Tlink.type, 3, 5, "x")
    other = arrive(session, 5, m.Tgetattr.type, 3, 0)  # goes beside them
    last = arrive(session, 6, m.Tclunk.type, 3)
    assert not other.blockers
    assert list(last.blockers) == [clunk, walk]
    assert session.finish(slow)[0] == [clunk]
    assert session.finish(clunk)[0] == [walk]
    assert arrive(session, 7, m.Tremove.type, 4).blockers == {}
    assert session.finish(walk)[0] == [link, last]
    assert not session.users


def test_a_claim_does_not_wait_for_those_that_have_begun() -> None:
    session: Session[str] = Session()
    write = arrive(session, 1, m.Twrite.type, 1, 0, b"")
    read = arrive(session, 2, m.Tread.type, 1, 0, 9)
    assert session.finish(write)[0] == [read]
    assert not arrive(session, 3, m.Tclunk.type, 1).blockers


def test_what_uses_a_fid_twice_and_what_was_dropped_hold_up_nobody() -> None:
    session: Session[str] = Session()
    make = arrive(session, 1, m.Twalk.type, 0, 5, ("slow",))
    twice = arrive(session, 2, m.Trenameat.type, 5, "a", 5, "b")
    dropped = arrive(session, 3, m.Tlink.type, 4, 5, "x")
    clunk = arrive(session, 4, m.Tclunk.type, 4)
    assert list(clunk.blockers) == [make]
    assert session.flush(5, 3) == ([], [5])
    assert dropped.cleared
    assert not arrive(session, 6, m.Tremove.type, 4).blockers.keys() - {clunk}
    assert session.finish(make)[0] == [twice, clunk]
    assert not session.users


def test_what_may_run_at_once_runs_in_the_order_of_arrival_also_when_one_before_was_dropped() -> None:
    session: Session[str] = Session()
    first = arrive(session, 1, m.Topen.type, 1, 0)
    between = arrive(session, 2, m.Topen.type, 1, 0)
    user = arrive(session, 3, m.Tgetattr.type, 1, 0)
    late = Request(4, m.Tclunk.type, None)
    session.enter(late, (9,), [first, between])
    assert session.drop(between) == ([], [])
    assert session.finish(first)[0] == [user, late]


def test_a_queue_of_walks_of_one_fid_to_itself_waits_each_for_the_one_before() -> None:
    """Each uses the fid and claims it: what those before the last one wait for, the last one waits for already."""
    session: Session[str] = Session()
    arrive(session, 0, m.Topen.type, 1, 0)
    queue = [arrive(session, tag, m.Twalk.type, 1, 1, ("a",)) for tag in range(1, 200)]
    assert {len(request.blockers) for request in queue} == {1}
    assert [session.finish(session.tags[tag])[0] for tag in range(199)] == [[request] for request in queue]


def test_a_claim_waits_for_those_that_use_the_fid_since_the_last_claim() -> None:
    session: Session[str] = Session()
    first, second = (arrive(session, tag, m.Tlopen.type, fid, 0) for tag, fid in ((1, 10), (2, 20)))
    before = arrive(session, 3, m.Twalk.type, 0, 10, ("a",))
    claim = arrive(session, 4, m.Tclunk.type, 0)
    after = arrive(session, 5, m.Twalk.type, 0, 20, ("a",))
    assert list(before.blockers) == list(claim.blockers) == [first]
    last = arrive(session, 6, m.Tattach.type, 0, NOFID, "u", "a")
    assert set(after.blockers) == {claim, second}
    assert set(last.blockers) == {claim, second}


def test_whom_a_request_waits_for_is_counted_with_its_bytes() -> None:
    session: Session[str] = Session()
    opens = [arrive(session, tag, m.Tlopen.type, 100 + tag, 0) for tag in range(50)]
    for tag, one in enumerate(opens):
        arrive(session, 100 + tag, m.Twalk.type, 1, 100 + tag, ("a",))
        assert session.held == (tag + 1) * LINK, one
    clunk = arrive(session, 1000, m.Tclunk.type, 1)
    assert list(clunk.blockers) == opens
    assert session.held == 100 * LINK
    for request in list(session.tags.values()):
        session.finish(request)
    assert session.held == 0
