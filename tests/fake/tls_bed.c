/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/tls_bed.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fake/tcp_pair.h"

const struct tls_files_leaf tls_bed_gateway_leaf = {
	.file = "gateway",
	.names = "DNS:" TLS_BED_HOST ",IP:192.0.2.1,IP:2001:db8::1",
	.usage = "serverAuth",
	.serial = TLS_BED_GW_SERIAL,
};

const struct tls_files_leaf tls_bed_client_leaf = {
	.file = "client",
	.names = "DNS:" TLS_BED_CLIENT,
	.usage = "clientAuth",
	.serial = TLS_BED_SERIAL,
};

void tls_bed_make(struct tls_bed *bed)
{
	*bed = (struct tls_bed){ .limit_ms = TLS_BED_LIMIT_MS };
	tls_files_make_ca(&bed->ca, "ours");
	tls_files_make_ca(&bed->other_ca, "theirs");
	tls_files_make_dir(bed->gateway_dir, sizeof(bed->gateway_dir));
	tls_files_make_dir(bed->client_dir, sizeof(bed->client_dir));
	tls_files_write_ca(&bed->ca, bed->gateway_dir);
	tls_files_write_ca(&bed->ca, bed->client_dir);
	tls_files_issue(&bed->ca, bed->gateway_dir, &tls_bed_gateway_leaf);
	tls_files_issue(&bed->ca, bed->client_dir, &tls_bed_client_leaf);
}

void tls_bed_free(struct tls_bed *bed)
{
	tls_context_free(bed->gateway);
	tls_context_free(bed->client);
	tls_files_remove_dir(bed->gateway_dir);
	tls_files_remove_dir(bed->client_dir);
	tls_files_free_ca(&bed->ca);
	tls_files_free_ca(&bed->other_ca);
}

static void load(struct tls_context **context, enum tls_role role,
		 const char *dir)
{
	char why[CHANNEL_WHY_BYTES];

	if (*context || tls_context_new(role, dir, context, why) == 0)
		return;
	(void)fprintf(stderr, "tls_bed: %s\n", why);
	abort();
}

static void *serve(void *arg)
{
	struct tls_bed_gateway *g = arg;

	g->end.result = channel_tls_accept(g->end.fd, g->bed->gateway,
					   clock_ms() + g->bed->limit_ms,
					   &g->end.channel, &g->peer,
					   g->end.why);
	return NULL;
}

void tls_bed_serve(struct tls_bed *bed, struct tls_bed_gateway *gateway,
		   int *ret_fd)
{
	int fds[2];

	load(&bed->gateway, TLS_GATEWAY, bed->gateway_dir);
	*gateway = (struct tls_bed_gateway){ .bed = bed };
	if (tcp_pair(fds) < 0)
		abort();
	channel_tune_tcp(fds[0], CHANNEL_DEAD_S);
	channel_tune_tcp(fds[1], CHANNEL_DEAD_S);
	gateway->end.fd = fds[0];
	*ret_fd = fds[1];
	if (pthread_create(&gateway->thread, NULL, serve, gateway) != 0)
		abort();
}

void tls_bed_join(struct tls_bed_gateway *gateway)
{
	(void)pthread_join(gateway->thread, NULL);
}

void tls_bed_meet(struct tls_bed *bed, const struct tls_wanted *wanted,
		  struct tls_bed_gateway *ret_gateway,
		  struct tls_bed_end *ret_client)
{
	const struct tls_wanted by_name = { .host = TLS_BED_HOST };
	struct tls_bed_end *c = ret_client;

	*c = (struct tls_bed_end){ .fd = -1 };
	load(&bed->client, TLS_CLIENT, bed->client_dir);
	tls_bed_serve(bed, ret_gateway, &c->fd);
	c->result = channel_tls_connect(c->fd, bed->client,
					wanted ? wanted : &by_name,
					clock_ms() + bed->limit_ms, &c->channel,
					c->why);
	/* How a refusal is told: with the first read. */
	if (c->channel)
		(void)channel_drain(c->channel, clock_ms() + bed->limit_ms);
	tls_bed_join(ret_gateway);
}

void tls_bed_part(struct tls_bed_gateway *gateway, struct tls_bed_end *client)
{
	channel_free(gateway->end.channel);
	channel_free(client->channel);
	gateway->end.channel = NULL;
	client->channel = NULL;
}

int tls_bed_set_up(void **state)
{
	static struct tls_bed bed;

	tls_bed_make(&bed);
	*state = &bed;
	return 0;
}

int tls_bed_tear_down(void **state)
{
	tls_bed_free(*state);
	return 0;
}

uint64_t tls_bed_soon(void)
{
	return clock_ms() + TLS_BED_LIMIT_MS;
}
