/* copy a file, slowly and in odd pieces, and append a line a piece to a log; the directory that it lists is open meanwhile */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	unsigned work = argc > 1 ? atoi(argv[1]) : 60000;
	int in = open("/d/in", O_RDONLY), out = open("/d/out", O_WRONLY | O_CREAT | O_TRUNC, 0644);
	int log = open("/d/log", O_WRONLY | O_CREAT | O_APPEND, 0644);
	DIR *dir = opendir("/d/names");
	char buf[1777];
	ssize_t n;
	int k = 0;
	if (in < 0 || out < 0 || log < 0 || !dir) {
		perror("open");
		return 1;
	}
	while ((n = read(in, buf, 1 + (k * 7919) % (int)sizeof buf)) > 0) {
		for (ssize_t at = 0, w; at < n; at += w)
			if ((w = write(out, buf + at, n - at)) < 0) {
				perror("write");
				return 1;
			}
		dprintf(log, "%d %zd\n", k++, n);
		struct dirent *e = k % 10 ? NULL : readdir(dir);
		if (e && e->d_name[0] != '.')
			printf("%s\n", e->d_name);
		fflush(stdout);
		for (volatile unsigned h = 0; h < work; h++)
			;
	}
	if (n < 0) {
		perror("read");
		return 1;
	}
	printf("%d pieces\n", k);
	return 0;
}
