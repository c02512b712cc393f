/* memory that grows, and is full: the sieve of Eratosthenes, larger each round; all of it so many times */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	int most = argc > 1 ? atoi(argv[1]) : 4000000;
	int times = argc > 2 ? atoi(argv[2]) : 1;
	for (int n = most / 8; n <= most || (--times && (n = most / 8)); n += most / 8) {
		char *s = malloc(n);
		if (!s)
			return 1;
		memset(s, 1, n);
		long long sum = 0;
		for (int i = 2; i < n; i++)
			if (s[i]) {
				sum += i;
				for (long long j = (long long)i * i; j < n; j += i)
					s[j] = 0;
			}
		printf("%d %lld\n", n, sum);
		fflush(stdout);
		free(s);
	}
	return 0;
}
