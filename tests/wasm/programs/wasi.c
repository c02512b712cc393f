/* what WASI preview 1 has for files, times, and waiting, by the C library; prints what fails, and "right" at the end */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int wrong;
#define is(what, want) \
	do { \
		errno = 0; \
		long is_ = (long)(what), want_ = (long)(want); \
		if (is_ != want_) \
			printf("line %d: %s is %ld (%s), not %ld\n", __LINE__, #what, is_, strerror(errno), want_), wrong = 1; \
	} while (0)
#define fails(what, number) \
	do { \
		errno = 0; \
		if ((long)(what) != -1 || errno != number) \
			printf("line %d: %s: %s, not %s\n", __LINE__, #what, strerror(errno), #number), wrong = 1; \
	} while (0)

int main(int argc, char **argv)
{
	char buf[100];
	struct stat s;
	is(argc, 3);
	is(strcmp(argv[2], "two words"), 0);
	is(strcmp(getenv("GREETING"), "good day"), 0);
	is(getenv("PATH") == NULL, 1);

	int f = open("/d/new", O_RDWR | O_CREAT | O_EXCL, 0644);
	is(f > 2, 1);
	fails(open("/d/new", O_RDWR | O_CREAT | O_EXCL, 0644), EEXIST);
	is(write(f, "0123456789", 10), 10);
	is(lseek(f, 3, SEEK_SET), 3);
	is(read(f, buf, 4), 4);
	is(memcmp(buf, "3456", 4), 0);
	is(lseek(f, -2, SEEK_END), 8);
	is(lseek(f, -1, SEEK_CUR), 7);
	fails(lseek(f, -1, SEEK_SET), EINVAL);
	is(pwrite(f, "xy", 2, 1), 2);
	is(pread(f, buf, 5, 0), 5);
	is(memcmp(buf, "0xy34", 5), 0);
	is(lseek(f, 0, SEEK_CUR), 7);
	is(ftruncate(f, 5), 0);
	is(fstat(f, &s), 0);
	is(s.st_size, 5);
	is(S_ISREG(s.st_mode), 1);
	is(fsync(f), 0);
	is(fdatasync(f), 0);
	struct timespec t[2] = {{1000, 5}, {2000, 6}};
	is(futimens(f, t), 0);
	is(close(f), 0);
	fails(close(f), EBADF);
	is(stat("/d/new", &s), 0);
	is(s.st_mtim.tv_sec, 2000);
	is(truncate("/d/new", 3), 0);
	f = open("/d/new", O_WRONLY | O_APPEND);
	is(write(f, "end", 3), 3);
	fails(read(f, buf, 1), EBADF);
	close(f);
	f = open("/d/new", O_RDONLY);
	is(read(f, buf, 100), 6);
	is(memcmp(buf, "0xyend", 6), 0);
	is(read(f, buf, 100), 0);
	fails(write(f, "x", 1), EBADF);
	close(f);

	is(mkdir("/d/sub", 0755), 0);
	fails(mkdir("/d/sub", 0755), EEXIST);
	is(rename("/d/new", "/d/sub/moved"), 0);
	fails(stat("/d/new", &s), ENOENT);
	is(symlink("moved", "/d/sub/link"), 0);
	is(readlink("/d/sub/link", buf, sizeof buf), 5);
	is(stat("/d/sub/link", &s), 0);
	is(s.st_size, 6);
	is(lstat("/d/sub/link", &s), 0);
	is(S_ISLNK(s.st_mode), 1);
	f = open("/d/sub/link", O_RDONLY);
	is(read(f, buf, 100), 6);
	close(f);
	fails(open("/d/sub/link", O_RDONLY | O_NOFOLLOW), ELOOP);
	is(link("/d/sub/moved", "/d/sub/second"), 0);
	is(stat("/d/sub/second", &s), 0);
	is(s.st_nlink, 2);
	is(symlink("../../outside", "/d/sub/out"), 0);
	fails(stat("/d/sub/out", &s), ENOTCAPABLE);
	is(symlink("loop", "/d/sub/loop"), 0);
	fails(stat("/d/sub/loop", &s), ELOOP);

	DIR *d = opendir("/d/sub");
	int names = 0;
	for (struct dirent *e; (e = readdir(d));)
		if (e->d_name[0] != '.')
			names++;
	is(names, 5);
	rewinddir(d);
	is(readdir(d) != NULL, 1);
	is(closedir(d), 0);
	fails(rmdir("/d/sub"), ENOTEMPTY);
	fails(unlink("/d/sub"), EISDIR);
	fails(rmdir("/d/sub/moved"), ENOTDIR);
	is(unlink("/d/sub/moved"), 0);
	is(unlink("/d/sub/second"), 0);
	is(unlink("/d/sub/link"), 0);
	is(unlink("/d/sub/out"), 0);
	is(unlink("/d/sub/loop"), 0);
	is(rmdir("/d/sub"), 0);

	int up = open("/d", O_RDONLY | O_DIRECTORY);
	is(up > 2, 1);
	fails(openat(up, "../secret", O_RDONLY), ENOTCAPABLE);
	fails(openat(up, "names/../../secret", O_RDONLY), ENOTCAPABLE);
	is(openat(up, "names/../in", O_RDONLY) > 2, 1);
	fails(open("/etc/passwd", O_RDONLY), ENOENT);
	fails(open("/r/new", O_WRONLY | O_CREAT, 0644), EROFS);
	fails(open("/r/in", O_RDWR), EROFS);
	fails(unlink("/r/in"), EROFS);
	fails(mkdir("/r/sub", 0755), EROFS);
	fails(rename("/r/in", "/r/out"), EROFS);
	is((f = open("/r/in", O_RDONLY)) > 2, 1);
	is(read(f, buf, 3), 3);

	struct timespec a, b, wait = {0, 20000000};
	is(clock_gettime(CLOCK_MONOTONIC, &a), 0);
	is(nanosleep(&wait, NULL), 0);
	is(clock_gettime(CLOCK_MONOTONIC, &b), 0);
	is((b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec >= 20000000, 1);
	is(clock_gettime(CLOCK_REALTIME, &a), 0);
	is(a.tv_sec > 1700000000, 1);
	is(clock_getres(CLOCK_MONOTONIC, &a), 0);
	unsigned char r[32] = {0};
	is(getentropy(r, sizeof r), 0);
	int zero = 0;
	for (int i = 0; i < 32; i++)
		zero += !r[i];
	is(zero < 8, 1);
	struct pollfd p[2] = {{0, POLLIN, 0}, {f, POLLIN, 0}};
	is(poll(p, 2, 1000) >= 1, 1);
	is(poll(p, 1, 2000), 1);
	is(read(0, buf, 100), 6);
	is(memcmp(buf, "input\n", 6), 0);
	is(read(0, buf, 100), 0);
	is(isatty(1), 0);
	is(write(2, "to stderr\n", 10), 10);
	puts(wrong ? "wrong" : "right");
	return wrong;
}
