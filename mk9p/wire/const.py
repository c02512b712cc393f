"""The numbers of the protocol, under their names in the manual.

They are plain ints: hot paths compare and mask them, and an enum's `&` costs ten times an int's. Names without a prefix are those of Plan 9's
intro(5), open(5) and stat(5) (`/sys/include/fcall.h`, `libc.h`), and of 9P2000.u. Names with a prefix (`L_`, `GETATTR_`, `SETATTR_`, `LOCK_`,
`DT_`) are 9P2000.L's, from Linux's include/net/9p/9p.h, which calls them `P9_DOTL_…`, `P9_STATS_…`, `P9_ATTR_…`, `P9_LOCK_…`.
"""

NOTAG = 0xFFFF
NOFID = 0xFFFFFFFF
NONUNAME = 0xFFFFFFFF
# msize of an Rversion that answers no Tversion: this server has no conversation (server/beginning.py)
NOBODY = 0xFFFFFFFF
IOHDRSZ = 24  # ample room for Twrite/Rread header: msize - IOHDRSZ is the largest count
MAXWELEM = 16  # names in one Twalk, qids in one Rwalk: walk(5)

# qid.type: the top byte of mode
QTDIR = 0x80
QTAPPEND = 0x40
QTEXCL = 0x20
QTMOUNT = 0x10
QTAUTH = 0x08
QTTMP = 0x04
QTSYMLINK = 0x02
QTLINK = 0x01
QTFILE = 0x00

# stat.mode and Tcreate.perm
DMDIR = 0x80000000
DMAPPEND = 0x40000000
DMEXCL = 0x20000000
DMMOUNT = 0x10000000
DMAUTH = 0x08000000
DMTMP = 0x04000000
DMSYMLINK = 0x02000000
DMLINK = 0x01000000
DMDEVICE = 0x00800000
DMNAMEDPIPE = 0x00200000
DMSOCKET = 0x00100000
DMSETUID = 0x00080000
DMSETGID = 0x00040000
DMSETVTX = 0x00010000

# Topen.mode, Tcreate.mode
OREAD = 0
OWRITE = 1
ORDWR = 2
OEXEC = 3
OTRUNC = 0x10
OCEXEC = 0x20
ORCLOSE = 0x40
OAPPEND = 0x80  # 9P2000.u, as in Linux
OEXCL = 0x1000

# Tlopen.flags, Tlcreate.flags: those of Linux on x86, whatever the machine
L_RDONLY = 0o0
L_WRONLY = 0o1
L_RDWR = 0o2
L_NOACCESS = 0o3
L_CREAT = 0o100
L_EXCL = 0o200
L_NOCTTY = 0o400
L_TRUNC = 0o1000
L_APPEND = 0o2000
L_NONBLOCK = 0o4000
L_DSYNC = 0o10000
L_FASYNC = 0o20000
L_DIRECT = 0o40000
L_LARGEFILE = 0o100000
L_DIRECTORY = 0o200000
L_NOFOLLOW = 0o400000
L_NOATIME = 0o1000000
L_CLOEXEC = 0o2000000
L_SYNC = 0o4000000

# Tunlinkat.flags
AT_REMOVEDIR = 0x200

# Tgetattr.request_mask, Rgetattr.valid
GETATTR_MODE = 0x0001
GETATTR_NLINK = 0x0002
GETATTR_UID = 0x0004
GETATTR_GID = 0x0008
GETATTR_RDEV = 0x0010
GETATTR_ATIME = 0x0020
GETATTR_MTIME = 0x0040
GETATTR_CTIME = 0x0080
GETATTR_INO = 0x0100
GETATTR_SIZE = 0x0200
GETATTR_BLOCKS = 0x0400
GETATTR_BTIME = 0x0800
GETATTR_DATA_VERSION = 0x2000
GETATTR_GEN = 0x1000
GETATTR_DATA_VERSION = 0x2000
GETATTR_BASIC = 0x07FF
GETATTR_ALL = 0x3FFF

# Tsetattr.valid
SETATTR_MODE = 0x001
SETATTR_UID = 0x002
SETATTR_GID = 0x004
SETATTR_SIZE = 0x008
SETATTR_ATIME = 0x010
SETATTR_MTIME = 0x020
SETATTR_CTIME = 0x040
SETATTR_ATIME_SET = 0x080
SETATTR_MTIME_SET = 0x100

# Tlock.type_, Tlock.flags, Rlock.status
LOCK_TYPE_RDLCK = 0
LOCK_TYPE_WRLCK = 1
LOCK_TYPE_UNLCK = 2
LOCK_FLAGS_BLOCK = 1
LOCK_FLAGS_RECLAIM = 2
LOCK_SUCCESS = 0
LOCK_BLOCKED = 1
LOCK_ERROR = 2
LOCK_GRACE = 3

# the type of an entry of Rreaddir: readdir(3)
DT_UNKNOWN = 0
DT_FIFO = 1
DT_CHR = 2
DT_DIR = 4
DT_BLK = 6
DT_REG = 8
DT_LNK = 10
DT_SOCK = 12
