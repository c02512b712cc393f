/* a tight loop: primes by trial division */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	unsigned limit = argc > 1 ? atoi(argv[1]) : 30000, count = 0, last = 0;
	for (unsigned n = 2; n < limit; n++) {
		int prime = 1;
		for (unsigned d = 2; d * d <= n; d++)
			if (n % d == 0) {
				prime = 0;
				break;
			}
		if (prime) {
			last = n;
			if (++count % 10000 == 0) {
				printf("%u primes, the last %u\n", count, last);
				fflush(stdout);
			}
		}
	}
	printf("%u primes below %u, the last %u\n", count, limit, last);
	return 7;
}
