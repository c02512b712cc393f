/* how many calls a second: of the clock, and of a file that it was granted */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

#define MEASURE(name, count, call)                                                             \
	do {                                                                                   \
		double began = now();                                                          \
		for (int i = 0; i < (count); i++)                                              \
			if ((call) < 0)                                                        \
				return perror(name), 1;                                        \
		printf("%s %.0f\n", name, (count) / (now() - began));                          \
	} while (0)

static int opened(void)
{
	int fd = open("/d/file", O_RDONLY);
	return fd < 0 ? fd : close(fd);
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 2000;
	static char piece[1 << 16];
	struct stat status;
	struct timespec t;
	int fd = open("/d/file", O_RDWR | O_CREAT, 0644);
	if (fd < 0)
		return perror("open"), 1;
	MEASURE("clock_time_get", 50 * count, clock_gettime(CLOCK_REALTIME, &t));
	MEASURE("fd_pwrite of 64 bytes", count, pwrite(fd, piece, 64, 0));
	MEASURE("fd_pread of 64 bytes", count, pread(fd, piece, 64, 0));
	MEASURE("fd_filestat_get", count, fstat(fd, &status));
	MEASURE("path_filestat_get", count, stat("/d/file", &status));
	MEASURE("path_open and fd_close", count, opened());
	MEASURE("fd_pwrite of 64 KiB", count / 4, pwrite(fd, piece, sizeof piece, 0));
	MEASURE("fd_pread of 64 KiB", count / 4, pread(fd, piece, sizeof piece, 0));
	return 0;
}
