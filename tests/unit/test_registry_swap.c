/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices of a machine that umockdev pretends: which ones the rules give, and
 * that one which becomes another between the look and the opening is not
 * given. The test starts itself again under umockdev-run.
 */
#include "gateway/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define HUB_DIR       "/devices/pci0000:00/0000:00:14.0/usb3"
#define ENOUGH        50
#define MAX_TRIES     1000000

static const struct policy_peer local = { .kind = POLICY_PEER_ANYBODY };

#define DEVICE(vendor)                                                       \
	18, 1, 0, 2, 0, 0, 0, 64, (vendor), 4, 0x2b, 0xc5, 1, 0x12, 0, 0, 0, \
		1, 9, 2, 18, 0, 1, 1, 0, 0x80, 50

static const uint8_t camera[] = { DEVICE(0x6d), 9, 4, 0, 0, 0, 14, 1, 0, 0 };
static const uint8_t keyboard[] = { DEVICE(0x6d), 9, 4, 0, 0, 0, 3, 1, 1, 0 };
/* Says that it is the camera of the rule, but for what nobody looks at. */
static const uint8_t other_camera[] = {
	DEVICE(0x6d), 9, 4, 0, 0, 0, 14, 1, 0, 1
};

/* Of the camera, by sha256sum. */
#define CAMERA_HASH                                                         \
	0x5e, 0xa0, 0x61, 0x0e, 0x70, 0x61, 0xba, 0x7f, 0x3b, 0x92, 0x85,   \
		0x84, 0xcc, 0xd7, 0xe7, 0x92, 0xcb, 0xc3, 0x91, 0xa3, 0x8c, \
		0x8b, 0xe1, 0x3a, 0x50, 0x95, 0x87, 0xdb, 0xe1, 0x7f, 0x90, \
		0x16

static const uint8_t camera_hash[] = { CAMERA_HASH };

/* ---- the pretended machine ---- */

static char dir[] = "/tmp/test_swap.XXXXXX";

static void path_in(char path[static 512], const char *root, const char *rest)
{
	(void)snprintf(path, 512, "%s%s", root, rest);
}

/* Where umockdev keeps what it shows as /sys and /dev. */
static void pretended(char path[static 512], const char *rest)
{
	path_in(path, getenv("UMOCKDEV_DIR"), rest);
}

static void put(const char *path, const void *bytes, size_t num_bytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, num_bytes), num_bytes);
	(void)close(fd);
}

/* A device's files in sysfs, at the name that it has or is to get. */
static void put_sysfs(const char *name, const uint8_t *descriptors,
		      size_t num_bytes)
{
	static const char *const files[][2] = {
		{ "busnum", "3\n" },
		{ "devnum", "17\n" },
		{ "speed", "480\n" },
		{ "bConfigurationValue", "1\n" },
		{ "uevent", "DEVTYPE=usb_device\n"
			    "DEVNAME=bus/usb/003/017\n" },
	};
	char folder[512];
	char path[512 + 64];

	pretended(folder, "/sys" HUB_DIR "/");
	(void)snprintf(path, sizeof(path), "%s%s", folder, name);
	assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		(void)snprintf(path, sizeof(path), "%s%s/%s", folder, name,
			       files[i][0]);
		put(path, files[i][1], strlen(files[i][1]));
	}
	(void)snprintf(path, sizeof(path), "%s%s/descriptors", folder, name);
	put(path, descriptors, num_bytes);
	(void)snprintf(path, sizeof(path), "%s%s/subsystem", folder, name);
	assert_true(symlink("../../../../../bus/usb", path) == 0 ||
		    errno == EEXIST);
}

static void put_node(const char *name, const uint8_t *descriptors,
		     size_t num_bytes)
{
	char path[512];

	pretended(path, "/dev/bus/usb/003/");
	(void)snprintf(path + strlen(path), 64, "%s", name);
	put(path, descriptors, num_bytes);
}

/* ---- a registry over it ---- */

struct bed {
	struct config *config;
	struct registry *registry;
};

