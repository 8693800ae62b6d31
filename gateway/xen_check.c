/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/xen_check.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* One guest's whole vhci_hcd; and what the installation makes room for. */
#define MIN_ATTACHMENTS  32u
#define GOOD_ATTACHMENTS 128u
#define INSTALLED_LIMIT  16512u

#define LIMIT_PATH       "/sys/module/xen_gntalloc/parameters/limit"

static int check_devices(const char *root, char *why)
{
	static const char *const modules[][2] = {
		{ "gntalloc", "xen_gntalloc" },
		{ "evtchn", "xen_evtchn" },
	};
	char path[PATH_MAX];

	for (size_t i = 0; i < sizeof(modules) / sizeof(modules[0]); i++) {
		(void)snprintf(path, sizeof(path), "%s/dev/xen/%s", root,
			       modules[i][0]);
		if (access(path, F_OK) == 0)
			continue;
		(void)snprintf(why, XEN_CHECK_WHY_BYTES,
			       "no /dev/xen/%s: guests get no channel before "
			       "modprobe %s",
			       modules[i][0], modules[i][1]);
		return -ENODEV;
	}
	return 0;
}

uint64_t xen_check_limit(const char *root)
{
	char path[PATH_MAX];
	char text[16] = "";
	uint64_t limit;
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s" LIMIT_PATH, root);
	file = fopen(path, "re");
	if (!file)
		return INSTALLED_LIMIT;
	(void)!fgets(text, sizeof(text), file);
	(void)fclose(file);
	limit = strtoul(text, NULL, 10);
	return limit > 0 ? limit : INSTALLED_LIMIT;
}

int xen_check(const char *root, size_t ring_bytes,
	      char why[static XEN_CHECK_WHY_BYTES])
{
	const uint64_t each = xen_check_pages(ring_bytes);
	const uint64_t pages = xen_check_limit(root);
	int r = check_devices(root, why);

	if (r < 0)
		return r;
	if (pages / each >= MIN_ATTACHMENTS)
		return 0;
	(void)snprintf(why, XEN_CHECK_WHY_BYTES,
		       "xen_gntalloc grants %" PRIu64 " pages, enough for "
		       "%" PRIu64 " attachments, of which one guest gets half: "
		       "write %" PRIu64 " to " LIMIT_PATH
		       ", and \"options xen_gntalloc limit=%" PRIu64 "\" to "
		       "/etc/modprobe.d/xusbip.conf",
		       pages, pages / each, each * GOOD_ATTACHMENTS,
		       each * GOOD_ATTACHMENTS);
	return -ENOSPC;
}
