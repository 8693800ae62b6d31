/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices as sysfs shows them, virtual ones, and who has claimed what. A
 * folder with the files of a device stands for sysfs.
 */
#include "gateway/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/claim.h"
#include "gateway/registry_usb.h"
#include "vchan-transport/loop.h"

static char dir[] = "/tmp/test_registry.XXXXXX";

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *where)
{
	(void)st;
	(void)type;
	(void)where;
	return remove(path);
}

static int remove_dir(void **state)
{
	(void)state;
	return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static const char *in_dir(const char *name)
{
	static char path[256];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void make_folder(const char *name)
{
	assert_true(mkdir(in_dir(name), 0755) == 0 || errno == EEXIST);
}

static void put(const char *name, const void *bytes, size_t num_bytes)
{
	int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
		      0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, num_bytes), num_bytes);
	(void)close(fd);
}

static void put_text(const char *name, const char *text)
{
	put(name, text, strlen(text));
}

static void assert_text(const char *name, const char *expected)
{
	char text[64];
	int fd = open(in_dir(name), O_RDONLY | O_CLOEXEC);
	ssize_t n;

	assert_true(fd >= 0);
	n = read(fd, text, sizeof(text) - 1);
	assert_true(n >= 0);
	text[n] = '\0';
	(void)close(fd);
	assert_string_equal(text, expected);
}

static bool exists(const char *name)
{
	return access(in_dir(name), F_OK) == 0;
}

/* ---- sysfs ---- */

/* A composite device: HID, and video with an alternate setting. */
static const uint8_t camera[] = {
	18, 1, 0, 2, 0xef, 2,  1,  64, 0x6d, 4, 0x2b, 0xc5, 1,  0x12,
	0,  0, 0, 1, 9,    2,  36, 0,  2,    1, 0,    0x80, 50, /* configuration 1 */
	9,  4, 0, 0, 0,    3,  1,  2,  0,                       /* HID */
	9,  4, 1, 0, 0,    14, 2,  0,  0,                       /* video */
	9,  4, 1, 1, 0,    14, 2,  0,  0, /* its alternate setting 1 */
};

static void put_camera(const char *folder)
{
	char name[64];
	static const struct {
		const char *name;
		const char *text;
	} files[] = {
		{ "busnum", "3\n" },     { "devnum", "17\n" },
		{ "speed", "480\n" },    { "bConfigurationValue", "1\n" },
		{ "serial", "AB 12\n" },
	};

	make_folder(folder);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		(void)snprintf(name, sizeof(name), "%s/%s", folder,
			       files[i].name);
		put_text(name, files[i].text);
	}
	(void)snprintf(name, sizeof(name), "%s/descriptors", folder);
	put(name, camera, sizeof(camera));
}

static void a_device_is_read_from_its_folder(void **state)
{
	struct registry_usb usb;

	(void)state;
	put_camera("3-1");
	assert_int_equal(registry_read_usb(in_dir("3-1"), "3-1", &usb), 0);

	assert_string_equal(usb.device.busid, "3-1");
	assert_string_equal(usb.device.path, in_dir("3-1"));
	assert_int_equal(usb.device.busnum, 3);
	assert_int_equal(usb.device.devnum, 17);
	assert_int_equal(usb.device.speed, USBIP_SPEED_HIGH);
	assert_int_equal(usb.device.vendor, 0x046d);
	assert_int_equal(usb.device.product, 0xc52b);
	assert_int_equal(usb.device.release, 0x1201);
	assert_int_equal(usb.device.class, 0xef);
	assert_int_equal(usb.device.configuration, 1);
	assert_int_equal(usb.device.num_configurations, 1);
	assert_int_equal(usb.policy.vendor, 0x046d);
	assert_string_equal(usb.policy.serial, "AB 12");
	assert_string_equal(usb.policy.busid, "3-1");
	assert_false(usb.policy.is_hub);
	assert_false(usb.policy.is_imported);
}

static void
an_interface_is_listed_once_whatever_its_alternate_settings(void **state)
{
	struct registry_usb usb;

	(void)state;
	put_camera("3-1");
	assert_int_equal(registry_read_usb(in_dir("3-1"), "3-1", &usb), 0);

	assert_int_equal(usb.device.num_interfaces, 2);
	assert_int_equal(usb.interfaces[0].class, 3);
	assert_int_equal(usb.interfaces[0].protocol, 2);
	assert_int_equal(usb.interfaces[1].class, 14);
}

