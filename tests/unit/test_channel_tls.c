/* SPDX-License-Identifier: Apache-2.0 */
/* What channel.h promises of every kind, over TLS. */
#include "vchan-transport/tls.h"

#include <errno.h>

#include "tests/fake/channel_promises.h"
#include "tests/fake/tls_bed.h"

static struct tls_bed bed;

static int open_tls(struct channel **ret_a, struct channel **ret_b)
{
	struct tls_bed_gateway gateway;
	struct tls_bed_end client;

	tls_bed_meet(&bed, NULL, &gateway, &client);
	*ret_a = gateway.end.channel;
	*ret_b = client.channel;
	return gateway.end.result < 0 ? gateway.end.result : client.result;
}

int main(void)
{
	/* Who is killed has not said that nothing is missing. */
	static const struct channel_kind kinds[] = {
		{ "tls", open_tls, -ECONNRESET, 2, false },
	};
	int failed;

	tls_bed_make(&bed);
	failed = channel_promises_run(kinds, sizeof(kinds) / sizeof(kinds[0]));
	tls_bed_free(&bed);
	return failed;
}
