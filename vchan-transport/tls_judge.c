/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls_judge.c - whether a peer's certificate is accepted, what the peer is told
 * if not, and the words for how handshakes fail at either end.
 */
#include "vchan-transport/tls_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Of no alert's own: the peer is told certificate_unknown. */
#define ERROR_OF_OURS X509_V_ERR_CRL_PATH_VALIDATION_ERROR

/* ---------------------------------------------------------------- verdicts */

/* What the peer is told about an error, where that would mislead it. */
static int error_to_tell(int error)
{
	switch (error) {
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return X509_V_ERR_CERT_HAS_EXPIRED; /* one alert for both */
	case X509_V_ERR_UNABLE_TO_GET_CRL:
	case X509_V_ERR_CRL_HAS_EXPIRED:
	case X509_V_ERR_CRL_NOT_YET_VALID:
	case X509_V_ERR_CRL_SIGNATURE_FAILURE:
	case X509_V_ERR_UNSPECIFIED:
		return ERROR_OF_OURS;
	default:
		return error;
	}
}

/* Is the one that the chain was built for the one that is wanted? */
static int judge_peer(struct tls_judge *judge, X509 *certificate)
{
	char pin[TLS_PIN_TEXT_BYTES];

	/* One that is for any use would make a gateway of each client. */
	if (X509_get_extended_key_usage(certificate) == UINT32_MAX)
		return X509_V_ERR_INVALID_PURPOSE;
	if (tls_peer_describe(certificate, &judge->peer) < 0)
		return X509_V_ERR_UNSPECIFIED;
	if (judge->pin) {
		tls_pin_print(judge->pin, pin);
		if (strcmp(pin, judge->peer.pin) != 0)
			return X509_V_ERR_HOSTNAME_MISMATCH;
	}
	judge->is_accepted = true;
	return X509_V_OK;
}

static int on_verify(int is_good, X509_STORE_CTX *store)
{
	const SSL *ssl = X509_STORE_CTX_get_ex_data(
		store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls_judge *judge = SSL_get_app_data(ssl);
	X509 *certificate = X509_STORE_CTX_get_current_cert(store);
	int error = is_good ? X509_V_OK : X509_STORE_CTX_get_error(store);
	int depth = X509_STORE_CTX_get_error_depth(store);

	if (is_good && depth == 0)
		error = judge_peer(judge, certificate);
	else if (depth == 0 && certificate)
		(void)tls_peer_describe(certificate, &judge->peer);
	if (error == X509_V_OK)
		return 1;
	judge->is_accepted = false;
	judge->error = error;
	judge->depth = depth;
	X509_STORE_CTX_set_error(store, error_to_tell(error));
	return 0;
}

/* An address loses its zone, a name its last dot: no certificate has them. */
static bool expect_host(SSL *ssl, const char *host)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
	char bare[TLS_NAME_BYTES];
	uint8_t ip[sizeof(struct in6_addr)];
	size_t num = strcspn(host, "%");

	if (num == 0 || num >= sizeof(bare) || host[0] == '.')
		return false;
	memcpy(bare, host, num);
	bare[num] = '\0';
	if (inet_pton(AF_INET, bare, ip) == 1)
		return X509_VERIFY_PARAM_set1_ip(param, ip, 4) == 1;
	if (inet_pton(AF_INET6, bare, ip) == 1)
		return X509_VERIFY_PARAM_set1_ip(param, ip, 16) == 1;
	if (bare[num - 1] == '.')
		bare[num - 1] = '\0';
	X509_VERIFY_PARAM_set_hostflags(param,
					X509_CHECK_FLAG_NEVER_CHECK_SUBJECT |
						X509_CHECK_FLAG_NO_WILDCARDS);
	return SSL_set_tlsext_host_name(ssl, bare) == 1 &&
	       X509_VERIFY_PARAM_set1_host(param, bare, 0) == 1;
}

