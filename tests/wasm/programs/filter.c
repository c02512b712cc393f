/* a filter between two channels, or from standard input to output: numbers the lines, ends at "end" */
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int in = argc > 1 ? open(argv[1], O_RDONLY) : 0, out = argc > 2 ? open(argv[2], O_WRONLY) : 1;
	char buf[4096], line[5000];
	size_t have = 0;
	int k = 0;
	ssize_t n;
	if (in < 0 || out < 0) {
		perror("open");
		return 1;
	}
	while ((n = read(in, buf + have, sizeof buf - have)) > 0) {
		char *start = buf, *end;
		have += n;
		while ((end = memchr(start, '\n', have - (start - buf)))) {
			*end = 0;
			for (char *p = start; *p; p++)
				*p = toupper(*p);
			int len = snprintf(line, sizeof line, "%d %s\n", k++, start);
			for (int at = 0, w; at < len; at += w)
				if ((w = write(out, line + at, len - at)) < 0) {
					perror("write");
					return 1;
				}
			if (!strcmp(start, "END"))
				return 0;
			start = end + 1;
		}
		have -= start - buf;
		memmove(buf, start, have);
	}
	return n < 0 ? 1 : 3;
}
