"""What decides for a daemon, from its options."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from mk9p.authority.book import Book
from mk9p.authority.capabilities import Capabilities
from mk9p.authority.deciding import Authority
from mk9p.authority.files import Auth
from mk9p.authority.sinks import sink

log = logging.getLogger("mk9p.authority")


@contextmanager
def authority_for(policy: str | None, audit: Sequence[str]) -> Iterator[Auth]:
    """Make it, with the rules of the file `policy`, the log also at the places `audit` (sinks.py), and the capabilities of this user's ledger.

    Raises OSError for a file that cannot be read or written, and EINVAL for a wrong rule.
    """
    with ExitStack() as stack:
        authority = Authority(book=None if policy is None else Book.read(policy))
        if audit:
            authority.audit.sinks.append(stack.enter_context(sink(list(audit))))
        auth = Auth(authority)
        try:
            Capabilities(authority).add_to(auth)
        except RuntimeError as error:  # this user has no home
            log.warning("without capabilities: %s", error)
        yield auth
