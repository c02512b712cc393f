/* a bad neighbour: computes, takes memory and gives it back, or writes, for ever */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "spin";
	static char piece[1 << 16];
	if (!strcmp(what, "allocate"))
		for (unsigned n = 0;; n++) {
			size_t size = (size_t)100 << 20;
			char *p = malloc(size);
			if (!p)
				return 1;
			memset(p, n, size);
			free(p);
		}
	if (!strcmp(what, "write")) {
		int out = open("/d/busy", O_WRONLY | O_CREAT, 0644);
		if (out < 0)
			return 1;
		for (unsigned n = 0;; n++)
			if (pwrite(out, piece, sizeof piece, n % 64 * sizeof piece) < 0)
				return 1;
	}
	if (!strcmp(what, "print"))
		for (;;)
			write(1, piece, sizeof piece);
	for (volatile unsigned n = 0;; n++)
		;
}
