"""One namespace of many trees: other servers' files as Nodes, the mount table, and what stands where in it.

remote.py     another server, and its files as Nodes (walked.py, opened.py); posted.py is one behind a file of the namespace
table.py      the mount table, pure; resolve.py and routes.py tell what a path leads to, and where walks cross over
union.py      the directories of the namespace; namespace.py is the whole, with the words that change it
all.py        the same part of every kernel in one directory (everyone.py asks them)
readonly.py   nodes that show other nodes; so do untrusted.py, granted.py (what a guest sees; rights.py says what it may do there), and directories
"""
