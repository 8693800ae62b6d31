/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/finding.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "frontend/agent_config.h"
#include "frontend/wish_list.h"
#include "vchan-transport/channel.h"
#include "vchan-transport/log.h"
#include "vchan-transport/xen_guest.h"

#define BROWSE_LIMIT_MS 3000u
#define BROWSE_BYTES    (64u << 10)
#define MAX_ANNOUNCED   32

/* The fields of a line that tells of a service that was looked up. */
enum {
	FIELD_EVENT,
	FIELD_HOST = 6,
	FIELD_PORT = 8,
	NUM_FIELDS = 9
};

static void add(struct finding *f, const struct address *address,
		const char *pin)
{
	struct found_gateway *to = &f->gateways[f->count];
	char name[ADDRESS_TEXT_CAP];

	if (f->count == FINDING_MAX ||
	    address_format(address, name, sizeof(name)) < 0)
		return;
	for (size_t i = 0; i < f->count; i++)
		if (strcmp(f->gateways[i].name, name) == 0)
			return;
	to->address = *address;
	memcpy(to->name, name, sizeof(name));
	(void)snprintf(to->pin, sizeof(to->pin), "%s", pin);
	f->count++;
}

/* ---- what is configured ---- */

static void add_wishes(struct finding *f, const struct wish *wishes,
		       size_t count)
{
	for (size_t i = 0; i < count; i++)
		add(f, &wishes[i].gateway, wishes[i].pin);
}

static void add_configured(struct finding *f)
{
	struct wish wishes[WISH_MAX];
	struct agent_config config;
	char why[AGENT_WHY_BYTES];

	/* First, so that a gateway that has a pin is asked with it. */
	if (agent_config_load(AGENT_CONFIG_PATH, &config, why) < 0) {
		log_warn("%s: %s; the gateways that it names are left out",
			 AGENT_CONFIG_PATH, why);
	} else {
		(void)snprintf(f->tls_dir, sizeof(f->tls_dir), "%s",
			       config.tls_dir);
		add_wishes(f, config.wishes, config.num_wishes);
		for (size_t i = 0; i < config.num_gateways; i++)
			if (agent_config_has_gateway(&config, i))
				add(f, &config.gateways[i], "");
	}
	add_wishes(f, wishes, wish_list(wishes));
}

static void add_domains(struct finding *f)
{
	unsigned domids[XEN_GUEST_MAX_GATEWAYS];
	size_t count = xen_guest_list_gateways(domids, XEN_GUEST_MAX_GATEWAYS);

	for (size_t i = 0; i < count; i++) {
		struct address found = { .kind = ADDRESS_XEN };

		(void)snprintf(found.host, sizeof(found.host), "%u", domids[i]);
		add(f, &found, "");
	}
}

/* ---- what is announced ---- */

/* A host's name and nothing else: no address with a kind or a port in it. */
static bool is_host(const char *text)
{
	for (const char *at = text; *at; at++)
		if (!isalnum((unsigned char)*at) && !strchr("-._", *at))
			return false;
	return isalnum((unsigned char)text[0]);
}

void finding_add_announced(struct finding *f, char *line)
{
	char *fields[NUM_FIELDS];
	char text[ADDRESS_TEXT_CAP];
	struct address address;
	const char *why;
	char *rest = line;
	int length;

	for (size_t i = 0; i < NUM_FIELDS; i++) {
		fields[i] = strsep(&rest, ";");
		if (!fields[i])
			return;
	}
	if (strcmp(fields[FIELD_EVENT], "=") != 0 ||
	    !is_host(fields[FIELD_HOST]))
		return;
	length = snprintf(text, sizeof(text), "tls:%s:%s", fields[FIELD_HOST],
			  fields[FIELD_PORT]);
	if (length < (int)sizeof(text) &&
	    address_parse(text, &address, &why) == 0)
		add(f, &address, "");
}

_Noreturn static void exec_browse(int out)
{
	char program[] = "avahi-browse";
	char options[] = "-rptk";
	char service[] = "_xusbip._tcp";
	char *argv[] = { program, options, service, NULL };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (dup2(out, STDOUT_FILENO) >= 0 && dup2(null, STDIN_FILENO) >= 0 &&
	    dup2(null, STDERR_FILENO) >= 0)
		(void)execvp(program, argv);
	_exit(EXIT_FAILURE);
}

/* What it writes until its end, its limit or ours; the length. */
static size_t read_browse(int fd, char *text, size_t cap)
{
	uint64_t deadline_ms = clock_ms() + BROWSE_LIMIT_MS;
	size_t used = 0;

	while (used < cap) {
		struct pollfd polled = { .fd = fd, .events = POLLIN };
		uint64_t now_ms = clock_ms();
		ssize_t n;

		if (now_ms >= deadline_ms ||
		    poll(&polled, 1, (int)(deadline_ms - now_ms)) <= 0)
			break;
		n = read(fd, text + used, cap - used);
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	return used;
}

static size_t browse(char *text, size_t cap)
{
	int out[2];
	size_t length = 0;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC) < 0)
		return 0;
	pid = fork();
	if (pid == 0)
		exec_browse(out[1]);
	(void)close(out[1]);
	if (pid > 0) {
		length = read_browse(out[0], text, cap);
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
	}
	(void)close(out[0]);
	return length;
}

static void add_announced(struct finding *f)
{
	char *text = calloc(1, BROWSE_BYTES + 1);
	size_t configured = f->count;
	char *rest = text;
	char *end;

	if (!text)
		return;
	(void)browse(text, BROWSE_BYTES);
	/* A line without its end may be cut. */
	while (f->count < configured + MAX_ANNOUNCED &&
	       (end = strchr(rest, '\n'))) {
		*end = '\0';
		finding_add_announced(f, rest);
		rest = end + 1;
	}
	free(text);
}

void finding_run(struct finding *ret_finding)
{
	*ret_finding = (struct finding){ .tls_dir = TLS_DIR };
	add_configured(ret_finding);
	add_domains(ret_finding);
	add_announced(ret_finding);
}
