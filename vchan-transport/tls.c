/* SPDX-License-Identifier: Apache-2.0 */
/* See tls.h. */
#include "vchan-transport/tls.h"

#include <errno.h>
#include <string.h>

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int tls_pin_parse(const char *text, uint8_t ret_pin[static TLS_PIN_BYTES])
{
	uint8_t pin[TLS_PIN_BYTES];

	if (strncmp(text, TLS_PIN_TEXT, strlen(TLS_PIN_TEXT)) != 0)
		return -EINVAL;
	text += strlen(TLS_PIN_TEXT);
	if (strlen(text) != 2 * TLS_PIN_BYTES)
		return -EINVAL;
	for (size_t i = 0; i < TLS_PIN_BYTES; i++) {
		int high = hex_digit(text[2 * i]);
		int low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		pin[i] = (uint8_t)(high << 4 | low);
	}
	memcpy(ret_pin, pin, TLS_PIN_BYTES);
	return 0;
}