int tls_judge_start(struct tls_judge *judge, SSL *ssl)
{
	const struct tls_context *c = judge->context;

	if (SSL_set_app_data(ssl, judge) != 1 ||
	    SSL_use_cert_and_key(ssl, c->certificate, c->key, c->chain, 1) != 1)
		return -ENOMEM;
	SSL_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
		       on_verify);
	if (judge->host && !judge->pin && !expect_host(ssl, judge->host))
		return -EINVAL;
	return 0;
}

/* ------------------------------------------------------------------- words */

static const struct {
	int error;
	bool is_of_list; /* ours, of what is revoked; not its certificate */
	const char *words;
} certificate_errors[] = {
	{ X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, false, "is of another CA" },
	{ X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, false,
	  "is of another CA" },
	{ X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, false,
	  "is of another CA" },
	{ X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, false,
	  "is of no CA but signed by itself" },
	{ X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, false, "is of another CA" },
	{ X509_V_ERR_CERT_SIGNATURE_FAILURE, false, "is of another CA" },
	{ X509_V_ERR_CERT_HAS_EXPIRED, false, "has expired" },
	{ X509_V_ERR_CERT_NOT_YET_VALID, false,
	  "is not yet valid; compare the clocks" },
	{ X509_V_ERR_CERT_REVOKED, false, "is revoked" },
	{ X509_V_ERR_UNSPECIFIED, false,
	  "has a serial number that no CA may give" },
	{ X509_V_ERR_UNABLE_TO_GET_CRL, true,
	  "has no list of the CA that its certificate is of" },
	{ X509_V_ERR_CRL_HAS_EXPIRED, true, "has expired; make a new one" },
	{ X509_V_ERR_CRL_NOT_YET_VALID, true,
	  "is not yet valid; compare the clocks" },
	{ X509_V_ERR_CRL_SIGNATURE_FAILURE, true,
	  "is not signed by the CA that it names" },
};

/* It is whom the CA says, but not whom we want. */
static void explain_another(const struct tls_judge *judge, char *why,
			    size_t why_bytes)
{
	if (judge->pin)
		(void)snprintf(why, why_bytes,
			       "its key is not the pinned one, but %s",
			       judge->peer.pin);
	else if (judge->peer.name[0] != '\0')
		(void)snprintf(why, why_bytes,
			       "its certificate is for %s, not for %s",
			       judge->peer.name, judge->host);
	else
		(void)snprintf(why, why_bytes, "its certificate is not for %s",
			       judge->host);
}

/* The error of a certificate that was judged here. */
static void explain_certificate(const struct tls_judge *judge, char *why,
				size_t why_bytes)
{
	const char *whose = judge->depth > 0 ? "its CA's" : "its";

	if (judge->error == X509_V_ERR_HOSTNAME_MISMATCH ||
	    judge->error == X509_V_ERR_IP_ADDRESS_MISMATCH) {
		explain_another(judge, why, why_bytes);
		return;
	}
	if (judge->error == X509_V_ERR_INVALID_PURPOSE) {
		(void)snprintf(
			why, why_bytes, "%s certificate is not for %s", whose,
			judge->role == TLS_GATEWAY ? "clients" : "gateways");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(certificate_errors); i++) {
		if (certificate_errors[i].error != judge->error)
			continue;
		if (certificate_errors[i].is_of_list)
			(void)snprintf(why, why_bytes, "%s/crl.pem %s",
				       judge->context->dir,
				       certificate_errors[i].words);
		else
			(void)snprintf(why, why_bytes, "%s certificate %s",
				       whose, certificate_errors[i].words);
		return;
	}
	(void)snprintf(why, why_bytes, "%s certificate is not accepted: %s",
		       whose, X509_verify_cert_error_string(judge->error));
}

