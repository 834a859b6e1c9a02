/* Runs a fuzz target over its corpus, without a fuzzer, and reports as TAP.
 * replay_NAME takes tests/fuzz/corpus/NAME below $top_srcdir; with arguments
 * it takes those files instead. SPDX-License-Identifier: MIT
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int failures;

/* NULL when the file cannot be read. */
static uint8_t *read_file(const char *path, size_t *n)
{
	static uint8_t buf[1 << 20];
	FILE *f = fopen(path, "rb");

	if (!f)
		return NULL;
	*n = fread(buf, 1, sizeof(buf), f);
	if (ferror(f)) {
		fclose(f);
		return NULL;
	}
	fclose(f);
	return buf;
}

static void replay(unsigned number, const char *path)
{
	const char *slash = strrchr(path, '/');
	size_t n;
	uint8_t *data = read_file(path, &n);

	if (!data) {
		printf("not ok %u - %s: %s\n", number, path, strerror(errno));
		failures++;
		return;
	}
	LLVMFuzzerTestOneInput(data, n);
	printf("ok %u - %s\n", number, slash ? slash + 1 : path);
	fflush(stdout);
}

static int visible(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

static void replay_corpus(const char *program)
{
	const char *top = getenv("top_srcdir"), *name = strrchr(program, '_');
	struct dirent **list;
	char dir[3000], path[4000];
	int n;

	snprintf(dir, sizeof(dir), "%s/tests/fuzz/corpus/%s", top ? top : ".",
	         name ? name + 1 : program);
	n = scandir(dir, &list, visible, alphasort);
	if (n <= 0) {
		printf("1..1\nnot ok 1 - no corpus in %s\n", dir);
		failures++;
		return;
	}
	printf("1..%d\n", n);
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, list[i]->d_name);
		replay((unsigned)i + 1, path);
		free(list[i]);
	}
	free(list);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		printf("1..%d\n", argc - 1);
	else
		replay_corpus(argv[0]);
	for (int i = 1; i < argc; i++)
		replay((unsigned)i, argv[i]);
	return failures != 0;
}
