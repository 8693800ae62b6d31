/* SPDX-License-Identifier: Apache-2.0 */
/* tls_revoked.c - what a folder's crl.pem revokes, for sessions that stand. */
#include "vchan-transport/tls_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct tls_revocations {
	size_t num;
	struct tls_certificate_id *revoked; /* sorted */
};

static int compare(const void *a, const void *b)
{
	const struct tls_certificate_id *x = a;
	const struct tls_certificate_id *y = b;
	int r = strcmp(x->serial, y->serial);

	return r != 0 ? r : strcmp(x->issuer, y->issuer);
}

static int append(struct tls_revocations *list, X509_CRL *crl)
{
	STACK_OF(X509_REVOKED) *revoked = X509_CRL_get_REVOKED(crl);
	int num = sk_X509_REVOKED_num(revoked);
	struct tls_certificate_id *grown;

	if (num <= 0)
		return 0;
	grown = realloc(list->revoked,
			(list->num + (size_t)num) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	list->revoked = grown;
	for (int i = 0; i < num; i++) {
		const X509_REVOKED *one = sk_X509_REVOKED_value(revoked, i);

		if (tls_certificate_identify(X509_CRL_get_issuer(crl),
					     X509_REVOKED_get0_serialNumber(one),
					     &list->revoked[list->num]))
			list->num++;
	}
	return 0;
}

/* 0 or -ENOKEY with words. */
static int read_lists(struct tls_revocations *list, const char *dir, char *why)
{
	struct tls_file f;
	X509_CRL *crl;
	size_t num = 0;
	int r = tls_file_open(&f, dir, "crl.pem", false, why);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	while (r == 0 && (crl = tls_file_next_list(&f, &num, why))) {
		r = append(list, crl);
		X509_CRL_free(crl);
	}
	tls_file_close(&f);
	if (r < 0)
		return tls_refuse(why, dir, strerror(-r));
	return why[0] != '\0' ? -ENOKEY : 0;
}

int tls_revocations_new(const char *dir, struct tls_revocations **ret_list,
			char why[static CHANNEL_WHY_BYTES])
{
	struct tls_revocations *list = calloc(1, sizeof(*list));
	int r;

	if (!list)
		return tls_refuse(why, dir, strerror(ENOMEM));
	r = read_lists(list, dir, why);
	if (r < 0) {
		tls_revocations_free(list);
		return r;
	}
	if (list->num > 0)
		qsort(list->revoked, list->num, sizeof(*list->revoked),
		      compare);
	*ret_list = list;
	return 0;
}

bool tls_is_revoked(const struct tls_revocations *list,
		    const struct tls_certificate_id *which)
{
	return list->num > 0 &&
	       bsearch(which, list->revoked, list->num, sizeof(*list->revoked),
		       compare) != NULL;
}

void tls_revocations_free(struct tls_revocations *list)
{
	if (!list)
		return;
	free(list->revoked);
	free(list);
}
