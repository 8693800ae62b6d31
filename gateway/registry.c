/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See registry.h. Nothing is cached: a list is read from sysfs when it is
 * asked for, which is a few small files for each device, so it cannot be out
 * of date.
 */
#include "gateway/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <libudev.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/claim.h"
#include "gateway/usb_device.h"
#include "vchan-transport/log.h"
#include "vchan-transport/loop.h"

/* The bus number that virtual devices show; no machine has that many. */
#define VIRTUAL_BUS  127

#define SECTOR_BYTES 512

struct registry {
	const struct config *config;
	struct udev *udev;
	struct udev_monitor *monitor;
	struct loop_watch *watch;
};

/* ---- reading a device ---- */

/* Reads from the beginning to the end: the length, or -errno. */
static ssize_t read_whole(int fd, void *to, size_t cap)
{
	size_t len = 0;
	ssize_t n;

	do {
		n = pread(fd, (char *)to + len, cap - len, (off_t)len);
		if (n > 0)
			len += (size_t)n;
	} while (n > 0 && len < cap);
	return n < 0 ? -errno : (ssize_t)len;
}

static ssize_t read_at(int dir_fd, const char *name, void *to, size_t cap)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read_whole(fd, to, cap);
	(void)close(fd);
	return n;
}

/* A text attribute without its newline; empty if there is none. */
static void read_text(int dir_fd, const char *name, char *to, size_t cap)
{
	ssize_t n = read_at(dir_fd, name, to, cap - 1);

	to[n > 0 ? n : 0] = '\0';
	to[strcspn(to, "\n")] = '\0';
}

static unsigned read_number(int dir_fd, const char *name)
{
	char text[32];

	read_text(dir_fd, name, text, sizeof(text));
	return (unsigned)strtoul(text, NULL, 10);
}

/* sysfs has megabits per second. */
static uint32_t read_speed(int dir_fd)
{
	char text[32];

	read_text(dir_fd, "speed", text, sizeof(text));
	if (strcmp(text, "1.5") == 0)
		return USBIP_SPEED_LOW;
	if (strcmp(text, "12") == 0)
		return USBIP_SPEED_FULL;
	if (strcmp(text, "480") == 0)
		return USBIP_SPEED_HIGH;
	if (strcmp(text, "5000") == 0)
		return USBIP_SPEED_SUPER;
	if (strcmp(text, "10000") == 0 || strcmp(text, "20000") == 0)
		return USBIP_SPEED_SUPER_PLUS;
	return USBIP_SPEED_UNKNOWN;
}

/* The record's fields that its descriptors tell. */
static void describe(struct usbip_device *device,
		     struct usbip_interface interfaces[USBIP_MAX_INTERFACES],
		     const struct descriptors *d)
{
	struct descriptor_interface i;
	size_t cursor = 0;

	device->vendor = d->vendor;
	device->product = d->product;
	device->release = d->release;
	device->class = d->class;
	device->subclass = d->subclass;
	device->protocol = d->protocol;
	device->num_configurations = d->num_configurations;
	device->num_interfaces = 0;
	while (device->num_interfaces < USBIP_MAX_INTERFACES &&
	       descriptors_next_interface(d, device->configuration, &cursor,
					  &i)) {
		if (i.alternate != 0)
			continue;
		interfaces[device->num_interfaces++] =
			(struct usbip_interface){ .class = i.class,
						  .subclass = i.subclass,
						  .protocol = i.protocol };
	}
}

/* From a "descriptors" file of sysfs or from usbfs: both give all of them. */
static int read_descriptors(struct registry_usb *usb, int fd)
{
	uint8_t *bytes = malloc(DESCRIPTORS_MAX_BYTES);
	struct descriptors d;
	ssize_t n;
	int r;

	if (!bytes)
		return -ENOMEM;
	n = read_whole(fd, bytes, DESCRIPTORS_MAX_BYTES);
	r = n < 0 ? (int)n : descriptors_parse(&d, bytes, (size_t)n);
	if (r == 0) {
		describe(&usb->device, usb->interfaces, &d);
		usb->policy.vendor = d.vendor;
		usb->policy.product = d.product;
		usb->policy.is_hub = policy_is_hub(&d);
	}
	free(bytes);
	return r;
}

