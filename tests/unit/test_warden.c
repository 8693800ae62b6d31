/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wardens on a machine without Xen. With Xen, real or pretended, they are
 * tested as a whole: tests/integration/test_xen_guest.py.
 */
#include "vchan-transport/warden.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "vchan-transport/xen_guest.h"

#define LIMIT_MS 5000

/* A socket where no xenstored is, on a machine with Xen, too. */
static int hide_xenstore(void **state)
{
	(void)state;
	return setenv("XENSTORED_PATH", "/nonexistent/xenstored", 1);
}

static void without_xen_it_is_said_so(void **state)
{
	const struct address to = { .kind = ADDRESS_XEN, .host = "0" };
	struct channel *c = NULL;
	char why[CHANNEL_WHY_BYTES] = "";

	(void)state;
	assert_int_equal(warden_connect(&to, 0, clock_ms() + LIMIT_MS, &c, why),
			 -ENODEV);
	assert_non_null(strstr(why, "no Xen domain"));
	assert_null(c);
}

static void a_warden_is_nobodys_child(void **state)
{
	const struct address to = { .kind = ADDRESS_XEN, .host = "0" };
	struct channel *c = NULL;
	char why[CHANNEL_WHY_BYTES];

	(void)state;
	(void)warden_connect(&to, 0, clock_ms() + LIMIT_MS, &c, why);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static void without_xen_there_are_no_gateways_and_nothing_to_sweep(void **state)
{
	unsigned domids[XEN_GUEST_MAX_GATEWAYS];

	(void)state;
	assert_int_equal(
		xen_guest_list_gateways(domids, XEN_GUEST_MAX_GATEWAYS), 0);
	assert_int_equal(xen_guest_sweep_all(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_xen_it_is_said_so),
		cmocka_unit_test(a_warden_is_nobodys_child),
		cmocka_unit_test(
			without_xen_there_are_no_gateways_and_nothing_to_sweep),
	};

	return cmocka_run_group_tests_name("warden", tests, hide_xenstore,
					   NULL);
}