static void every_speed_of_sysfs_becomes_its_number_on_the_wire(void **state)
{
	static const struct {
		const char *text;
		uint32_t speed;
	} speeds[] = {
		{ "1.5\n", USBIP_SPEED_LOW },
		{ "12\n", USBIP_SPEED_FULL },
		{ "480\n", USBIP_SPEED_HIGH },
		{ "5000\n", USBIP_SPEED_SUPER },
		{ "10000\n", USBIP_SPEED_SUPER_PLUS },
		{ "20000\n", USBIP_SPEED_SUPER_PLUS },
		{ "unknown\n", USBIP_SPEED_UNKNOWN },
	};
	struct registry_usb usb;

	(void)state;
	put_camera("3-1");
	for (size_t i = 0; i < sizeof(speeds) / sizeof(speeds[0]); i++) {
		put_text("3-1/speed", speeds[i].text);
		assert_int_equal(registry_read_usb(in_dir("3-1"), "3-1", &usb),
				 0);
		assert_int_equal(usb.device.speed, speeds[i].speed);
	}
}

static void a_device_below_vhci_is_known_as_imported(void **state)
{
	struct registry_usb usb;

	(void)state;
	make_folder("vhci_hcd.0");
	put_camera("vhci_hcd.0/9-1");
	assert_int_equal(
		registry_read_usb(in_dir("vhci_hcd.0/9-1"), "9-1", &usb), 0);
	assert_true(usb.policy.is_imported);
}

static void a_device_without_descriptors_is_an_error(void **state)
{
	struct registry_usb usb;

	(void)state;
	put_camera("3-2");
	put("3-2/descriptors", camera, 17);
	assert_int_equal(registry_read_usb(in_dir("3-2"), "3-2", &usb),
			 -EINVAL);
	assert_int_equal(registry_read_usb(in_dir("none"), "none", &usb),
			 -ENOENT);
}

/* ---- putting back ---- */

static void put_sysfs(void)
{
	make_folder("bus");
	make_folder("bus/usb");
	make_folder("bus/usb/devices");
	put_text("bus/usb/drivers_probe", "");
	put_camera("bus/usb/devices/3-1");
	make_folder("bus/usb/devices/3-1/3-1:1.0");
	make_folder("bus/usb/devices/3-1/3-1:1.0/driver");
}

static void a_configuration_that_differs_is_set_again(void **state)
{
	(void)state;
	put_sysfs();
	put_text("bus/usb/devices/3-1/bConfigurationValue", "2\n");
	assert_int_equal(claim_put_back(dir, "3-1", 17, 1), 1);
	assert_text("bus/usb/devices/3-1/bConfigurationValue", "1\n");

	assert_int_equal(claim_put_back(dir, "3-1", 17, 1), 0);
}

static void an_interface_without_driver_is_offered_to_the_drivers(void **state)
{
	(void)state;
	put_sysfs();
	make_folder("bus/usb/devices/3-1/3-1:1.1");
	/* No kernel here that would bind a driver: nothing changed. */
	assert_int_equal(claim_put_back(dir, "3-1", 17, 1), 0);
	assert_text("bus/usb/drivers_probe", "3-1:1.1");
	assert_int_equal(rmdir(in_dir("bus/usb/devices/3-1/3-1:1.1")), 0);
}

static void a_device_that_was_as_found_is_left_alone(void **state)
{
	(void)state;
	put_sysfs();
	assert_int_equal(claim_put_back(dir, "3-1", 17, 1), 0);
	assert_text("bus/usb/devices/3-1/bConfigurationValue", "1\n");
	assert_text("bus/usb/drivers_probe", "");
}

static void another_device_in_its_place_is_left_alone(void **state)
{
	(void)state;
	put_sysfs();
	put_text("bus/usb/devices/3-1/bConfigurationValue", "2\n");
	assert_int_equal(claim_put_back(dir, "3-1", 18, 1), 0);
	assert_text("bus/usb/devices/3-1/bConfigurationValue", "2\n");
	assert_int_equal(claim_put_back(dir, "9-9", 18, 1), 0);
}

/* ---- claims ---- */

static void a_claimed_device_is_busy_until_the_claim_is_closed(void **state)
{
	int first = -1;
	int second = -1;

	(void)state;
	assert_int_equal(claim_take(dir, "zero0", &first), 0);
	assert_int_equal(claim_take(dir, "zero0", &second), -EBUSY);
	assert_int_equal(claim_sweep(dir), 1);
	assert_true(exists("zero0.lock"));

	(void)close(first);
	assert_int_equal(claim_take(dir, "zero0", &second), 0);
	(void)close(second);
	assert_int_equal(claim_sweep(dir), 0);
	assert_false(exists("zero0.lock"));
}

static void a_claim_with_a_note_is_swept_by_a_child(void **state)
{
	int fd;

	(void)state;
	assert_int_equal(claim_take(dir, "99-9", &fd), 0);
	assert_int_equal(claim_note(fd, 5, 1), 0);
	(void)close(fd);

	assert_int_equal(claim_sweep(dir), 1);
	assert_true(waitpid(-1, NULL, 0) > 0);
	assert_false(exists("99-9.lock"));
	assert_int_equal(claim_sweep(dir), 0);
}

