/* a database in memory: tables, an index, joins, sorting; there is no other file system for it */
#include "sqlite3.h"
#include <stdio.h>
#include <string.h>

static int none(sqlite3_vfs *v, sqlite3_filename n, sqlite3_file *f, int a, int *b) { return SQLITE_CANTOPEN; }
static int gone(sqlite3_vfs *v, const char *n, int a) { return SQLITE_IOERR; }
static int there(sqlite3_vfs *v, const char *n, int a, int *b) { return *b = 0; }
static int path(sqlite3_vfs *v, const char *n, int size, char *out) { return !sqlite3_snprintf(size, out, "%s", n); }
static int noise(sqlite3_vfs *v, int n, char *out) { memset(out, 7, n); return n; }
static int rest(sqlite3_vfs *v, int us) { return us; }
static int now(sqlite3_vfs *v, double *out) { *out = 2460000.5; return 0; }
static int last(sqlite3_vfs *v, int n, char *out) { return 0; }

static sqlite3_vfs vfs = {
	.iVersion = 1, .szOsFile = sizeof(sqlite3_file), .mxPathname = 64, .zName = "none", .xOpen = none, .xDelete = gone,
	.xAccess = there, .xFullPathname = path, .xRandomness = noise, .xSleep = rest, .xCurrentTime = now, .xGetLastError = last,
};

int sqlite3_os_init(void) { return sqlite3_vfs_register(&vfs, 1); }
int sqlite3_os_end(void) { return 0; }

static int row(void *x, int n, char **values, char **names)
{
	for (int i = 0; i < n; i++)
		printf("%s%c", values[i] ? values[i] : "-", i + 1 < n ? '|' : '\n');
	fflush(stdout);
	return 0;
}

int main(int argc, char **argv)
{
	const char *rows = argc > 1 ? argv[1] : "60000";
	char script[2048], *error = 0;
	sqlite3 *db;
	if (sqlite3_open(":memory:", &db))
		return 1;
	snprintf(script, sizeof script,
		"create table t (a integer primary key, b integer, c text);"
		"with recursive n (i) as (select 1 union all select i + 1 from n where i < %s)"
		" insert into t select i, i * 2654435761 %% 10007, hex(i * i) from n;"
		"create index tb on t (b);"
		"select b %% 13, count(*), sum(a), min(c) from t group by 1 order by 3;"
		"select x.a, y.a from t x join t y on x.b = y.b and x.a < y.a order by x.c, y.c limit 300;"
		"update t set c = c || b where a %% 3 = 0; delete from t where a %% 7 = 0;"
		"select count(*), sum(length(c)), max(c) from t; pragma integrity_check;", rows);
	if (sqlite3_exec(db, script, row, 0, &error)) {
		fprintf(stderr, "%s\n", error);
		return 1;
	}
	return sqlite3_close(db);
}
