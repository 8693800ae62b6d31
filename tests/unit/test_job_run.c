/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the job that lets go of everything does, and in which order, with ports
 * and links that the test plays.
 */
#include "frontend/job_run.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "frontend/attach.h"
#include "frontend/detach.h"
#include "frontend/local_usb.h"
#include "frontend/record.h"
#include "frontend/standing_note.h"
#include "frontend/vhci.h"
#include "frontend/xen_notes.h"

#define MAX_PORTS 4

static struct {
	struct vhci_port ports[MAX_PORTS];
	struct record records[MAX_PORTS];
	uint16_t vendors[MAX_PORTS]; /* of the devices at the ports */
	size_t num_ports;
	char link[32]; /* whose it is, or nobody's */
	struct xen_note link_note;
	char done[128];
} played;

/* ---- what it stands on ---- */

static void note_done(const char *what, const char *name)
{
	size_t used = strlen(played.done);

	(void)snprintf(played.done + used, sizeof(played.done) - used, "%s %s;",
		       what, name);
}

enum exit_status attach_run(const struct attach_plan *plan,
			    struct attach_result *ret_result,
			    struct failure *failure)
{
	(void)plan;
	(void)ret_result;
	return failure_set(failure, EXIT_FAILED, "not played");
}

int detach_for_now(uint32_t port)
{
	char name[12];

	(void)snprintf(name, sizeof(name), "%u", port);
	note_done("detach", name);
	return 0;
}

int detach_port(uint32_t port)
{
	return detach_for_now(port);
}

static size_t index_of(const char *busid)
{
	size_t i = 0;

	while (i < played.num_ports &&
	       strcmp(played.ports[i].busid, busid) != 0)
		i++;
	return i;
}

int local_usb_read(const char *dir, const char *busid,
		   struct usbip_device *ret_device)
{
	size_t i = index_of(busid);

	(void)dir;
	if (i == played.num_ports)
		return -ENOENT;
	*ret_device = (struct usbip_device){ .vendor = played.vendors[i],
					     .product = 0x5678 };
	return 0;
}

int local_usb_remove(const char *dir, const char *busid, unsigned limit_ms)
{
	(void)dir;
	(void)limit_ms;
	note_done("remove", busid);
	return 0;
}

void record_set(struct record *ret_record, const struct address *gateway,
		const char *busid)
{
	*ret_record = (struct record){ .service = "3240" };
	(void)snprintf(ret_record->host, sizeof(ret_record->host), "xen:%.9s",
		       gateway->host);
	(void)snprintf(ret_record->busid, sizeof(ret_record->busid), "%s",
		       busid);
}

int record_read(const char *dir, uint32_t port, struct record *ret_record)
{
	(void)dir;
	*ret_record = played.records[port];
	return 0;
}

bool standing_note_find(uint32_t port, struct standing_note *ret_note)
{
	(void)port;
	(void)ret_note;
	return false;
}

int vhci_read(const char *dir, struct vhci_ports *ret_ports)
{
	(void)dir;
	*ret_ports = (struct vhci_ports){ .count = played.num_ports,
					  .port = played.ports };
	return 0;
}

void vhci_done(struct vhci_ports *ports)
{
	(void)ports;
}

int xen_notes_hold(unsigned gateway, const struct xen_note *note)
{
	(void)gateway;
	(void)note;
	return 0;
}

size_t xen_notes_links(const char *gateway,
		       struct xen_note ret_notes[static XEN_NOTES_MAX])
{
	if (strcmp(gateway, played.link) != 0)
		return 0;
	ret_notes[0] = played.link_note;
	return 1;
}

void xen_notes_end_link(const struct xen_note *note)
{
	note_done("end", note->busid);
	played.link[0] = '\0';
}

/* ---- one hold ---- */

static int set_up(void **state)
{
	(void)state;
	memset(&played, 0, sizeof(played));
	return 0;
}

static void add_port(const char *host, const char *busid, uint16_t vendor)
{
	size_t i = played.num_ports++;
	struct vhci_port *port = &played.ports[i];
	struct record *record = &played.records[i];

	*port = (struct vhci_port){ .number = (uint32_t)i, .state = VHCI_USED };
	(void)snprintf(port->busid, sizeof(port->busid), "3-%zu", i + 1);
	(void)snprintf(record->host, sizeof(record->host), "%s", host);
	(void)snprintf(record->busid, sizeof(record->busid), "%s", busid);
	played.vendors[i] = vendor;
}

static void add_link(const char *gateway)
{
	(void)snprintf(played.link, sizeof(played.link), "%s", gateway);
	played.link_note = (struct xen_note){
		.busid = "1-1", .vendor = 0x1234, .product = 0x5678, .pid = 7
	};
}

static void assert_hold_does(const char *domid, const char *what)
{
	char number[12];
	char name[] = "";
	char *words[] = { number, name };

	(void)snprintf(number, sizeof(number), "%s", domid);
	assert_int_equal(job_run("hold", 2, words), EXIT_OK);
	(void)alarm(0);
	assert_string_equal(played.done, what);
}

static void a_device_is_taken_from_its_driver_before_it_is_detached(void **s)
{
	(void)s;
	add_port("xen:0", "1-1", 0x1234);
	add_port("xen:7", "1-1", 0x1234);

	assert_hold_does("0", "remove 3-1;detach 0;");
}

static void
so_is_one_of_the_stock_command_before_its_link_is_ended(void **state)
{
	(void)state;
	add_port("127.0.0.1", "1-2", 0x1234);
	add_port("127.0.0.1", "1-1", 0x1234);
	add_link("xen:0");

	assert_hold_does("0", "remove 3-2;end 1-1;");
}

static void of_two_that_may_be_the_links_neither_is_taken(void **state)
{
	(void)state;
	add_port("localhost", "1-1", 0x1234);
	add_port("10.0.0.1", "1-1", 0x1234);
	add_link("xen:0");

	assert_hold_does("0", "end 1-1;");
}

static void what_cannot_be_the_links_is_not_taken(void **state)
{
	(void)state;
	add_port("tls:lab", "1-1", 0x1234);
	add_port("127.0.0.1", "1-1", 0x1235);
	add_port("127.0.0.1", "1-1", 0x1234);
	played.ports[2].state = VHCI_STARTING;
	add_link("xen:0");

	assert_hold_does("0", "end 1-1;");
}

/* Its gateway may have called it as a device of somebody else. */
static void for_a_link_to_a_driver_domain_no_device_is_taken(void **state)
{
	(void)state;
	add_port("127.0.0.1", "1-1", 0x1234);
	add_link("xen:7");

	assert_hold_does("7", "end 1-1;");
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_device_is_taken_from_its_driver_before_it_is_detached),
		TEST(so_is_one_of_the_stock_command_before_its_link_is_ended),
		TEST(of_two_that_may_be_the_links_neither_is_taken),
		TEST(what_cannot_be_the_links_is_not_taken),
		TEST(for_a_link_to_a_driver_domain_no_device_is_taken),
	};

	return cmocka_run_group_tests_name("job_run", tests, NULL, NULL);
}