int registry_read_usb(const char *syspath, const char *busid,
		      struct registry_usb *ret_usb)
{
	int dir_fd = open(syspath, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct registry_usb usb = { 0 };
	int fd;
	int r;

	if (dir_fd < 0)
		return -errno;
	(void)snprintf(usb.device.path, sizeof(usb.device.path), "%s", syspath);
	(void)snprintf(usb.device.busid, sizeof(usb.device.busid), "%s", busid);
	usb.device.busnum = read_number(dir_fd, "busnum");
	usb.device.devnum = read_number(dir_fd, "devnum");
	usb.device.speed = read_speed(dir_fd);
	usb.device.configuration =
		(uint8_t)read_number(dir_fd, "bConfigurationValue");
	memcpy(usb.policy.busid, usb.device.busid, sizeof(usb.policy.busid));
	read_text(dir_fd, "serial", usb.policy.serial,
		  sizeof(usb.policy.serial));
	usb.policy.is_imported = strstr(syspath, "/vhci_hcd") != NULL;
	fd = openat(dir_fd, "descriptors", O_RDONLY | O_CLOEXEC);
	r = fd < 0 ? -errno : read_descriptors(&usb, fd);
	if (fd >= 0)
		(void)close(fd);
	(void)close(dir_fd);
	if (r == 0)
		*ret_usb = usb;
	return r;
}

static enum policy_verdict judge(const struct registry *registry,
				 const struct registry_usb *usb)
{
	return policy_judge(registry->config->rules,
			    registry->config->num_rules, &usb->policy);
}

/* ---- virtual devices ---- */

static void describe_virtual(const struct config_virtual *v, size_t index,
			     struct ipc_answer *answer)
{
	bool is_disk = v->kind == IPC_KIND_DISK;
	const uint8_t *bytes;
	size_t num_bytes =
		is_disk ? usb_disk_descriptors(v->is_high_speed, &bytes)
			: usb_zero_descriptors(&bytes);
	bool is_super = is_disk && !v->is_high_speed;
	struct usbip_device *device = &answer->device;
	struct descriptors d;

	answer->kind = v->kind;
	answer->is_read_only = v->is_read_only;
	answer->is_high_speed = v->is_high_speed;
	(void)snprintf(answer->serial, sizeof(answer->serial), "%s", v->busid);
	(void)snprintf(device->path, sizeof(device->path), "/xusbip/%s",
		       v->busid);
	memcpy(device->busid, v->busid, sizeof(device->busid));
	device->busnum = VIRTUAL_BUS;
	device->devnum = (uint32_t)index + 1;
	device->speed = is_super ? USBIP_SPEED_SUPER : USBIP_SPEED_HIGH;
	if (descriptors_parse(&d, bytes, num_bytes) < 0)
		return;
	(void)descriptors_configuration(&d, 0, &device->configuration);
	describe(device, answer->interfaces, &d);
}

/* Opens the image, as the configuration says; 0 or -errno with a reason. */
static int open_image(const struct config_virtual *v, int *ret_fd,
		      const char **ret_why)
{
	/* O_NONBLOCK: a pipe in the image's place must not hold us up. */
	int fd = open(v->image, (v->is_read_only ? O_RDONLY : O_RDWR) |
					O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	*ret_why = "the image cannot be opened";
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 ||
	    (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))) {
		*ret_why = "the image is neither a file nor a block device";
		(void)close(fd);
		return -EINVAL;
	}
	if (lseek(fd, 0, SEEK_END) < SECTOR_BYTES ||
	    lseek(fd, 0, SEEK_SET) != 0) {
		*ret_why = "the image is smaller than one block of 512 bytes";
		(void)close(fd);
		return -EINVAL;
	}
	*ret_fd = fd;
	return 0;
}

/* ---- opening ---- */

static int refuse(struct ipc_answer *answer, enum usbip_status status,
		  int error, const char *why)
{
	answer->type = IPC_REFUSED;
	answer->status = status;
	(void)snprintf(answer->reason, sizeof(answer->reason), "%s", why);
	return error;
}

/* It is exported and free, but it does not work: `error` is the cause. */
static int refuse_broken(struct ipc_answer *answer, int error, const char *why)
{
	char text[sizeof(answer->reason)];

	(void)snprintf(text, sizeof(text), "%s: %s", why, strerror(-error));
	return refuse(answer, USBIP_ST_DEV_ERR, error, text);
}

static int take_lock(const struct registry *registry, const char *busid,
		     struct ipc_answer *answer, int *ret_lock_fd)
{
	int r = claim_take(registry->config->runtime_dir, busid, ret_lock_fd);

	if (r == -EBUSY)
		return refuse(answer, USBIP_ST_DEV_BUSY, r,
			      "a session has it already");
	if (r < 0)
		return refuse_broken(answer, r, "its lock file cannot be made");
	return 0;
}

static int open_virtual(struct registry *registry, size_t index,
			struct ipc_answer *answer, int *ret_device_fd,
			int *ret_lock_fd)
{
	const struct config_virtual *v = &registry->config->virtuals[index];
	const char *why;
	int lock_fd;
	int r;

	describe_virtual(v, index, answer);
	r = take_lock(registry, v->busid, answer, &lock_fd);
	if (r < 0)
		return r;
	*ret_device_fd = -1;
	if (v->kind == IPC_KIND_DISK) {
		r = open_image(v, ret_device_fd, &why);
		if (r < 0) {
			(void)close(lock_fd);
			return refuse_broken(answer, r, why);
		}
	}
	*ret_lock_fd = lock_fd;
	return 0;
}