static void
a_note_about_the_same_device_stays_until_it_is_acted_on(void **state)
{
	int fd;

	(void)state;
	assert_int_equal(claim_take(dir, "99-8", &fd), 0);
	assert_int_equal(claim_note(fd, 5, 1), 0);
	assert_int_equal(claim_note(fd, 5, 2), 0);
	assert_text("99-8.lock", "5 1\n");
	assert_int_equal(claim_note(fd, 6, 2), 0);
	assert_text("99-8.lock", "6 2\n");

	claim_settle(fd);
	assert_text("99-8.lock", "6 2 settled\n");
	assert_int_equal(claim_note(fd, 6, 3), 0);
	assert_text("99-8.lock", "6 3\n");
	(void)unlink(in_dir("99-8.lock"));
	(void)close(fd);
}

static void a_directory_has_one_owner_and_no_other_writer(void **state)
{
	char owned[256];
	int first;
	int second;

	(void)state;
	(void)snprintf(owned, sizeof(owned), "%s", in_dir("owned"));
	assert_int_equal(claim_own_dir(owned, &first), 0);
	assert_int_equal(claim_own_dir(owned, &second), -EBUSY);
	(void)close(first);
	assert_int_equal(claim_own_dir(owned, &first), 0);
	(void)close(first);

	assert_int_equal(chmod(owned, 0777), 0);
	assert_int_equal(claim_own_dir(owned, &first), -EPERM);
	put_text("file", "");
	assert_int_equal(claim_own_dir(in_dir("file"), &first), -ENOTDIR);
}

/* ---- the registry ---- */

static const struct policy_peer local = { .kind = POLICY_PEER_ANYBODY };

struct seen {
	unsigned num;
	struct ipc_answer last;
};

static int on_device(void *arg, const struct ipc_answer *answer)
{
	struct seen *seen = arg;

	if (answer->kind == IPC_KIND_USB)
		return 0;
	seen->num++;
	seen->last = *answer;
	return 0;
}

static struct config *new_config(void)
{
	struct config *c = calloc(1, sizeof(*c));

	assert_non_null(c);
	(void)snprintf(c->runtime_dir, sizeof(c->runtime_dir), "%s", dir);
	c->num_virtuals = 2;
	c->virtuals[0] = (struct config_virtual){ .kind = IPC_KIND_DISK,
						  .busid = "stick",
						  .is_read_only = true };
	(void)snprintf(c->virtuals[0].image, sizeof(c->virtuals[0].image), "%s",
		       in_dir("image"));
	c->virtuals[1] = (struct config_virtual){ .kind = IPC_KIND_ZERO,
						  .busid = "zero0" };
	return c;
}

static void virtual_devices_are_listed_with_their_own_numbers(void **state)
{
	struct config *config = new_config();
	struct registry *registry;
	struct seen seen = { 0 };
	struct loop *loop;

	(void)state;
	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(registry_new(loop, config, &registry), 0);
	assert_int_equal(registry_list(registry, &local, on_device, &seen), 0);

	assert_int_equal(seen.num, 2);
	assert_string_equal(seen.last.device.busid, "zero0");
	assert_string_equal(seen.last.device.path, "/xusbip/zero0");
	assert_int_equal(seen.last.device.vendor, 0x0525);
	assert_int_equal(seen.last.device.product, 0xa4a0);
	assert_int_equal(seen.last.device.speed, USBIP_SPEED_HIGH);
	assert_true(usbip_devid(&seen.last.device) != 0);
	assert_true(seen.last.device.num_interfaces > 0);
	registry_free(registry);
	loop_free(loop);
	config_free(config);
}

