/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/cmd_admin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frontend/command.h"
#include "frontend/json.h"
#include "vchan-transport/log.h"

/* Longer than the gateway takes to say that something took too long. */
#define LIMIT_MS   (ADMIN_LIMIT_MS + 5000u)
#define PATIENT_MS 2000u

static enum exit_status cannot_connect(const char *path, int r)
{
	if (r == -EACCES || r == -EPERM) {
		log_error("only root can ask the gateway of this machine; try "
			  "with sudo");
		return EXIT_NOT_ALLOWED;
	}
	if (r == -EAGAIN) {
		log_error("the gateway of this machine has too many requests "
			  "to answer; try again");
		return EXIT_TIMEOUT;
	}
	log_error("cannot ask the gateway of this machine at %s: %s; is "
		  "xusbip-gateway running here, with xen = true?",
		  path, strerror(-r));
	return EXIT_CANNOT_REACH;
}

static int ask(int sock, const struct admin_request *request,
	       struct admin_answer *ret_answer)
{
	int r = admin_ask(sock, request, PATIENT_MS, ret_answer);

	if (r != 0)
		return r;
	if (isatty(STDERR_FILENO))
		log_info("waiting for %s ...", request->domain);
	r = admin_ask(sock, NULL, LIMIT_MS - PATIENT_MS, ret_answer);
	return r == 0 ? -ETIMEDOUT : r;
}

static enum exit_status show(const struct cmd_admin *asked,
			     const struct admin_answer *answer)
{
	char text[4 * ADMIN_TEXT_BYTES];

	if (answer->status != EXIT_OK) {
		log_error("%s", answer->text);
		return answer->status;
	}
	if (asked->is_json)
		return json_print_done(asked->domain, asked->busid,
				       answer->text);
	(void)log_escape(text, sizeof(text), answer->text,
			 strlen(answer->text));
	printf("%s\n", text);
	return EXIT_OK;
}

enum exit_status cmd_admin_run(const struct cmd_admin *asked)
{
	const char *path = getenv("XUSBIP_ADMIN");
	struct admin_request request = { .version = ADMIN_VERSION,
					 .verb = asked->verb,
					 .persists = asked->persists };
	struct admin_answer answer;
	int sock;
	int r;

	if (strlen(asked->domain) >= sizeof(request.domain)) {
		log_error("%s is no domain: its name is too long",
			  asked->domain);
		return EXIT_USAGE;
	}
	(void)snprintf(request.domain, sizeof(request.domain), "%s",
		       asked->domain);
	if (asked->busid)
		(void)snprintf(request.busid, sizeof(request.busid), "%s",
			       asked->busid);
	if (!path)
		path = ADMIN_SOCKET_PATH;
	sock = admin_connect(path);
	if (sock < 0)
		return cannot_connect(path, sock);
	r = ask(sock, &request, &answer);
	(void)close(sock);
	if (r > 0)
		return show(asked, &answer);
	log_error("the gateway did not answer: %s",
		  r == -EPIPE ? "it has ended" : strerror(-r));
	return r == -ETIMEDOUT ? EXIT_TIMEOUT : EXIT_CANNOT_REACH;
}
