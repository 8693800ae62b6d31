/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_io - reads and writes disks without end, and looks at each byte.
 *
 *   disk_io FOLDER SECTORS...
 *
 * A disk is known by its size: each word of its sectors says how often it was
 * written, the disk's size, the sector and its own place. The first half is
 * only read. The second is written as well, block after block, once it was seen
 * to be as the last write left it. For each disk there is a process; it is no
 * matter if the disk comes and goes, under whatever name. FOLDER/SECTORS has
 * the number of blocks used so far, FOLDER/damaged tells what was wrong.
 *
 * The machine is emulated and shared, so a disk is left alone for longer than
 * its last block took.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_BYTES      16384u
#define SECTOR_BYTES     512u
#define BLOCK_SECTORS    (BLOCK_BYTES / SECTOR_BYTES)
#define SECTOR_WORDS     (SECTOR_BYTES / sizeof(uint64_t))
#define BLOCK_WORDS      (BLOCK_BYTES / sizeof(uint64_t))
#define MAX_SECTORS      4096u
#define GENERATION_SHIFT 52
#define GENERATIONS      4096u
#define IDLE_MS          300u
#define PAUSE_MS         50u
#define PAUSE_FACTOR     5u

enum block_state {
	UNKNOWN, /* what was there when this process began */
	WRITTEN,
	/* by a write that failed, or not at all: each sector for itself */
	UNSURE
};

struct disk {
	const char *folder;
	unsigned sectors;
	uint64_t num_used;
	struct {
		enum block_state state;
		unsigned generation; /* the last that was written for sure */
	} blocks[MAX_SECTORS / BLOCK_SECTORS];
};

static uint64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void pause_ms(uint64_t ms)
{
	const struct timespec pause = { .tv_sec = (time_t)(ms / 1000),
					.tv_nsec =
						(long)(ms % 1000) * 1000000 };

	(void)nanosleep(&pause, NULL);
}

static bool has_size(const char *path, unsigned sectors)
{
	FILE *f = fopen(path, "re");
	char text[32] = "";

	if (!f)
		return false;
	(void)!fgets(text, sizeof(text), f);
	(void)fclose(f);
	return strtoul(text, NULL, 10) == sectors;
}

/* A descriptor, or -1. */
static int open_disk(unsigned sectors)
{
	char path[64];
	glob_t found;
	int fd = -1;

	if (glob("/sys/block/sd*/size", 0, NULL, &found) != 0)
		return -1;
	for (size_t i = 0; i < found.gl_pathc && fd < 0; i++) {
		const char *name = found.gl_pathv[i] + strlen("/sys/block/");

		if (!has_size(found.gl_pathv[i], sectors))
			continue;
		(void)snprintf(path, sizeof(path), "/dev/%.*s",
			       (int)strcspn(name, "/"), name);
		fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	}
	globfree(&found);
	return fd;
}

static void tell(const char *folder, const char *name, const char *mode,
		 uint64_t number)
{
	char path[128];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, mode);
	if (!f)
		return;
	(void)fprintf(f, "%llu\n", (unsigned long long)number);
	(void)fclose(f);
}

static unsigned next_of(unsigned generation)
{
	return (generation + 1) % GENERATIONS;
}

static uint64_t word_of(const struct disk *d, unsigned block, size_t place,
			unsigned generation)
{
	uint64_t sector =
		(uint64_t)block * BLOCK_SECTORS + place / SECTOR_WORDS;

	return (uint64_t)generation << GENERATION_SHIFT |
	       (uint64_t)d->sectors << 40 | sector << 16 | place % SECTOR_WORDS;
}

static bool may_be(const struct disk *d, unsigned block, unsigned generation)
{
	unsigned known = d->blocks[block].generation;

	switch (d->blocks[block].state) {
	case UNKNOWN:
		return true;
	case UNSURE:
		return generation == known || generation == next_of(known);
	case WRITTEN:
		break;
	}
	return generation == known;
}

static void check(const struct disk *d, unsigned block, const uint64_t *words)
{
	for (size_t i = 0; i < BLOCK_WORDS; i++) {
		/* A sector is written as a whole or not at all. */
		unsigned generation = (unsigned)(words[i - i % SECTOR_WORDS] >>
						 GENERATION_SHIFT);

		if (words[i] == word_of(d, block, i, generation) &&
		    may_be(d, block, generation))
			continue;
		tell(d->folder, "damaged", "ae",
		     (uint64_t)block * BLOCK_BYTES + i * sizeof(*words));
		return;
	}
}

/* False if it is gone. */
static bool write_block(struct disk *d, int fd, unsigned block, uint64_t *words)
{
	unsigned generation = d->blocks[block].state == UNKNOWN
				      ? (unsigned)(words[0] >> GENERATION_SHIFT)
				      : d->blocks[block].generation;

	generation = next_of(generation);
	for (size_t i = 0; i < BLOCK_WORDS; i++)
		words[i] = word_of(d, block, i, generation);
	if (d->blocks[block].state == WRITTEN)
		d->blocks[block].state = UNSURE;
	if (pwrite(fd, words, BLOCK_BYTES, (off_t)block * BLOCK_BYTES) !=
	    BLOCK_BYTES)
		return false;
	d->blocks[block].state = WRITTEN;
	d->blocks[block].generation = generation;
	return true;
}

/* False if it is gone. */
static bool use_block(struct disk *d, int fd, unsigned block)
{
	_Alignas(4096) static uint64_t words[BLOCK_WORDS];

	if (pread(fd, words, BLOCK_BYTES, (off_t)block * BLOCK_BYTES) !=
	    BLOCK_BYTES)
		return false;
	check(d, block, words);
	return block < d->sectors / BLOCK_SECTORS / 2 ||
	       write_block(d, fd, block, words);
}

/* Until it is gone: a block of each half in turn. */
static void use_disk(struct disk *d, int fd)
{
	const unsigned half = d->sectors / BLOCK_SECTORS / 2;
	char name[16];

	(void)snprintf(name, sizeof(name), "%u", d->sectors);
	for (;;) {
		const uint64_t began_ms = now_ms();
		const unsigned at = (unsigned)(d->num_used / 2 % half);

		if (!use_block(d, fd, d->num_used % 2 ? half + at : at))
			return;
		tell(d->folder, name, "we", ++d->num_used);
		pause_ms(PAUSE_MS + PAUSE_FACTOR * (now_ms() - began_ms));
	}
}

static void serve(unsigned sectors, const char *folder)
{
	static struct disk disk;

	disk.folder = folder;
	disk.sectors = sectors;
	for (;;) {
		int fd = open_disk(sectors);

		if (fd < 0) {
			pause_ms(IDLE_MS);
			continue;
		}
		use_disk(&disk, fd);
		(void)close(fd);
	}
}

int main(int argc, char **argv)
{
	for (int i = 2; i < argc; i++) {
		unsigned sectors = (unsigned)strtoul(argv[i], NULL, 10);

		if (sectors < 2 * BLOCK_SECTORS || sectors >= MAX_SECTORS ||
		    sectors % (2 * BLOCK_SECTORS) != 0)
			return 2;
		if (fork() == 0)
			serve(sectors, argv[1]);
	}
	while (wait(NULL) > 0 || errno == EINTR)
		;
	return 0;
}
