/* a filter of the lines of its standard input: in capitals, with their numbers */
#include <ctype.h>
#include <stdio.h>

int main(void)
{
	static char line[4096];
	for (int k = 0; fgets(line, sizeof line, stdin); k++) {
		for (char *p = line; *p; p++)
			*p = toupper(*p);
		printf("%d %s", k, line);
		fflush(stdout);
	}
	return 0;
}
