/* Expressions as WinDbg's users write them: numbers are hexadecimal unless
 * marked, registers may carry @, module names stand for their base.
 *
 *   nt+10   @rsp-0n16   poi(rip+8)   fffff800`12345678   (a+b)*4   .
 * SPDX-License-Identifier: MIT
 */
#ifndef KD_EXPR_H
#define KD_EXPR_H

#include <stdbool.h>

#include "kdproto/bytes.h"
#include "kdproto/err.h"

#define KD_EXPR_NAME_MAX 64 /* longest register or module name, with its NUL */

/* Where names and memory come from. Each returns KD_OK, KD_ERR_NOT_FOUND for
 * a name that is unknown, or another error with its text in error. */
struct kd_expr_env {
	void *ctx;
	unsigned pointer_size; /* 4 or 8 */
	bool plain;            /* what is wanted is no virtual address: nothing is
	                        * sign-extended */
	int (*reg)(void *ctx, const char *name, uint64_t *value, char *error, size_t cap);
	int (*module)(void *ctx, const char *name, uint64_t *value, char *error, size_t cap);
	int (*load)(void *ctx, uint64_t address, unsigned size, uint64_t *value, char *error,
	            size_t cap);
};

/* Evaluates the expression at *text and moves *text behind it and behind the
 * blanks that follow. On failure error names the token at fault. Values of
 * 32-bit targets are sign-extended, as KD wants addresses, unless plain. */
int kd_expr_eval(const struct kd_expr_env *env, const char **text, uint64_t *value, char *error,
                 size_t cap);

/* "ADDRESS", "ADDRESS LCOUNT", "ADDRESS END" with elements of unit bytes.
 * given is false when only the address stood there. Counts beyond 256 MiB
 * need "L?". A range never wraps round the end of the address space. */
struct kd_range {
	uint64_t address, count;
	bool given;
};
int kd_expr_range(const struct kd_expr_env *env, const char **text, unsigned unit,
                  struct kd_range *out, char *error, size_t cap);

#endif
