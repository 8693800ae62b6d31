/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/failure.h"

#include <stdarg.h>
#include <stdio.h>

enum exit_status failure_set(struct failure *failure, enum exit_status status,
			     const char *fmt, ...)
{
	va_list args;

	failure->status = status;
	va_start(args, fmt);
	(void)vsnprintf(failure->text, sizeof(failure->text), fmt, args);
	va_end(args);
	return status;
}
