/* SPDX-License-Identifier: Apache-2.0 */
/* Ports of vhci_hcd: what its status says, and what is written to it. */
#include "frontend/vhci.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "frontend/sysfs.h"
#include "vchan-transport/usbip.h"

#define HEAD            "hub port sta spd dev      sockfd local_busid\n"
#define FREE(hub, port) hub "  " port " 004 000 00000000 000000 0-0\n"

static const char two_hubs[] = HEAD
	"hs  0000 006 003 00010002 000003 3-1\n" FREE("hs", "0001") FREE(
		"hs",
		"0002") "ss  0008 006 005 0001000f 000003 4-1\n" FREE("ss",
								      "0009");

static const char pattern[] = "/tmp/test_vhci.XXXXXX";
static char dir[sizeof(pattern)];

static void put(const char *name, const char *text)
{
	char path[128];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void assert_holds(const char *name, const char *text)
{
	char held[128];

	assert_true(sysfs_read(dir, name, held, sizeof(held)) >= 0);
	assert_string_equal(held, text);
}

static int make_dir(void **state)
{
	(void)state;
	memcpy(dir, pattern, sizeof(pattern));
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	static const char *const names[] = { "status", "status.1", "attach",
					     "detach" };
	char path[128];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		(void)unlink(path);
	}
	return rmdir(dir);
}

static void a_status_gives_every_port(void **state)
{
	struct vhci_ports ports = { 0 };

	(void)state;
	assert_int_equal(vhci_parse(two_hubs, &ports), 0);

	assert_int_equal(ports.count, 5);
	assert_int_equal(ports.port[0].number, 0);
	assert_false(ports.port[0].is_super);
	assert_int_equal(ports.port[0].state, VHCI_USED);
	assert_int_equal(ports.port[0].speed, USBIP_SPEED_HIGH);
	assert_int_equal(ports.port[0].devid, 0x10002);
	assert_string_equal(ports.port[0].busid, "3-1");
	assert_int_equal(ports.port[3].number, 8);
	assert_true(ports.port[3].is_super);
	assert_int_equal(ports.port[3].devid, 0x1000f);
	assert_int_equal(ports.port[4].state, VHCI_FREE);
	vhci_done(&ports);
}

static void a_text_that_is_no_status_is_refused(void **state)
{
	static const char *const texts[] = {
		"",
		"no line end",
		HEAD "hs\n",
		HEAD "xs  0000 004 000 00000000 000000 0-0\n",
		HEAD "hs  000x 004 000 00000000 000000 0-0\n",
		HEAD "hs  0000 004 000 00000000 000000\n",
		HEAD "hs  0000 004 000 00000000 000000 0-0",
		HEAD "hs  0000 004 000 00000000 000000 0-0 more\n",
		HEAD "hs  0000 004 000 100000000 000000 0-0\n",
		HEAD "hs  0000 004 000 00000000 000000 "
		     "a-bus-id-that-is-longer-than-any-can-be\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct vhci_ports ports = { 0 };

		assert_int_equal(vhci_parse(texts[i], &ports), -EBADMSG);
		vhci_done(&ports);
	}
}

static void ports_are_bounded(void **state)
{
	struct vhci_ports ports = { 0 };

	(void)state;
	for (unsigned i = 0; i < VHCI_MAX_PORTS; i++)
		assert_int_equal(vhci_parse(HEAD FREE("hs", "0000"), &ports),
				 0);

	assert_int_equal(vhci_parse(HEAD FREE("hs", "0000"), &ports), -E2BIG);
	assert_int_equal(ports.count, VHCI_MAX_PORTS);
	vhci_done(&ports);
}

static void a_free_port_is_on_the_hub_of_its_speed(void **state)
{
	struct vhci_ports ports = { 0 };

	(void)state;
	assert_int_equal(vhci_parse(two_hubs, &ports), 0);

	assert_int_equal(vhci_find_free(&ports, USBIP_SPEED_LOW, 0), 1);
	assert_int_equal(vhci_find_free(&ports, USBIP_SPEED_FULL, 0), 1);
	assert_int_equal(vhci_find_free(&ports, USBIP_SPEED_HIGH, 0), 1);
	assert_int_equal(vhci_find_free(&ports, USBIP_SPEED_SUPER, 0), 4);
	assert_int_equal(vhci_find_free(&ports, USBIP_SPEED_SUPER_PLUS, 0), 4);
	vhci_done(&ports);
}

