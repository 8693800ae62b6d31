/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See names.h. The list is read once, whole. An entry is a line that begins
 * with as many tabs as it is deep and its number in hexadecimal; what belongs
 * to it follows, deeper.
 */
#include "frontend/names.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vchan-transport/log.h"

#define NAMES_FILE      "/usr/share/misc/usb.ids"
#define NAMES_MAX_BYTES (8 << 20)
#define NAME_BYTES      64

static char *load(void)
{
	struct stat st;
	char *text = NULL;
	size_t used = 0;
	ssize_t n = 1;
	int fd = open(NAMES_FILE, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) == 0 && st.st_size <= NAMES_MAX_BYTES)
		text = malloc((size_t)st.st_size + 1);
	while (text && n > 0 && used < (size_t)st.st_size) {
		n = read(fd, text + used, (size_t)st.st_size - used);
		if (n > 0)
			used += (size_t)n;
	}
	if (text)
		text[used] = '\0';
	(void)close(fd);
	return text;
}

static const char *list(void)
{
	static char *text;
	static bool is_loaded;

	if (!is_loaded) {
		text = load();
		is_loaded = true;
	}
	return text ? text : "";
}

static size_t depth_of(const char *line)
{
	return strspn(line, "\t");
}

static const char *next_line(const char *line)
{
	const char *end = strchr(line, '\n');

	return end ? end + 1 : NULL;
}

/*
 * The line that begins with `key`, from the one given on and as long as lines
 * are at least as deep as it; NULL if there is none.
 */
static const char *find(const char *line, const char *key)
{
	size_t depth = depth_of(key);

	for (; line && *line; line = next_line(line)) {
		if (strncmp(line, key, strlen(key)) == 0)
			return line;
		if (depth > 0 && *line != '#' && depth_of(line) < depth)
			return NULL;
	}
	return NULL;
}

/* The name behind the key, or `other`, fit to be printed. */
static void take_name(char name[NAME_BYTES], const char *line, const char *key,
		      const char *other)
{
	if (line)
		line += strlen(key);
	else
		line = other;
	line += strspn(line, " ");
	(void)log_escape(name, NAME_BYTES, line, strcspn(line, "\r\n"));
}

static const char *find_below(const char *line, const char *key)
{
	return line ? find(next_line(line), key) : NULL;
}

void names_product(char ret_text[NAMES_BYTES], uint16_t vendor,
		   uint16_t product)
{
	char key[8];
	char vendor_name[NAME_BYTES];
	char product_name[NAME_BYTES];
	const char *line;

	(void)snprintf(key, sizeof(key), "%04x ", vendor);
	line = find(list(), key);
	take_name(vendor_name, line, key, "unknown vendor");
	(void)snprintf(key, sizeof(key), "\t%04x ", product);
	take_name(product_name, find_below(line, key), key, "unknown product");
	(void)snprintf(ret_text, NAMES_BYTES, "%s : %s (%04x:%04x)",
		       vendor_name, product_name, vendor, product);
}

void names_class(char ret_text[NAMES_BYTES], uint8_t class, uint8_t subclass,
		 uint8_t protocol)
{
	char key[8];
	char names[3][NAME_BYTES];
	const char *line;

	if (class == 0 && subclass == 0 && protocol == 0) {
		(void)snprintf(ret_text, NAMES_BYTES,
			       "(Defined at Interface level) (00/00/00)");
		return;
	}
	(void)snprintf(key, sizeof(key), "C %02x ", class);
	line = find(list(), key);
	take_name(names[0], line, key, "unknown class");
	(void)snprintf(key, sizeof(key), "\t%02x ", subclass);
	line = find_below(line, key);
	take_name(names[1], line, key, "unknown subclass");
	(void)snprintf(key, sizeof(key), "\t\t%02x ", protocol);
	take_name(names[2], find_below(line, key), key, "unknown protocol");
	(void)snprintf(ret_text, NAMES_BYTES,
		       "%.50s / %.50s / %.50s "
		       "(%02x/%02x/%02x)",
		       names[0], names[1], names[2], class, subclass, protocol);
}
