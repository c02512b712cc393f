"""Who may do what where: decided in one place, when somebody attaches, and kept by one object, the guarded view of the tree that they get.

judges.py             which OPS a principal has at a path, at once for all that is below it
guard.py              a tree in which every walk, open, create, remove, change, rename and link asks a judge; all else goes straight through
deciding.py           the decision at an attach, capabilities, and the live sessions that a revocation ends
files.py              `auth/`
grants.py ledger.py   capabilities
"""
