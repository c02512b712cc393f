"""Bytes <-> messages: 9P2000, 9P2000.u and 9P2000.L. No I/O, no trio.

`const` has the manual's numbers, `types` the parts of fields, `messages` the messages, each described once. `codec` turns frames into values and
back, with code that `generate` writes from the descriptions. `framing` cuts a stream into frames. The names listed here are the room's API.
"""

from mk9p.wire.codec import TABLE as TABLE
from mk9p.wire.codec import Codec as Codec
from mk9p.wire.codec import codec as codec
from mk9p.wire.codec import decode as decode
from mk9p.wire.codec import encode as encode
from mk9p.wire.codec import is_name as is_name
from mk9p.wire.codec import pack_dirents as pack_dirents
from mk9p.wire.codec import pack_stat as pack_stat
from mk9p.wire.codec import unpack_dirents as unpack_dirents
from mk9p.wire.codec import unpack_stats as unpack_stats
from mk9p.wire.const import *  # noqa: F403
from mk9p.wire.framing import FrameBuffer as FrameBuffer
from mk9p.wire.messages import *  # noqa: F403
from mk9p.wire.types import Dialect as Dialect
from mk9p.wire.types import Qid as Qid
from mk9p.wire.types import WireStat as WireStat