static const struct {
	uint8_t alert;
	const char *words;
} certificate_alerts[] = {
	{ SSL_AD_BAD_CERTIFICATE, "it is broken, or of another host" },
	{ SSL_AD_UNSUPPORTED_CERTIFICATE, "it is for another use" },
	{ SSL_AD_CERTIFICATE_REVOKED, "it is revoked" },
	{ SSL_AD_CERTIFICATE_EXPIRED,
	  "it has expired, or is not yet valid there" },
	{ SSL_AD_CERTIFICATE_UNKNOWN, "it cannot judge it; see its log" },
	{ SSL_AD_UNKNOWN_CA, "it is of another CA" },
	{ SSL_AD_ACCESS_DENIED, "it is not let in" },
	{ SSL_AD_DECRYPT_ERROR, "its signature is wrong" },
	{ TLS13_AD_CERTIFICATE_REQUIRED, "it was shown none" },
};

/* What the peer said before it gave up. */
static int explain_alert(const struct tls_judge *judge, int alert, char *why,
			 size_t why_bytes)
{
	const char *whose = judge->role == TLS_GATEWAY ? "gateway" : "host";

	for (size_t i = 0; i < ARRAY_SIZE(certificate_alerts); i++) {
		if (certificate_alerts[i].alert != alert)
			continue;
		(void)snprintf(why, why_bytes,
			       "it does not accept this %s's certificate: %s",
			       whose, certificate_alerts[i].words);
		return -EACCES;
	}
	if (alert == SSL_AD_PROTOCOL_VERSION)
		(void)snprintf(why, why_bytes, "it speaks no TLS 1.3");
	else if (alert == SSL_AD_NO_APPLICATION_PROTOCOL)
		(void)snprintf(why, why_bytes,
			       "it speaks TLS, but no USB/IP in it");
	else
		(void)snprintf(why, why_bytes, "it ended TLS: %s",
			       SSL_alert_desc_string_long(alert));
	return -EPROTO;
}

/* What was wrong with the bytes themselves. */
static int explain_protocol(unsigned long error, char *why, size_t why_bytes)
{
	switch (ERR_GET_REASON(error)) {
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		(void)snprintf(why, why_bytes, "it has shown no certificate");
		return -EKEYREJECTED;
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_VERSION_TOO_LOW:
	case SSL_R_WRONG_SSL_VERSION:
	case SSL_R_BAD_PROTOCOL_VERSION_NUMBER:
		(void)snprintf(why, why_bytes,
			       "it speaks an older TLS than 1.3");
		return -EPROTO;
	case SSL_R_NO_APPLICATION_PROTOCOL:
		(void)snprintf(why, why_bytes,
			       "it wants to speak something else than " TLS_ALPN
			       " (ALPN)");
		return -EPROTO;
	case SSL_R_EXCESSIVE_MESSAGE_SIZE:
		(void)snprintf(why, why_bytes,
			       "its chain of certificates is too long");
		return -EPROTO;
	default:
		(void)snprintf(why, why_bytes, "it broke TLS: %s",
			       ERR_reason_error_string(error)
				       ? ERR_reason_error_string(error)
				       : "in an unknown way");
		return -EPROTO;
	}
}

int tls_explain(const struct tls_judge *judge, char *why, size_t why_bytes)
{
	unsigned long error = ERR_peek_error();
	int reason = ERR_GET_REASON(error);

	ERR_clear_error();
	if (error == 0 || (ERR_GET_LIB(error) == ERR_LIB_SSL &&
			   reason == SSL_R_UNEXPECTED_EOF_WHILE_READING))
		return 0;
	if (judge->error != X509_V_OK) {
		explain_certificate(judge, why, why_bytes);
		return -EKEYREJECTED;
	}
	if (ERR_GET_LIB(error) == ERR_LIB_SSL &&
	    reason >= SSL_AD_REASON_OFFSET &&
	    reason <= SSL_AD_REASON_OFFSET + UINT8_MAX)
		return explain_alert(judge, reason - SSL_AD_REASON_OFFSET, why,
				     why_bytes);
	return explain_protocol(error, why, why_bytes);
}