static void set_up(struct bed *bed, const struct policy_rule *rule)
{
	put_sysfs("3-1", camera, sizeof(camera));
	put_node("017", camera, sizeof(camera));
	bed->config = calloc(1, sizeof(*bed->config));
	assert_non_null(bed->config);
	(void)snprintf(bed->config->runtime_dir,
		       sizeof(bed->config->runtime_dir), "%s", dir);
	bed->config->rules[0] = *rule;
	bed->config->num_rules = 1;
	assert_int_equal(registry_new(NULL, bed->config, &bed->registry), 0);
}

static void tear_down(struct bed *bed)
{
	registry_free(bed->registry);
	config_free(bed->config);
}

/* 0 with the descriptor of the device, which is the caller's; or -errno. */
static int open_it(struct bed *bed, struct ipc_answer *answer, int *ret_fd)
{
	int lock = -1;
	int r = registry_open(bed->registry, "3-1", &local, answer, ret_fd,
			      &lock);

	if (r == 0)
		(void)close(lock);
	return r;
}

static int count(void *arg, const struct ipc_answer *answer)
{
	assert_string_equal(answer->device.busid, "3-1");
	++*(unsigned *)arg;
	return 0;
}

static const struct policy_rule video_only = {
	.only = { 1, { { { 14, 0, 0 }, 1 } } },
};

static const struct policy_rule one_hash = {
	.has_hash = true,
	.hash = { CAMERA_HASH },
};

static const struct policy_rule any_of_its_kind = {
	.has_vendor = true,
	.vendor = 0x046d,
	.any = { 2, { { { 14, 0, 0 }, 1 }, { { 3, 0, 0 }, 1 } } },
};

static const struct policy_rule *const rules[] = { &video_only, &one_hash };

static void a_device_is_given_by_its_classes_or_its_hash(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		struct policy_device device;
		struct ipc_answer answer;
		unsigned num = 0;
		struct bed bed;
		int fd = -1;

		set_up(&bed, rules[i]);
		assert_int_equal(registry_find(bed.registry, "3-1", &device),
				 0);
		assert_memory_equal(device.hash, camera_hash,
				    sizeof(camera_hash));
		assert_int_equal(device.num_classes, 1);
		assert_int_equal(
			registry_list(bed.registry, &local, count, &num), 0);
		assert_int_equal(num, 1);
		assert_int_equal(open_it(&bed, &answer, &fd), 0);
		assert_int_equal(answer.kind, IPC_KIND_USB);
		(void)close(fd);

		put_sysfs("3-1", keyboard, sizeof(keyboard));
		num = 0;
		assert_int_equal(
			registry_list(bed.registry, &local, count, &num), 0);
		assert_int_equal(num, 0);
		assert_int_equal(open_it(&bed, &answer, &fd), -EPERM);
		tear_down(&bed);
	}
}

