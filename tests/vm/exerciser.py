"""A file system exerciser after fsx: random reads, writes, truncations and reopenings of one file, against what they should have done.

`python3 exerciser.py FILE SEED COUNT` prints `ok` or the operation after which the file was not as it should be, with the last ones before.
"""

import os
import random
import sys

MOST = 200_000
path, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
model, log = bytearray(), list[str]()


def fail(why: str) -> None:
    print(f"seed {seed}: {why} after", *log[-10:], sep="\n")
    sys.exit(1)


fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
for number in range(count):
    what = chance.choice(("read", "read", "write", "write", "write", "truncate", "reopen", "size", "append"))
    offset, size = chance.randrange(MOST), chance.choice((1, 100, 4096, 5000, 65536))
    log.append(f"{number} {what} {offset} {size}")
    if what == "read":
        if os.pread(fd, size, offset) != model[offset : offset + size]:
            fail("another content")
    elif what == "write":
        data = chance.randbytes(size)
        if os.pwrite(fd, data, offset) != size:
            fail("a short write")
        model.extend(bytes(max(0, offset - len(model))))
        model[offset : offset + size] = data
    elif what == "truncate":
        os.ftruncate(fd, offset) if chance.random() < 0.5 else os.truncate(path, offset)
        model = model[:offset] + bytes(max(0, offset - len(model)))
    elif what == "reopen":
        os.close(fd)
        fd = os.open(path, os.O_RDWR)
    elif what == "append":
        data = chance.randbytes(size)
        end = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(end, data)
        os.close(end)
        model += data
    elif os.fstat(fd).st_size != len(model) or os.stat(path).st_size != len(model):
        fail(f"{os.fstat(fd).st_size} bytes and not {len(model)}")
os.close(fd)
with open(path, "rb") as file:
    if file.read() != model:
        fail("another content at the end")
print("ok")
