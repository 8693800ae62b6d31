/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reader - reads disks without end, and looks at each byte.
 *
 *   reader FOLDER SECTORS...
 *
 * A disk is known by its size: each word of its sectors says the disk's size,
 * the sector and its own place. For each disk there is a process; it is no
 * matter if the disk comes and goes, under whatever name. FOLDER/SECTORS has
 * the number of reads so far, FOLDER/damaged tells what was wrong.
 *
 * The machine is emulated and shared, so a disk is left alone for longer than
 * its last read took.
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

#define READ_BYTES   16384u
#define SECTOR_BYTES 512u
#define WORDS        (SECTOR_BYTES / sizeof(uint64_t))
#define IDLE_MS      300u
#define PAUSE_MS     50u
#define PAUSE_FACTOR 5u

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
		fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
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

/* The first byte of `block` that is not as it shall be, or -1. */
static int64_t find_damage(const uint64_t *block, unsigned sectors,
			   uint64_t sector)
{
	for (size_t i = 0; i < READ_BYTES / sizeof(*block); i++) {
		uint64_t expected = (uint64_t)sectors << 40 |
				    (sector + i / WORDS) << 16 | i % WORDS;

		if (block[i] != expected)
			return (int64_t)(sector * SECTOR_BYTES +
					 i * sizeof(*block));
	}
	return -1;
}

/* Until it is gone; how many reads there were in all. */
static uint64_t read_disk(int fd, unsigned sectors, const char *folder,
			  uint64_t reads)
{
	_Alignas(4096) static uint64_t block[READ_BYTES / sizeof(uint64_t)];
	char name[16];

	(void)snprintf(name, sizeof(name), "%u", sectors);
	for (uint64_t sector = 0;; sector += READ_BYTES / SECTOR_BYTES) {
		uint64_t began_ms = now_ms();
		uint64_t at = sector % sectors;
		int64_t damage;

		if (pread(fd, block, READ_BYTES, (off_t)(at * SECTOR_BYTES)) !=
		    READ_BYTES)
			return reads;
		damage = find_damage(block, sectors, at);
		if (damage >= 0)
			tell(folder, "damaged", "ae", (uint64_t)damage);
		tell(folder, name, "we", ++reads);
		pause_ms(PAUSE_MS + PAUSE_FACTOR * (now_ms() - began_ms));
	}
}

static void serve(unsigned sectors, const char *folder)
{
	for (uint64_t reads = 0;;) {
		int fd = open_disk(sectors);

		if (fd < 0) {
			pause_ms(IDLE_MS);
			continue;
		}
		reads = read_disk(fd, sectors, folder, reads);
		(void)close(fd);
	}
}

int main(int argc, char **argv)
{
	for (int i = 2; i < argc; i++) {
		unsigned sectors = (unsigned)strtoul(argv[i], NULL, 10);

		if (sectors > 0 && fork() == 0)
			serve(sectors, argv[1]);
	}
	while (wait(NULL) > 0 || errno == EINTR)
		;
	return 0;
}