static void a_device_is_handed_out_once_and_refusals_say_why(void **state)
{
	struct config *config = new_config();
	struct registry *registry;
	struct ipc_answer answer;
	struct loop *loop;
	int device = -1;
	int lock = -1;
	int none = -1;

	(void)state;
	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(registry_new(loop, config, &registry), 0);

	assert_int_equal(registry_open(registry, "stick", &local, &answer,
				       &none, &none),
			 -ENOENT);
	assert_int_equal(answer.type, IPC_REFUSED);
	assert_int_equal(answer.status, USBIP_ST_DEV_ERR);
	assert_string_equal(answer.reason,
			    "the image cannot be opened: No such "
			    "file or directory");
	put("image", dir, 1);
	assert_int_equal(registry_open(registry, "stick", &local, &answer,
				       &none, &none),
			 -EINVAL);
	assert_non_null(strstr(answer.reason, "512 bytes"));

	assert_int_equal(truncate(in_dir("image"), 512), 0);
	assert_int_equal(registry_open(registry, "stick", &local, &answer,
				       &device, &lock),
			 0);
	assert_int_equal(answer.type, IPC_OPENED);
	assert_int_equal(answer.kind, IPC_KIND_DISK);
	assert_true(answer.is_read_only);
	assert_string_equal(answer.serial, "stick");
	assert_int_equal(fcntl(device, F_GETFL) & O_ACCMODE, O_RDONLY);

	assert_int_equal(registry_open(registry, "stick", &local, &answer,
				       &none, &none),
			 -EBUSY);
	assert_int_equal(answer.status, USBIP_ST_DEV_BUSY);
	(void)close(lock);
	(void)close(device);
	assert_int_equal(none, -1);

	static const char *const absent[] = { "", "../image", "9-9.9", "usb1",
					      "nothing" };
	for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
		assert_true(registry_open(registry, absent[i], &local, &answer,
					  &none, &none) < 0);
		assert_int_equal(answer.status, USBIP_ST_NODEV);
	}
	registry_free(registry);
	loop_free(loop);
	config_free(config);
}

static void on_change(void *arg)
{
	++*(unsigned *)arg;
}

static void a_guest_sees_and_opens_only_what_is_given_to_it(void **state)
{
	const struct policy_peer u1 = { .kind = POLICY_PEER_DOMAIN,
					.name = "u1" };
	const struct policy_peer u2 = { .kind = POLICY_PEER_DOMAIN,
					.name = "u2" };
	struct config *config = new_config();
	struct registry *registry;
	struct ipc_answer answer;
	struct seen seen = { 0 };
	unsigned num_changes = 0;
	struct loop *loop;
	int lock = -1;
	int none = -1;

	(void)state;
	config->virtuals[1].to.domains.num = 1;
	(void)snprintf(config->virtuals[1].to.domains.names[0],
		       POLICY_NAME_BYTES, "%s", "u1");
	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(registry_new(loop, config, &registry), 0);
	registry_on_change(registry, on_change, &num_changes);

	assert_int_equal(registry_list(registry, &u1, on_device, &seen), 0);
	assert_int_equal(seen.num, 1);
	assert_string_equal(seen.last.device.busid, "zero0");
	seen.num = 0;
	assert_int_equal(registry_list(registry, &u2, on_device, &seen), 0);
	assert_int_equal(seen.num, 0);
	assert_int_equal(registry_list(registry, &local, on_device, &seen), 0);
	assert_int_equal(seen.num, 1);
	assert_string_equal(seen.last.device.busid, "stick");

	assert_int_equal(registry_open(registry, "zero0", &local, &answer,
				       &none, &none),
			 -EPERM);
	assert_int_equal(answer.status, USBIP_ST_NODEV);
	assert_int_equal(num_changes, 0);
	assert_int_equal(registry_open(registry, "zero0", &u1, &answer, &none,
				       &lock),
			 0);
	assert_int_equal(num_changes, 1);

	/* In use or not: who is not given it is told the same. */
	assert_int_equal(registry_open(registry, "zero0", &u2, &answer, &none,
				       &none),
			 -EPERM);
	assert_int_equal(answer.status, USBIP_ST_NODEV);
	assert_int_equal(registry_open(registry, "stick", &u2, &answer, &none,
				       &none),
			 -EPERM);
	assert_int_equal(answer.status, USBIP_ST_NODEV);
	(void)close(lock);
	registry_free(registry);
	loop_free(loop);
	config_free(config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_device_is_read_from_its_folder),
		cmocka_unit_test(
			an_interface_is_listed_once_whatever_its_alternate_settings),
		cmocka_unit_test(
			every_speed_of_sysfs_becomes_its_number_on_the_wire),
		cmocka_unit_test(a_device_below_vhci_is_known_as_imported),
		cmocka_unit_test(a_device_without_descriptors_is_an_error),
		cmocka_unit_test(a_configuration_that_differs_is_set_again),
		cmocka_unit_test(
			an_interface_without_driver_is_offered_to_the_drivers),
		cmocka_unit_test(a_device_that_was_as_found_is_left_alone),
		cmocka_unit_test(another_device_in_its_place_is_left_alone),
		cmocka_unit_test(
			a_claimed_device_is_busy_until_the_claim_is_closed),
		cmocka_unit_test(a_claim_with_a_note_is_swept_by_a_child),
		cmocka_unit_test(
			a_note_about_the_same_device_stays_until_it_is_acted_on),
		cmocka_unit_test(a_directory_has_one_owner_and_no_other_writer),
		cmocka_unit_test(
			virtual_devices_are_listed_with_their_own_numbers),
		cmocka_unit_test(
			a_guest_sees_and_opens_only_what_is_given_to_it),
		cmocka_unit_test(
			a_device_is_handed_out_once_and_refusals_say_why),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
