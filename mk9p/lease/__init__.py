"""Who may use what, until when; and services by name and attribute.

claims.py    what is wanted by attributes, and the choice, pure; booking.py takes it
wish.py      what somebody wants to lease, pure; near.py finds who is in its way
book.py      the rules of leases, pure
store.py     what must outlive the composer, in one file
leases.py    leases as they are taken, waited for, renewed and ended: the book, the store and a clock
files.py     `lease/`
registry.py  the rules of the registry, pure; entries.py is `registry/`
"""
