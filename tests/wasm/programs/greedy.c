/* takes too much of one thing */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* or the compiler would leave out all of it */
static char *volatile kept;

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	if (!strcmp(what, "memory"))
		for (;;) {
			char *p = malloc(1 << 20);
			if (!p)
				abort();
			memset(p, 1, 1 << 20);
			kept = p;
		}
	if (!strcmp(what, "spin"))
		for (volatile unsigned i = 0;; i++)
			;
	if (!strcmp(what, "output"))
		for (;;)
			puts("more and more");
	if (!strcmp(what, "files"))
		while (open("/d/in", O_RDONLY) >= 0)
			;
	if (!strcmp(what, "sleep")) {
		struct timespec t = {argc > 2 ? atoi(argv[2]) : 1000, 0};
		nanosleep(&t, NULL);
	}
	if (!strcmp(what, "abort"))
		abort();
	if (!strcmp(what, "wild"))
		return *(volatile char *)0x7fffffff;
	puts("enough");
	return 0;
}
