/* recursion: fib, and a stack 2000 calls deep with work at its bottom; floating point; qsort calls through a table */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static long deep(int n, long a)
{
	volatile long b = a * 3 + n;
	long r = n ? deep(n - 1, b) : fib(27);
	return r + b % 7;
}

static int cmp(const void *a, const void *b) { return *(int *)a < *(int *)b ? -1 : *(int *)a > *(int *)b; }

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 10, *v = malloc(200000 * sizeof *v);
	double x = 0.5;
	for (int k = 0; k < rounds; k++) {
		for (int i = 0; i < 200000; i++)
			v[i] = (int)((unsigned)(i + k) * 2654435761u >> 1);
		qsort(v, 200000, sizeof *v, cmp);
		for (int i = 0; i < 200000; i++)
			x = sqrt(x * x + v[i] * 1e-9) - floor(x);
		printf("%d %ld %d %.17g\n", k, deep(2000, k), v[1000], x);
		fflush(stdout);
	}
	return 0;
}
