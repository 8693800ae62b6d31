/* SPDX-License-Identifier: Apache-2.0 */
/* tls_ends.c - which of a folder's files count no longer soon (tls.h). */
#include "vchan-transport/tls_private.h"

#include <stdio.h>
#include <time.h>

#include <openssl/pem.h>

#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"

#define NEVER ((time_t)INT64_MAX)
#define DAY_S ((time_t)24 * 60 * 60)

/* No date, or one that cannot be read, is left to who judges it. */
static time_t earlier(time_t end, const ASN1_TIME *date)
{
	struct tm tm;
	time_t time;

	if (!date || ASN1_TIME_to_tm(date, &tm) != 1)
		return end;
	time = timegm(&tm);
	return time < end ? time : end;
}

/* Is that soon? Then `words` are of what follows and what to do. */
static bool tell(const struct tls_file *f, time_t end, const char *words,
		 char *why)
{
	time_t now = time(NULL);
	char date[32];
	struct tm tm;

	if (end > now + TLS_SOON_DAYS * DAY_S || !gmtime_r(&end, &tm))
		return false;
	(void)strftime(date, sizeof(date), "%Y-%m-%d %H:%M UTC", &tm);
	(void)snprintf(why, CHANNEL_WHY_BYTES, "%.100s: %s on %s, and then %s",
		       f->path, end > now ? "ends" : "has ended", date, words);
	return true;
}

bool tls_certificate_ends_soon(enum tls_role role, const char *dir,
			       char why[static CHANNEL_WHY_BYTES])
{
	const char *name = role == TLS_GATEWAY ? "gateway.pem" : "client.pem";
	time_t end = NEVER;
	struct tls_file f;
	X509 *x;

	if (tls_file_open(&f, dir, name, false, why) < 0)
		return false;
	while ((x = PEM_read_bio_X509(f.bio, NULL, NULL, NULL))) {
		end = earlier(end, X509_get0_notAfter(x));
		X509_free(x);
	}
	(void)tls_file_was_last();
	tls_file_close(&f);
	return tell(&f, end,
		    "nobody accepts it: have xusbip-ca renew it, and copy the "
		    "new one here",
		    why);
}

bool tls_list_ends_soon(const char *dir, char why[static CHANNEL_WHY_BYTES])
{
	time_t end = NEVER;
	struct tls_file f;
	X509_CRL *list;
	size_t num = 0;

	if (tls_file_open(&f, dir, "crl.pem", false, why) < 0)
		return false;
	while ((list = tls_file_next_list(&f, &num, why))) {
		end = earlier(end, X509_CRL_get0_nextUpdate(list));
		X509_CRL_free(list);
	}
	tls_file_close(&f);
	return tell(&f, end,
		    "nobody is accepted here: copy the CA's crl.pem here, "
		    "which each xusbip-ca renew makes anew",
		    why);
}

void tls_warn_of_ends(enum tls_role role, const char *dir)
{
	char why[CHANNEL_WHY_BYTES];

	if (tls_certificate_ends_soon(role, dir, why))
		log_warn("%s", why);
	if (tls_list_ends_soon(dir, why))
		log_warn("%s", why);
}

int tls_warn_daily(struct loop *loop, void (*warn)(void *arg), void *arg)
{
	const uint64_t day_ms = (uint64_t)DAY_S * 1000;
	struct loop_timer *timer; /* the loop's */

	warn(arg);
	return loop_timer_start(loop, day_ms, day_ms, warn, arg, &timer);
}
