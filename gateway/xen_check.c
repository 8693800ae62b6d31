/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/xen_check.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
/* One guest's whole vhci_hcd; and what the installation makes room for. */
#define MIN_ATTACHMENTS  32u
#define GOOD_ATTACHMENTS 128u

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

/* Pages that the kernel grants in all; 0: it does not say. */
static unsigned long read_limit(const char *root)
{
	char path[PATH_MAX];
	char text[16] = "";
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s" LIMIT_PATH, root);
	file = fopen(path, "re");
	if (!file)
		return 0;
	(void)!fgets(text, sizeof(text), file);
	(void)fclose(file);
	return strtoul(text, NULL, 10);
}

int xen_check(const char *root, size_t ring_bytes,
	      char why[static XEN_CHECK_WHY_BYTES])
{
	const unsigned long each = 1 + 2 * ring_bytes / PAGE_BYTES;
	const unsigned long pages = read_limit(root);
	int r = check_devices(root, why);

	if (r < 0)
		return r;
	if (pages == 0 || pages / each >= MIN_ATTACHMENTS)
		return 0;
	(void)snprintf(why, XEN_CHECK_WHY_BYTES,
		       "xen_gntalloc grants %lu pages, enough for %lu "
		       "attachments: write %lu to " LIMIT_PATH
		       ", and \"options xen_gntalloc limit=%lu\" to "
		       "/etc/modprobe.d/xusbip.conf",
		       pages, pages / each, each * GOOD_ATTACHMENTS,
		       each * GOOD_ATTACHMENTS);
	return -ENOSPC;
}
