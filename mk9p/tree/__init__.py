"""What a file is: the contract (`Node`, `Handle`), and the few kinds of file that trees are made of."""

from mk9p.status import NOW, Buffer, Change, Lock, Stat, StatFs
from mk9p.tree.aside import aside
from mk9p.tree.conversations import Conversation, Conversations, CtlOfNew
from mk9p.tree.ctl import Ctl, settings
from mk9p.tree.dirs import Dir, Lazy, Owned
from mk9p.tree.files import Block, Content, File, Text, decoded
from mk9p.tree.log import Log
from mk9p.tree.node import Ahead, Handle, Maybe, Node, Open, Route, Way, settle
from mk9p.tree.through import ThroughHandle
from mk9p.tree.units import SIZE, TIME, Units
from mk9p.tree.value import Value
from mk9p.tree.waiting import Source, Store, Stream, StreamHandle, Waiters
from mk9p.tree.words import fields, join, quote, split

__all__ = [
    "NOW",
    "SIZE",
    "TIME",
    "Ahead",
    "Block",
    "Buffer",
    "Change",
    "Content",
    "Conversation",
    "Conversations",
    "Ctl",
    "CtlOfNew",
    "Dir",
    "File",
    "Handle",
    "Lazy",
    "Lock",
    "Log",
    "Maybe",
    "Node",
    "Open",
    "Owned",
    "Route",
    "Source",
    "Stat",
    "StatFs",
    "Store",
    "Stream",
    "StreamHandle",
    "Text",
    "ThroughHandle",
    "Units",
    "Value",
    "Waiters",
    "Way",
    "aside",
    "decoded",
    "fields",
    "join",
    "quote",
    "settings",
    "settle",
    "split",
]
