/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/command.h"

#include <stdio.h>

#include "vchan-transport/log.h"
#include "vchan-transport/tls.h"

enum exit_status command_fail(const struct failure *failure)
{
	log_error("%s", failure->text);
	return failure->status;
}

enum exit_status command_misused(const struct command *command,
				 const char *what)
{
	log_error("%s: %s; see: xusbip help %s", command->name, what,
		  command->name);
	return EXIT_USAGE;
}

int command_next_option(int argc, char **argv, const char *shorts,
			const struct option *longs)
{
	opterr = 0;
	return getopt_long(argc, argv, shorts, longs, NULL);
}

enum exit_status command_wrong_option(const struct command *command,
				      char **argv)
{
	log_error("%s: %s is no option of it, or lacks its argument; see: "
		  "xusbip help %s",
		  command->name, argv[optind - 1], command->name);
	return EXIT_USAGE;
}

enum exit_status command_address(const struct command_globals *globals,
				 const char *text, struct address *ret_address)
{
	const char *why;

	if (address_parse(text, ret_address, &why) < 0) {
		log_error("%s is not an address: %s; write xen:DOMAIN, "
			  "tls:HOST, tcp:HOST, unix:PATH or vsock:CID",
			  text, why);
		return EXIT_USAGE;
	}
	if (globals->tcp_port && ret_address->kind == ADDRESS_TCP &&
	    ret_address->port == ADDRESS_PORT_USBIP)
		ret_address->port = globals->tcp_port;
	if (ret_address->kind == ADDRESS_TLS)
		tls_warn_of_ends(TLS_CLIENT,
				 globals->tls_dir ? globals->tls_dir : TLS_DIR);
	return EXIT_OK;
}

enum exit_status command_pin(const char *text, const struct address *address,
			     uint8_t ret_pin[static TLS_PIN_BYTES])
{
	if (!text)
		return EXIT_OK;
	if (address->kind != ADDRESS_TLS) {
		log_error("--pin %s: only a tls: address has a pin", text);
		return EXIT_USAGE;
	}
	if (tls_pin_parse(text, ret_pin) == 0)
		return EXIT_OK;
	log_error("%s is not a pin; it is sha256: and 64 hexadecimal digits",
		  text);
	return EXIT_USAGE;
}
