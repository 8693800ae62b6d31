/* SPDX-License-Identifier: Apache-2.0 */
/* tls_peer.c - what a certificate says of its owner: name, pin, serial. */
#include "vchan-transport/tls_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <openssl/x509v3.h>

static const char digits[] = "0123456789ABCDEF0123456789abcdef";

/* Two digits a byte, without a NUL. */
static void print_hex(char *to, const uint8_t *bytes, size_t num,
		      const char *alphabet)
{
	for (size_t i = 0; i < num; i++) {
		to[2 * i] = alphabet[bytes[i] >> 4];
		to[2 * i + 1] = alphabet[bytes[i] & 15];
	}
}

bool tls_certificate_identify(const X509_NAME *issuer,
			      const ASN1_INTEGER *serial,
			      struct tls_certificate_id *ret_which)
{
	struct tls_certificate_id which = { .issuer = "" };
	int num = ASN1_STRING_length(serial);
	int is_hashed = 0;
	uint32_t hash =
		(uint32_t)X509_NAME_hash_ex(issuer, NULL, NULL, &is_hashed);

	if (is_hashed != 1 || ASN1_STRING_type(serial) != V_ASN1_INTEGER ||
	    num < 1 || num > (TLS_SERIAL_BYTES - 1) / 2)
		return false;
	(void)snprintf(which.issuer, sizeof(which.issuer), "%08x",
		       (unsigned)hash);
	print_hex(which.serial, ASN1_STRING_get0_data(serial), (size_t)num,
		  digits);
	*ret_which = which;
	return true;
}

void tls_pin_print(const uint8_t pin[static TLS_PIN_BYTES],
		   char ret_text[static TLS_PIN_TEXT_BYTES])
{
	const size_t head = strlen(TLS_PIN_TEXT);

	memcpy(ret_text, TLS_PIN_TEXT, sizeof(TLS_PIN_TEXT));
	print_hex(ret_text + head, pin, TLS_PIN_BYTES, digits + 16);
	ret_text[TLS_PIN_TEXT_BYTES - 1] = '\0';
}

static bool pin_of(const X509 *certificate,
		   uint8_t ret_pin[static TLS_PIN_BYTES])
{
	uint8_t *der = NULL;
	int num = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
	bool is = num > 0 && EVP_Digest(der, (size_t)num, ret_pin, NULL,
					EVP_sha256(), NULL) == 1;

	OPENSSL_free(der);
	return is;
}

/* May that be a host's name? It goes into rules and logs. */
static bool is_name(const uint8_t *bytes, int num)
{
	if (num < 1 || num >= TLS_NAME_BYTES)
		return false;
	for (int i = 0; i < num; i++) {
		uint8_t c = bytes[i];

		if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') &&
		    !(c >= '0' && c <= '9') && c != '-' && c != '.' && c != '_')
			return false;
	}
	return true;
}

static void find_name(const X509 *certificate,
		      char ret_name[static TLS_NAME_BYTES])
{
	GENERAL_NAMES *names =
		X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);

	memset(ret_name, 0, TLS_NAME_BYTES);
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		const uint8_t *bytes;
		int num;

		if (name->type != GEN_DNS)
			continue;
		bytes = ASN1_STRING_get0_data(name->d.dNSName);
		num = ASN1_STRING_length(name->d.dNSName);
		if (is_name(bytes, num))
			memcpy(ret_name, bytes, (size_t)num);
		break;
	}
	GENERAL_NAMES_free(names);
}

int tls_peer_describe(const X509 *certificate, struct tls_peer *ret_peer)
{
	uint8_t pin[TLS_PIN_BYTES];
	struct tls_peer peer = { .name = "" };

	if (!pin_of(certificate, pin) ||
	    !tls_certificate_identify(X509_get_issuer_name(certificate),
				      X509_get0_serialNumber(certificate),
				      &peer.certificate))
		return -EKEYREJECTED;
	tls_pin_print(pin, peer.pin);
	find_name(certificate, peer.name);
	*ret_peer = peer;
	return 0;
}

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
	if (strlen(text) != (size_t)2 * TLS_PIN_BYTES)
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
