/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xen_check.h - whether this kernel can grant what channels to guests need,
 * told in words when the gateway starts, and not by the first guest that fails.
 */
#ifndef XEN_CHECK_H
#define XEN_CHECK_H

#include <stddef.h>
#include <stdint.h>

#define XEN_CHECK_WHY_BYTES  320
#define XEN_CHECK_PAGE_BYTES 4096u

/* Pages of a channel: two rings and what describes them. */
static inline uint64_t xen_check_pages(size_t ring_bytes)
{
	return 1 + 2 * ring_bytes / XEN_CHECK_PAGE_BYTES;
}

/*
 * Pages that xen_gntalloc grants in all, as `root`/sys has it; where it does not
 * say, what the installation sets.
 */
uint64_t xen_check_limit(const char *root);

/*
 * Below `root` ("" in earnest) are dev and sys. 0, -ENODEV without the devices,
 * or -ENOSPC if xen_gntalloc's limit is too low for 32 attachments with rings of
 * `ring_bytes`; the gateway may go on, since either can change while it runs.
 * `why` says what to do.
 */
int xen_check(const char *root, size_t ring_bytes,
	      char why[static XEN_CHECK_WHY_BYTES]);

#endif
