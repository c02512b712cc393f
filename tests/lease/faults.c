/* Preloaded: lets the nth call that changes the disk fail, or be the last of the process. arm(n, kind): 1 kill, 2 EIO, 3 no space. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/types.h>
#include <unistd.h>

static int left, kind, came;

void arm(int n, int what)
{
	left = n;
	kind = what;
	came = 0;
}

int calls_came(void)
{
	return came;
}

static int due(void)
{
	return kind && --left == 0;
}

static int fails(void)
{
	came = 1;
	if (kind == 1)
		kill(getpid(), SIGKILL);
	errno = kind == 3 ? ENOSPC : EIO;
	return -1;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define PWRITE(name) \
	ssize_t name(int fd, const void *data, size_t count, off_t offset) \
	{ \
		REAL(name); \
		if (fd > 2 && due()) { \
			real(fd, data, count / 2, offset); \
			return fails(); \
		} \
		return real(fd, data, count, offset); \
	}
#define SYNC(name) \
	int name(int fd) \
	{ \
		REAL(name); \
		return due() ? fails() : real(fd); \
	}
#define CUT(name) \
	int name(int fd, off_t length) \
	{ \
		REAL(name); \
		return due() ? fails() : real(fd, length); \
	}

PWRITE(pwrite)
PWRITE(pwrite64)
SYNC(fsync)
SYNC(fdatasync)
CUT(ftruncate)
CUT(ftruncate64)

ssize_t write(int fd, const void *data, size_t count)
{
	REAL(write);
	if (fd > 2 && due()) {
		real(fd, data, count / 2);
		return fails();
	}
	return real(fd, data, count);
}

int unlink(const char *path)
{
	REAL(unlink);
	return due() ? fails() : real(path);
}
