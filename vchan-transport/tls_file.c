/* SPDX-License-Identifier: Apache-2.0 */
/* tls_file.c - reading the files of a folder (tls.h), each whole. */
#include "vchan-transport/tls_private.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>

/* A list of some hundred thousand revoked certificates. */
#define FILE_MAX_BYTES (16u << 20)

/*
 * OpenSSL's decoders free copies of a key as they are. So nothing that it frees
 * keeps its contents; it allocates for handshakes, not for records.
 */
static void *allocate(size_t bytes, const char *file, int line)
{
	(void)file;
	(void)line;
	return malloc(bytes);
}

static void release(void *memory, const char *file, int line)
{
	(void)file;
	(void)line;
	if (memory)
		explicit_bzero(memory, malloc_usable_size(memory));
	free(memory);
}

static void *reallocate(void *memory, size_t bytes, const char *file, int line)
{
	size_t kept = memory ? malloc_usable_size(memory) : 0;
	void *moved = malloc(bytes);

	if (moved && kept > 0)
		memcpy(moved, memory, kept < bytes ? kept : bytes);
	if (moved)
		release(memory, file, line);
	return moved;
}

void tls_wipe_freed_memory(void)
{
	(void)CRYPTO_set_mem_functions(allocate, reallocate, release);
}

int tls_refuse(char *why, const char *path, const char *what)
{
	(void)snprintf(why, CHANNEL_WHY_BYTES, "%.170s: %s", path, what);
	ERR_clear_error();
	return -ENOKEY;
}

void tls_file_close(struct tls_file *f)
{
	BIO_free(f->bio);
	OPENSSL_clear_free(f->bytes, f->num_bytes);
	f->bio = NULL;
	f->bytes = NULL;
}

/* The words for what is wrong with an open file; NULL: nothing. */
static const char *judge_file(const struct stat *st, bool is_key)
{
	if (!S_ISREG(st->st_mode))
		return "it is no regular file";
	if (st->st_size > FILE_MAX_BYTES)
		return "it is too long";
	if (!is_key)
		return NULL;
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return "it belongs to somebody else: chown it";
	if (st->st_mode & (S_IRWXG | S_IRWXO))
		return "others may read it: chmod 0600 it";
	return NULL;
}

static bool read_whole(int fd, struct tls_file *f, size_t num_bytes)
{
	f->bytes = OPENSSL_malloc(num_bytes + 1);
	if (!f->bytes)
		return false;
	while (f->num_bytes < num_bytes) {
		ssize_t n = read(fd, f->bytes + f->num_bytes,
				 num_bytes - f->num_bytes);

		if (n <= 0)
			break;
		f->num_bytes += (size_t)n;
	}
	f->bio = BIO_new_mem_buf(f->bytes, (int)f->num_bytes);
	return f->bio;
}

int tls_file_open(struct tls_file *f, const char *dir, const char *name,
		  bool is_key, char *why)
{
	struct stat st;
	const char *wrong = NULL;
	int fd;

	tls_wipe_freed_memory();
	*f = (struct tls_file){ .bio = NULL };
	(void)snprintf(f->path, sizeof(f->path), "%s/%s", dir, name);
	fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 && errno == ENOENT) {
		(void)tls_refuse(why, f->path,
				 "there is no such file; xusbip-ca makes it");
		return -ENOENT;
	}
	if (fd < 0)
		return tls_refuse(why, f->path, strerror(errno));
	if (fstat(fd, &st) < 0)
		wrong = strerror(errno);
	if (!wrong)
		wrong = judge_file(&st, is_key);
	if (!wrong && !read_whole(fd, f, (size_t)st.st_size))
		wrong = strerror(ENOMEM);
	(void)close(fd);
	if (wrong) {
		tls_file_close(f);
		return tls_refuse(why, f->path, wrong);
	}
	return 0;
}

bool tls_file_was_last(void)
{
	unsigned long error = ERR_peek_last_error();

	ERR_clear_error();
	return ERR_GET_LIB(error) == ERR_LIB_PEM &&
	       ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

X509_CRL *tls_file_next_list(struct tls_file *f, size_t *num, char *why)
{
	X509_CRL *list = PEM_read_bio_X509_CRL(f->bio, NULL, NULL, NULL);

	why[0] = '\0';
	if (list) {
		(*num)++;
		return list;
	}
	if (!tls_file_was_last())
		(void)tls_refuse(why, f->path,
				 "it holds a broken list of what is revoked");
	else if (*num == 0)
		(void)tls_refuse(why, f->path,
				 "it holds no list of what is "
				 "revoked; xusbip-ca makes it");
	return NULL;
}