/*
 * Opens the node and judges the device anew by what this very descriptor
 * shows, and by a sysfs that still has the device number of the node: what was
 * looked at before may have been unplugged and replaced.
 */
static int open_node(const struct registry *registry, struct registry_usb *usb,
		     struct ipc_answer *answer, int *ret_fd)
{
	uint32_t devnum = usb->device.devnum;
	char node[64];
	int fd;
	int r;

	(void)snprintf(node, sizeof(node), "/dev/bus/usb/%03u/%03u",
		       usb->device.busnum, usb->device.devnum);
	fd = open(node, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return refuse_broken(
			answer, -errno,
			"its node in /dev/bus/usb cannot be opened");
	r = registry_read_usb(usb->device.path, usb->device.busid, usb);
	if (r == 0 && usb->device.devnum != devnum)
		r = -ENODEV;
	if (r == 0)
		r = read_descriptors(usb, fd);
	if (r < 0) {
		(void)close(fd);
		return refuse_broken(answer, r,
				     "its descriptors cannot be read");
	}
	if (judge(registry, usb) != POLICY_EXPORTED) {
		(void)close(fd);
		return refuse(answer, USBIP_ST_NODEV, -EPERM,
			      "it became another device while it was opened");
	}
	*ret_fd = fd;
	return 0;
}

static int open_usb(struct registry *registry, struct registry_usb *usb,
		    struct ipc_answer *answer, int *ret_device_fd,
		    int *ret_lock_fd)
{
	enum policy_verdict verdict = judge(registry, usb);
	int lock_fd;
	int r;

	if (verdict != POLICY_EXPORTED)
		return refuse(answer, USBIP_ST_NODEV, -EPERM,
			      policy_verdict_sentence(verdict));
	r = take_lock(registry, usb->device.busid, answer, &lock_fd);
	if (r < 0)
		return r;
	r = open_node(registry, usb, answer, ret_device_fd);
	if (r == 0) {
		r = claim_note(lock_fd, usb->device.devnum,
			       usb->device.configuration);
		if (r < 0) {
			(void)close(*ret_device_fd);
			(void)refuse_broken(answer, r,
					    "its lock file cannot be written");
		}
	}
	if (r < 0) {
		(void)close(lock_fd);
		return r;
	}
	answer->kind = IPC_KIND_USB;
	answer->device = usb->device;
	memcpy(answer->interfaces, usb->interfaces, sizeof(usb->interfaces));
	*ret_lock_fd = lock_fd;
	return 0;
}

/* Finds a device of this machine by its bus id; 0 or -ENOENT. */
static int find_usb(struct registry *registry, const char *busid,
		    struct registry_usb *ret_usb)
{
	struct udev_device *device;
	const char *type;
	int r = -ENOENT;