static void what_the_opened_descriptor_shows_is_judged(void **state)
{
	const struct {
		const struct policy_rule *rule;
		const uint8_t *shown;
		int r;
	} rows[] = {
		{ &video_only, camera, 0 },
		{ &video_only, other_camera, 0 },
		{ &video_only, keyboard, -EPERM },
		{ &one_hash, camera, 0 },
		{ &one_hash, other_camera, -EPERM },
		{ &one_hash, keyboard, -EPERM },
		{ &any_of_its_kind, keyboard, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct ipc_answer answer;
		struct bed bed;
		int fd = -1;

		set_up(&bed, rows[i].rule);
		put_node("017", rows[i].shown, sizeof(camera));
		assert_int_equal(open_it(&bed, &answer, &fd), rows[i].r);
		if (rows[i].r == 0) {
			(void)close(fd);
		} else {
			assert_int_equal(fd, -1);
			assert_int_equal(answer.status, USBIP_ST_NODEV);
			assert_non_null(
				strstr(answer.reason, "became another"));
		}
		tear_down(&bed);
	}
}

static void
a_device_is_given_as_long_as_the_configuration_gives_it(void **state)
{
	struct bed bed;

	(void)state;
	set_up(&bed, &video_only);
	assert_true(registry_is_given(bed.registry, "3-1", &local));
	bed.config->rules[0].is_deny = true;
	assert_false(registry_is_given(bed.registry, "3-1", &local));
	bed.config->rules[0].is_deny = false;
	put_sysfs("3-1", keyboard, sizeof(keyboard));
	assert_false(registry_is_given(bed.registry, "3-1", &local));
	bed.config->num_rules = 0;
	assert_false(registry_is_given(bed.registry, "3-1", &local));

	/* It is gone: its session ends by itself. */
	assert_true(registry_is_given(bed.registry, "3-2", &local));
	/* A virtual one that is not in the file any more does not. */
	assert_false(registry_is_given(bed.registry, "zero0", &local));
	tear_down(&bed);
}

/* ---- while it is swapped ---- */

static atomic_bool is_swapping;

/* The port's device and its node become others and again what they were, each
 * at once, but not both at the same time, as when a device is replugged. */
static void *swap(void *arg)
{
	char node[512];
	char other_node[512];
	char folder[512];
	char other_folder[512];

	pretended(node, "/dev/bus/usb/003/017");
	pretended(other_node, "/dev/bus/usb/003/other");
	pretended(folder, "/sys" HUB_DIR "/3-1");
	pretended(other_folder, "/sys" HUB_DIR "/other");
	while (atomic_load(&is_swapping)) {
		(void)renameat2(AT_FDCWD, folder, AT_FDCWD, other_folder,
				RENAME_EXCHANGE);
		(void)renameat2(AT_FDCWD, node, AT_FDCWD, other_node,
				RENAME_EXCHANGE);
	}
	return arg;
}

static void a_device_that_is_swapped_is_never_opened_as_another(void **state)
{
	unsigned num_opened = 0;
	unsigned num_refused = 0;
	pthread_t swapper;
	struct bed bed;

	(void)state;
	set_up(&bed, &video_only);
	put_sysfs("other", keyboard, sizeof(keyboard));
	put_node("other", keyboard, sizeof(keyboard));
	atomic_store(&is_swapping, true);
	assert_int_equal(pthread_create(&swapper, NULL, swap, NULL), 0);
	for (unsigned i = 0;
	     i < MAX_TRIES && (num_opened < ENOUGH || num_refused < ENOUGH);
	     i++) {
		uint8_t bytes[sizeof(camera)];
		struct ipc_answer answer;
		int fd = -1;

		if (open_it(&bed, &answer, &fd) < 0) {
			num_refused += strstr(answer.reason, "became") != NULL;
			continue;
		}
		num_opened++;
		assert_int_equal(pread(fd, bytes, sizeof(bytes), 0),
				 sizeof(bytes));
		assert_memory_equal(bytes, camera, sizeof(camera));
		(void)close(fd);
	}
	atomic_store(&is_swapping, false);
	assert_int_equal(pthread_join(swapper, NULL), 0);
	assert_true(num_opened >= ENOUGH && num_refused >= ENOUGH);
	tear_down(&bed);
}

/* ---- under umockdev-run ---- */

static const char machine[] = "P: " HUB_DIR "/3-1\n"
			      "N: bus/usb/003/017=00\n"
			      "E: DEVTYPE=usb_device\n"
			      "E: SUBSYSTEM=usb\n"
			      "A: devnum=17\\n\n"
			      "\n";

static int run_again(const char *self)
{
	char path[] = "/tmp/test_swap_machine.XXXXXX";
	int fd = mkstemp(path);

	if (fd < 0 || write(fd, machine, strlen(machine)) < 0)
		return 1;
	(void)close(fd);
	/* A sanitizer's runtime is not the first library then. */
	(void)setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 0);
	(void)setenv("TEST_SWAP_MACHINE", path, 1);
	(void)execlp("umockdev-run", "umockdev-run", "-d", path, "--", self,
		     (char *)NULL);
	perror("umockdev-run");
	return 1;
}

static int make_dir(void **state)
{
	const char *path = getenv("TEST_SWAP_MACHINE");

	(void)state;
	if (path)
		(void)unlink(path);
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char path[512];

	(void)state;
	path_in(path, dir, "/3-1.lock");
	(void)unlink(path);
	return rmdir(dir);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_device_is_given_by_its_classes_or_its_hash),
		cmocka_unit_test(what_the_opened_descriptor_shows_is_judged),
		cmocka_unit_test(
			a_device_is_given_as_long_as_the_configuration_gives_it),
		cmocka_unit_test(
			a_device_that_is_swapped_is_never_opened_as_another),
	};

	if (argc > 0 && !getenv("UMOCKDEV_DIR"))
		return run_again(argv[0]);
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
