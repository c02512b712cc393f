"""What people type at a shell, and what they expect to see; for a tree of `Shown` that v9fs has mounted at the working directory.

All of it runs in one shell of the guest, in this order, each in a subshell: what comes later sees what came before.
"""

import hashlib

import attrs

from tests.interop.tree_interop import BIG, DISK

BIG_SUM = hashlib.md5(BIG.encode()).hexdigest()
PIECE_SUM = hashlib.md5(DISK[5120:6656]).hexdigest()


@attrs.frozen
class Idiom:
    """A script, what it prints, and for one that must fail, the words of the error on its stderr; `writes`: it is a write that fails."""

    name: str
    script: str
    shows: str = ""
    error: str = ""
    writes: bool = False


# Linux 6.12's write(2) on v9fs returns 0 where the server said why it failed (its netfs loses the error of an unbuffered write), which programs tell
# as one of these. `error` beside the ctl has the words all the same.
LOST = ("Input/output error", "No space left on device")

IDIOMS = (
    # reading
    Idiom("cat", "cat status", "value 0\n"),
    Idiom("cat of what is not there", "cat nothing", error="No such file or directory"),
    Idiom("cat of a directory", "cat shelf", error="Is a directory"),
    Idiom("below a file", "cat status/x", error="Not a directory"),
    Idiom("cat of a big file", "cat big | md5sum", f"{BIG_SUM}  -\n"),
    Idiom("while read", 'while read -r key value; do echo "$key=$value"; done <status', "value=0\n"),
    Idiom("while read of many lines", "n=0; while read -r x; do n=$((n+1)); done <many/file007; echo $n", "1\n"),
    Idiom("read twice", "{ read -r a b; read -r c d; echo $a $b $c $d; } <big", "line 0 line 1\n"),
    Idiom("head -n1", "head -n1 big", "line 0\n"),
    Idiom("tail -n1", "tail -n1 big", "line 29999\n"),
    Idiom("tail -c", "tail -c 6 big", "29999\n"),
    Idiom("wc", "wc -c <big", f"{len(BIG)}\n"),
    Idiom("grep", "grep -c '7$' big", "3000\n"),
    Idiom("grep -r", "grep -rl 'value' status ctl", "status\n"),
    Idiom("substitution", "echo $(cat status)", "value 0\n"),
    Idiom("cp", "cp big /tmp/copy && md5sum </tmp/copy", f"{BIG_SUM}  -\n"),
    Idiom("dd reads", "dd if=disk bs=512 skip=10 count=3 2>/dev/null | md5sum", f"{PIECE_SUM}  -\n"),
    # commands
    Idiom("echo >", "echo add 5 >ctl; cat status", "value 5\n"),
    Idiom("echo >>", "echo add 2 >>ctl; cat status", "value 7\n"),
    Idiom("printf of two lines", r"printf 'add 1\nadd 10\n' >ctl; cat status", "value 18\n"),
    Idiom("printf without a newline", "printf 'add 2' >ctl; cat status", "value 20\n"),
    Idiom("here document", "cat >ctl <<.\nadd 1\nadd 1\n.\ncat status", "value 22\n"),
    Idiom("two writes in one open", "{ echo add 1; echo add 1; } >ctl; cat status", "value 24\n"),
    Idiom("a pipe", "echo add 1 | cat >ctl; echo add 1 | tee ctl; cat status", "add 1\nvalue 26\n"),
    Idiom("cp of a file", "echo add 4 >/tmp/words; cp /tmp/words ctl; cat status", "value 30\n"),
    Idiom("dd writes", "echo add 10 | dd of=ctl 2>/dev/null; cat status", "value 40\n"),
    Idiom("reading a ctl", "cat ctl", "add 40\n"),
    Idiom("what it shows can be written", "cat ctl >/tmp/words; cat /tmp/words >ctl; cat status", "value 80\n"),
    Idiom("truncation alone", ": >ctl; cat status", "value 80\n"),
    Idiom("a wrong word", "echo bogus >ctl", error="Invalid argument", writes=True),
    Idiom("its error in words", "(echo bogus >ctl) 2>/dev/null; grep -c bogus error", "1\n"),
    Idiom("a wrong argument", "echo add x >ctl", error="Invalid argument", writes=True),
    Idiom("its usage", "(echo add x >ctl) 2>/dev/null; cat error", "usage: add N\n"),
    Idiom("a success empties it", "echo add 0 >ctl; cat error"),
    Idiom(
        "the first wrong line ends it",
        "cat >/tmp/words <<.\nadd 1\nbogus\nadd 100\n.\ndd if=/tmp/words of=ctl",
        error="Invalid argument",
        writes=True,
    ),
    Idiom("and only what came before was done", "cat status", "value 81\n"),
    Idiom("exec 3<>", "exec 3<>ask; echo double 21 >&3; cat <&3", "42\n"),
    Idiom(
        "question and answer in turn",
        "exec 3<>ask; for n in 1 20 300; do echo double $n >&3; read -r a <&3; echo $a; done",
        "2\n40\n600\n",
    ),
    Idiom(
        "clone",
        "exec 3<>talks/clone; read -r n <&3; echo say hello >&3; cat talks/$n/data; ls talks | wc -l",
        "hello\n2\n",
    ),
    Idiom("its end", "ls talks", "clone\n"),
    # looking
    Idiom("ls", "ls", "ask\naskerror\nbig\nctl\ndisk\nerror\nevents\nlogs\nmany\nsecret\nshelf\nstatus\ntalks\n"),
    Idiom("ls -l", "ls -l ctl status secret | cut -c1-10", "-rw-r--r--\n-r--------\n-r--r--r--\n"),
    Idiom("ls -ld", "ls -ld shelf | cut -c1-10", "drwxrwxrwx\n"),
    Idiom("ls -l of many", "ls -l many | wc -l", "301\n"),
    Idiom("sizes", "ls -l disk | { read -r a b c d size rest; echo $size; }", f"{len(DISK)}\n"),
    Idiom("find", "find many -name 'file00*' | wc -l", "10\n"),
    Idiom("glob", "cd many; echo file00[12]", "file001 file002\n"),
    Idiom("test", "test -d shelf && test -f ctl && test -w ctl && ! test -e nothing && echo yes", "yes\n"),
    Idiom("df", "df . | wc -l", "2\n"),
    Idiom("df names the mount", "df -P . | tail -n1 | grep -c /mnt/t", "1\n"),
    # what cannot be done to made-up files
    Idiom("create", "echo x >new", error="Operation not permitted"),
    Idiom("touch of a new one", "touch new", error="Operation not permitted"),
    Idiom("mkdir", "mkdir new", error="Operation not permitted"),
    Idiom("rm", "rm -f status", error="Operation not permitted"),
    Idiom("mv", "mv status other", error="Operation not permitted"),
    Idiom("ln -s", "ln -s status other", error="Operation not permitted"),
    Idiom("chmod", "chmod 600 status", error="Operation not permitted"),
    Idiom("sed -i", "sed -i s/a/b/ status", error="Operation not permitted"),
    Idiom("writing what is to be read", "echo x >status", error="Permission denied", writes=True),
    Idiom("another user", "/usr/bin/setpriv --reuid 1001 --clear-groups cat secret", error="Permission denied"),
    Idiom("his ctl", "/usr/bin/setpriv --reuid 1001 --clear-groups sh -c 'echo add 1 >ctl'", error="Permission denied"),
    Idiom("and all is as it was", "cat status; cat secret", "value 81\nfor root\n"),
    # what can be done to stored ones
    Idiom("touch", "touch shelf/new && ls shelf", "new\n"),
    Idiom("write and append", "echo one >shelf/new; echo two >>shelf/new; cat shelf/new", "one\ntwo\n"),
    Idiom("write again", "echo three >shelf/new; cat shelf/new", "three\n"),
    Idiom("cp to it", "cp big shelf/big && cmp big shelf/big && rm shelf/big"),
    Idiom(
        "dd into the middle",
        "printf XYZ | dd of=shelf/new bs=1 seek=2 conv=notrunc 2>/dev/null; cat shelf/new",
        "thXYZ\n",
    ),
    Idiom("mv of a stored one", "mv shelf/new shelf/old && ls shelf", "old\n"),
    Idiom("chmod of a stored one", "chmod 640 shelf/old; ls -l shelf/old | cut -c1-10", "-rw-r-----\n"),
    Idiom("sed -i of a stored one", "sed -i s/XYZ/xyz/ shelf/old; cat shelf/old", "thxyz\n"),
    Idiom("mkdir of a stored one", "mkdir shelf/d && mv shelf/old shelf/d/ && ls shelf/d", "old\n"),
    Idiom("rmdir of a full one", "rmdir shelf/d", error="Directory not empty"),
    Idiom(
        "ln -s of a stored one", "ln -s ../status shelf/l && readlink shelf/l && cat shelf/l", "../status\nvalue 81\n"
    ),
    Idiom("rm of what is not there", "rm shelf/nothing", error="No such file or directory"),
    Idiom("rm -r", "rm -r shelf/d shelf/l && ls shelf"),
    Idiom(
        "dd into a disk",
        "printf XYZ | dd of=disk bs=1 seek=100 conv=notrunc 2>/dev/null; dd if=disk bs=1 skip=99 count=1 2>/dev/null | wc -c",
        "1\n",
    ),
)


def script(idioms: tuple[Idiom, ...], where: str) -> str:
    """Return one script that runs them all and marks where each begins, what it printed, and its status."""
    parts = [
        f"echo '=== {idiom.name}'; (cd {where} || exit 99\n{idiom.script}\n) 2>/tmp/errors; s=$?; echo; echo \"=== $s\"; cat /tmp/errors; echo '==='"
        for idiom in idioms
    ]
    return "\n".join(parts)


def results(text: str) -> dict[str, tuple[str, int, str]]:
    """Return of what such a script printed, by name: output, status, errors."""
    found: dict[str, tuple[str, int, str]] = {}
    fields = text.split("=== ")
    for head, tail in zip(fields[1::2], fields[2::2], strict=True):
        name, _, output = head.partition("\n")
        status, _, errors = tail.partition("\n")
        found[name] = (output.removesuffix("\n"), int(status), errors.removesuffix("===\n"))
    return found