	if (!policy_is_kernel_busid(busid))
		return -ENOENT;
	device = udev_device_new_from_subsystem_sysname(registry->udev, "usb",
							busid);
	if (!device)
		return -ENOENT;
	type = udev_device_get_devtype(device);
	if (type && strcmp(type, "usb_device") == 0 &&
	    registry_read_usb(udev_device_get_syspath(device), busid,
			      ret_usb) == 0)
		r = 0;
	(void)udev_device_unref(device);
	return r;
}

int registry_open(struct registry *registry, const char *busid,
		  struct ipc_answer *ret_answer, int *ret_device_fd,
		  int *ret_lock_fd)
{
	const struct config *config = registry->config;
	struct registry_usb usb = { 0 };

	*ret_answer = (struct ipc_answer){ .type = IPC_OPENED };
	for (size_t i = 0; i < config->num_virtuals; i++) {
		if (strcmp(config->virtuals[i].busid, busid) == 0)
			return open_virtual(registry, i, ret_answer,
					    ret_device_fd, ret_lock_fd);
	}
	if (find_usb(registry, busid, &usb) < 0)
		return refuse(ret_answer, USBIP_ST_NODEV, -ENOENT,
			      "there is no such device");
	return open_usb(registry, &usb, ret_answer, ret_device_fd, ret_lock_fd);
}

/* ---- listing ---- */

static int list_virtuals(const struct registry *registry, registry_cb *each,
			 void *arg)
{
	for (size_t i = 0; i < registry->config->num_virtuals; i++) {
		struct ipc_answer answer = { .type = IPC_DEVICE };
		int r;

		describe_virtual(&registry->config->virtuals[i], i, &answer);
		r = each(arg, &answer);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The name that the kernel gave: the last part of the path. */
static const char *busid_of(const char *syspath)
{
	const char *slash = strrchr(syspath, '/');

	return slash ? slash + 1 : syspath;
}

static int list_usb(const struct registry *registry, struct udev_enumerate *all,
		    registry_cb *each, void *arg)
{
	size_t room = USBIP_MAX_DEVICES - registry->config->num_virtuals;
	struct udev_list_entry *entry;

	udev_list_entry_foreach(entry, udev_enumerate_get_list_entry(all))
	{
		const char *syspath = udev_list_entry_get_name(entry);
		struct ipc_answer answer = { .type = IPC_DEVICE,
					     .kind = IPC_KIND_USB };
		struct registry_usb usb = { 0 };
		int r;

		if (registry_read_usb(syspath, busid_of(syspath), &usb) < 0 ||
		    judge(registry, &usb) != POLICY_EXPORTED)
			continue;
		if (room-- == 0)
			return 0;
		answer.device = usb.device;
		memcpy(answer.interfaces, usb.interfaces,
		       sizeof(usb.interfaces));
		r = each(arg, &answer);
		if (r < 0)
			return r;
	}
	return 0;
}

int registry_list(struct registry *registry, registry_cb *each, void *arg)
{
	struct udev_enumerate *all;
	int r = list_virtuals(registry, each, arg);

	if (r < 0)
		return r;
	all = udev_enumerate_new(registry->udev);
	if (!all)
		return -ENOMEM;
	r = udev_enumerate_add_match_subsystem(all, "usb");
	if (r >= 0)
		r = udev_enumerate_add_match_property(all, "DEVTYPE",
						      "usb_device");
	if (r >= 0)
		r = udev_enumerate_scan_devices(all);
	if (r >= 0)
		r = list_usb(registry, all, each, arg);
	(void)udev_enumerate_unref(all);
	return r;
}

/* ---- plugging in and out ---- */

static void on_plugged(const struct registry *registry, const char *syspath)
{
	const char *busid = busid_of(syspath);
	enum policy_verdict verdict;
	struct registry_usb usb = { 0 };
	int r = registry_read_usb(syspath, busid, &usb);

	if (r < 0) {
		log_debug("device %s: plugged in, but it cannot be read: %s",
			  busid, strerror(-r));
		return;
	}
	verdict = judge(registry, &usb);
	if (verdict == POLICY_EXPORTED)
		log_info("device %s (%04x:%04x): plugged in: exported", busid,
			 usb.device.vendor, usb.device.product);
	else
		log_debug("device %s (%04x:%04x): plugged in: %s", busid,
			  usb.device.vendor, usb.device.product,
			  policy_verdict_sentence(verdict));
}

static void on_udev(void *arg, short revents)
{
	const struct registry *registry = arg;
	struct udev_device *device;

	(void)revents;
	while ((device = udev_monitor_receive_device(registry->monitor))) {
		const char *action = udev_device_get_action(device);
		const char *syspath = udev_device_get_syspath(device);

		if (action && syspath && strcmp(action, "add") == 0)
			on_plugged(registry, syspath);
		else if (action && syspath && strcmp(action, "remove") == 0)
			log_info("device %s: unplugged", busid_of(syspath));
		(void)udev_device_unref(device);
	}
}

/* Without udevd only the kernel tells; its "udev" group would stay silent. */
static int start_monitor(struct registry *registry, struct loop *loop)
{
	bool has_udevd = access("/run/udev/control", F_OK) == 0;
	int r;

	registry->monitor = udev_monitor_new_from_netlink(
		registry->udev, has_udevd ? "udev" : "kernel");
	if (!registry->monitor)
		return -errno;
	r = udev_monitor_filter_add_match_subsystem_devtype(
		registry->monitor, "usb", "usb_device");
	if (r >= 0)
		r = udev_monitor_enable_receiving(registry->monitor);
	if (r >= 0)
		r = loop_watch_fd(loop, udev_monitor_get_fd(registry->monitor),
				  POLLIN, on_udev, registry, &registry->watch);
	return r;
}

/* ---- life ---- */

int registry_new(struct loop *loop, const struct config *config,
		 struct registry **ret_registry)
{
	struct registry *registry = calloc(1, sizeof(*registry));
	int r;

	if (!registry)
		return -ENOMEM;
	registry->config = config;
	registry->udev = udev_new();
	if (!registry->udev) {
		registry_free(registry);
		return -ENOMEM;
	}
	r = start_monitor(registry, loop);
	if (r < 0)
		log_warn("udev: plugging in and out will not be logged: %s",
			 strerror(-r));
	*ret_registry = registry;
	return 0;
}

void registry_free(struct registry *registry)
{
	if (!registry)
		return;
	loop_watch_stop(registry->watch);
	(void)udev_monitor_unref(registry->monitor);
	(void)udev_unref(registry->udev);
	free(registry);
}

void registry_set_config(struct registry *registry, const struct config *config)
{
	registry->config = config;
}