static void the_next_free_port_is_found_until_there_is_none(void **state)
{
	struct vhci_ports ports = { 0 };

	(void)state;
	assert_int_equal(vhci_parse(two_hubs, &ports), 0);

	assert_int_equal(vhci_find_free(&ports, USBIP_SPEED_HIGH, 2), 2);
	assert_int_equal(vhci_find_free(&ports, USBIP_SPEED_HIGH, 3), -ENOSPC);
	assert_int_equal(vhci_find_free(&ports, USBIP_SPEED_SUPER, 5), -ENOSPC);
	vhci_done(&ports);
}

static void ports_go_on_over_the_controllers(void **state)
{
	struct vhci_ports ports;

	(void)state;
	put("status", two_hubs);
	put("status.1", HEAD FREE("hs", "0016") FREE("ss", "0024"));

	assert_int_equal(vhci_read(dir, &ports), 0);

	assert_int_equal(ports.count, 7);
	assert_int_equal(vhci_find(&ports, 16)->number, 16);
	assert_true(vhci_find(&ports, 24)->is_super);
	assert_null(vhci_find(&ports, 17));
	vhci_done(&ports);
}

static void without_the_driver_there_is_nothing_to_read(void **state)
{
	struct vhci_ports ports;

	(void)state;
	assert_int_equal(vhci_read(dir, &ports), -ENOENT);
}

static void whether_a_port_is_free_is_told(void **state)
{
	(void)state;
	put("status", two_hubs);

	assert_int_equal(vhci_is_free(dir, 0), 0);
	assert_int_equal(vhci_is_free(dir, 1), 1);
	assert_int_equal(vhci_is_free(dir, 5), -ENXIO);
}

static void attach_and_detach_write_what_the_kernel_reads(void **state)
{
	(void)state;
	put("attach", "");
	put("detach", "");

	assert_int_equal(vhci_attach(dir, 9, 7, 0x1000f, USBIP_SPEED_SUPER), 0);
	assert_int_equal(vhci_detach(dir, 9), 0);

	assert_holds("attach", "9 7 65551 5");
	assert_holds("detach", "9");
}

static void attach_without_the_driver_fails(void **state)
{
	(void)state;
	assert_int_equal(vhci_attach(dir, 0, 3, 2, USBIP_SPEED_SUPER_PLUS),
			 -ENOENT);
}

static void words_are_those_of_the_stock_tool(void **state)
{
	(void)state;
	assert_string_equal(vhci_speed_words(USBIP_SPEED_HIGH),
			    "High Speed(480Mbps)");
	assert_string_equal(vhci_speed_words(USBIP_SPEED_SUPER),
			    "Super Speed(5000Mbps)");
	assert_string_equal(vhci_speed_words(4), "Unknown Speed");
	assert_string_equal(vhci_state_words(VHCI_USED), "Port in Use");
	assert_string_equal(vhci_state_words(99), "Unknown Status");
}

#define with_dir(test) \
	cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_status_gives_every_port),
		cmocka_unit_test(a_text_that_is_no_status_is_refused),
		cmocka_unit_test(ports_are_bounded),
		cmocka_unit_test(a_free_port_is_on_the_hub_of_its_speed),
		cmocka_unit_test(
			the_next_free_port_is_found_until_there_is_none),
		with_dir(ports_go_on_over_the_controllers),
		with_dir(without_the_driver_there_is_nothing_to_read),
		with_dir(whether_a_port_is_free_is_told),
		with_dir(attach_and_detach_write_what_the_kernel_reads),
		with_dir(attach_without_the_driver_fails),
		cmocka_unit_test(words_are_those_of_the_stock_tool),
	};

	return cmocka_run_group_tests_name("vhci", tests, NULL, NULL);
}
