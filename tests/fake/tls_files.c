/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/tls_files.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#define PATH_BYTES 512
#define DAY_S      (24L * 60 * 60)

/* What must not fail in a test's own preparations. */
static void need(int is_good, const char *what)
{
	if (is_good)
		return;
	(void)fprintf(stderr, "tls_files: %s failed\n", what);
	abort();
}

static FILE *create(const char *dir, const char *name, const char *ending)
{
	char path[PATH_BYTES];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%s%s", dir, name, ending);
	(void)unlink(path);
	file = fopen(path, "we");
	need(file != NULL, path);
	need(fchmod(fileno(file), 0600) == 0, "chmod");
	return file;
}

static void add_extension(X509 *x, int nid, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *extension;

	X509V3_set_ctx_nodb(&context);
	X509V3_set_ctx(&context, x, x, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	need(extension && X509_add_ext(x, extension, -1) == 1, value);
	X509_EXTENSION_free(extension);
}

static void set_times(X509 *x, long from_s, long until_s)
{
	need(X509_gmtime_adj(X509_getm_notBefore(x), from_s) &&
		     X509_gmtime_adj(X509_getm_notAfter(x), until_s),
	     "times");
}

static X509 *make_certificate(EVP_PKEY *key, const char *name, long serial)
{
	X509 *x = X509_new();
	X509_NAME *subject = X509_get_subject_name(x);

	need(X509_set_version(x, X509_VERSION_3) == 1 &&
		     ASN1_INTEGER_set(X509_get_serialNumber(x), serial) == 1 &&
		     X509_set_pubkey(x, key) == 1 &&
		     X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
						(const unsigned char *)name, -1,
						-1, 0) == 1,
	     "certificate");
	return x;
}

void tls_files_make_ca(struct tls_files_ca *ca, const char *name)
{
	ca->key = EVP_EC_gen("P-256");
	need(ca->key != NULL, "key");
	ca->certificate = make_certificate(ca->key, name, 1);
	set_times(ca->certificate, -DAY_S, DAY_S);
	add_extension(ca->certificate, NID_basic_constraints,
		      "critical,CA:TRUE");
	add_extension(ca->certificate, NID_key_usage,
		      "critical,keyCertSign,cRLSign");
	need(X509_set_issuer_name(ca->certificate,
				  X509_get_subject_name(ca->certificate)) ==
			     1 &&
		     X509_sign(ca->certificate, ca->key, EVP_sha256()) > 0,
	     "signing");
}

void tls_files_free_ca(struct tls_files_ca *ca)
{
	X509_free(ca->certificate);
	EVP_PKEY_free(ca->key);
}

void tls_files_make_dir(char *path, size_t path_bytes)
{
	(void)snprintf(path, path_bytes, "/tmp/xusbip-tls-XXXXXX");
	need(mkdtemp(path) != NULL, "mkdtemp");
}

void tls_files_remove_dir(const char *path)
{
	char file[PATH_BYTES];
	const struct dirent *entry;
	DIR *dir = opendir(path);

	while (dir && (entry = readdir(dir))) {
		(void)snprintf(file, sizeof(file), "%s/%.100s", path,
			       entry->d_name);
		(void)unlink(file);
	}
	if (dir)
		(void)closedir(dir);
	(void)rmdir(path);
}

void tls_files_write_ca(const struct tls_files_ca *ca, const char *dir)
{
	FILE *file = create(dir, "ca", ".pem");

	need(PEM_write_X509(file, ca->certificate) == 1, "ca.pem");
	(void)fclose(file);
}

static void add_padding(X509 *x, size_t bytes)
{
	char *value = malloc(bytes + 1);

	need(value != NULL, "memory");
	memset(value, 'x', bytes);
	value[bytes] = '\0';
	add_extension(x, NID_netscape_comment, value);
	free(value);
}

void tls_files_issue(const struct tls_files_ca *ca, const char *dir,
		     const struct tls_files_leaf *leaf)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	/* A name that only a reader of CNs would believe. */
	X509 *x = make_certificate(key, "cn.example", leaf->serial);
	FILE *file;

	set_times(x, leaf->from_s != 0 ? leaf->from_s : -DAY_S,
		  leaf->until_s != 0 ? leaf->until_s : DAY_S);
	if (leaf->names)
		add_extension(x, NID_subject_alt_name, leaf->names);
	if (leaf->usage)
		add_extension(x, NID_ext_key_usage, leaf->usage);
	if (leaf->padding_bytes > 0)
		add_padding(x, leaf->padding_bytes);
	need(X509_set_issuer_name(x, X509_get_subject_name(ca->certificate)) ==
			     1 &&
		     X509_sign(x, ca->key, EVP_sha256()) > 0,
	     "signing");
	file = create(dir, leaf->file, ".pem");
	need(PEM_write_X509(file, x) == 1, "certificate");
	(void)fclose(file);
	file = create(dir, leaf->file, ".key");
	need(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1,
	     "key");
	(void)fclose(file);
	X509_free(x);
	EVP_PKEY_free(key);
}

void tls_files_revoke(const struct tls_files_ca *ca, const char *dir,
		      const struct tls_files_list *list)
{
	X509_CRL *crl = X509_CRL_new();
	X509_REVOKED *revoked;
	ASN1_TIME *from = X509_gmtime_adj(NULL, list->from_s != 0 ? list->from_s
								  : -DAY_S);
	ASN1_TIME *until = X509_gmtime_adj(
		NULL, list->until_s != 0 ? list->until_s : DAY_S);
	FILE *file;

	need(X509_CRL_set_version(crl, X509_CRL_VERSION_2) == 1 &&
		     X509_CRL_set_issuer_name(
			     crl, X509_get_subject_name(ca->certificate)) ==
			     1 &&
		     X509_CRL_set1_lastUpdate(crl, from) == 1 &&
		     X509_CRL_set1_nextUpdate(crl, until) == 1,
	     "list");
	if (list->serial != 0) {
		ASN1_INTEGER *serial = ASN1_INTEGER_new();

		revoked = X509_REVOKED_new();
		need(ASN1_INTEGER_set(serial, list->serial) == 1 &&
			     X509_REVOKED_set_serialNumber(revoked, serial) ==
				     1 &&
			     X509_REVOKED_set_revocationDate(revoked, from) ==
				     1 &&
			     X509_CRL_add0_revoked(crl, revoked) == 1,
		     "revoking");
		ASN1_INTEGER_free(serial);
	}
	need(X509_CRL_sign(crl, ca->key, EVP_sha256()) > 0, "signing");
	file = create(dir, "crl", ".pem");
	need(PEM_write_X509_CRL(file, crl) == 1, "crl.pem");
	(void)fclose(file);
	ASN1_TIME_free(from);
	ASN1_TIME_free(until);
	X509_CRL_free(crl);
}
