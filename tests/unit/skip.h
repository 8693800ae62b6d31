/* SPDX-License-Identifier: Apache-2.0 */
/*
 * skip.h - leaves out the test that calls it, unless it can be done here. cmocka
 * says no reason, so the line before the test's does.
 */
#ifndef SKIP_H
#define SKIP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static inline void skip_unless(bool can_be_done, const char *why)
{
	if (can_be_done)
		return;
	print_message("# the next one is left out: %s\n", why);
	skip();
}

#endif
