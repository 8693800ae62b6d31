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
#include "gateway/registry_usb.h"
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
	registry_change_cb *on_change; /* NULL: nobody asked */
	void *change_arg;
};

/* ---- judging ---- */

static struct policy_verdict judge(const struct registry *registry,
				   const struct registry_usb *usb,
				   const struct policy_peer *peer)
{
	return policy_judge(registry->config->rules,
			    registry->config->num_rules, &usb->policy, peer);
}

static void tell_change(const struct registry *registry)
{
	if (registry->on_change)
		registry->on_change(registry->change_arg);
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
	registry_describe(device, answer->interfaces, &d);
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
		     const struct policy_peer *peer, struct ipc_answer *answer,
		     int *ret_fd)
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
		r = registry_read_descriptors(usb, fd);
	if (r < 0) {
		(void)close(fd);
		return refuse_broken(answer, r,
				     "its descriptors cannot be read");
	}
	if (judge(registry, usb, peer).outcome != POLICY_EXPORTED) {
		(void)close(fd);
		return refuse(answer, USBIP_ST_NODEV, -EPERM,
			      "it became another device while it was opened");
	}
	*ret_fd = fd;
	return 0;
}

static int open_usb(struct registry *registry, struct registry_usb *usb,
		    const struct policy_peer *peer, struct ipc_answer *answer,
		    int *ret_device_fd, int *ret_lock_fd)
{
	struct policy_verdict verdict = judge(registry, usb, peer);
	char why[POLICY_SENTENCE_BYTES];
	int lock_fd;
	int r;

	policy_verdict_sentence(&verdict, why);
	if (verdict.outcome != POLICY_EXPORTED)
		return refuse(answer, USBIP_ST_NODEV, -EPERM, why);
	r = take_lock(registry, usb->device.busid, answer, &lock_fd);
	if (r < 0)
		return r;
	r = open_node(registry, usb, peer, answer, ret_device_fd);
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
	log_debug("device %s: %s", usb->device.busid, why);
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

/* The virtual device of this bus id; -1 if there is none. */
static int find_virtual(const struct config *config, const char *busid)
{
	for (size_t i = 0; i < config->num_virtuals; i++) {
		if (strcmp(config->virtuals[i].busid, busid) == 0)
			return (int)i;
	}
	return -1;
}

int registry_open(struct registry *registry, const char *busid,
		  const struct policy_peer *peer, struct ipc_answer *ret_answer,
		  int *ret_device_fd, int *ret_lock_fd)
{
	const struct config *config = registry->config;
	struct registry_usb usb = { 0 };
	int i = find_virtual(config, busid);
	int r;

	*ret_answer = (struct ipc_answer){ .type = IPC_OPENED };
	if (i >= 0 && !policy_is_given_to(&config->virtuals[i].to, peer))
		return refuse(ret_answer, USBIP_ST_NODEV, -EPERM,
			      "its section does not give it to this peer");
	if (i >= 0)
		r = open_virtual(registry, (size_t)i, ret_answer, ret_device_fd,
				 ret_lock_fd);
	else if (find_usb(registry, busid, &usb) == 0)
		r = open_usb(registry, &usb, peer, ret_answer, ret_device_fd,
			     ret_lock_fd);
	else
		return refuse(ret_answer, USBIP_ST_NODEV, -ENOENT,
			      "there is no such device");
	if (r == 0)
		tell_change(registry);
	return r;
}

/* ---- what rules say of one device ---- */

bool registry_is_given(struct registry *registry, const char *busid,
		       const struct policy_peer *peer)
{
	const struct config *config = registry->config;
	struct registry_usb usb = { 0 };
	int i = find_virtual(config, busid);

	if (i >= 0)
		return policy_is_given_to(&config->virtuals[i].to, peer);
	/* A virtual one without a section, or one of another gateway. */
	if (!policy_is_kernel_busid(busid))
		return strchr(busid, '@') != NULL;
	return find_usb(registry, busid, &usb) < 0 ||
	       judge(registry, &usb, peer).outcome == POLICY_EXPORTED;
}

int registry_find(struct registry *registry, const char *busid,
		  struct policy_device *ret_device)
{
	struct registry_usb usb = { 0 };
	int r = find_usb(registry, busid, &usb);

	if (r == 0)
		*ret_device = usb.policy;
	return r;
}

/* ---- listing ---- */

static int list_virtuals(const struct registry *registry,
			 const struct policy_peer *peer, registry_cb *each,
			 void *arg)
{
	const struct config *config = registry->config;

	for (size_t i = 0; i < config->num_virtuals; i++) {
		struct ipc_answer answer = { .type = IPC_DEVICE };
		int r;

		if (!policy_is_given_to(&config->virtuals[i].to, peer))
			continue;
		describe_virtual(&config->virtuals[i], i, &answer);
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
		    const struct policy_peer *peer, registry_cb *each,
		    void *arg)
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
		    judge(registry, &usb, peer).outcome != POLICY_EXPORTED)
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

int registry_list(struct registry *registry, const struct policy_peer *peer,
		  registry_cb *each, void *arg)
{
	struct udev_enumerate *all;
	int r = list_virtuals(registry, peer, each, arg);

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
		r = list_usb(registry, all, peer, each, arg);
	(void)udev_enumerate_unref(all);
	return r;
}

/* ---- plugging in and out ---- */

static void on_plugged(const struct registry *registry, const char *syspath)
{
	const char *busid = busid_of(syspath);
	char sentence[POLICY_SENTENCE_BYTES];
	struct policy_verdict verdict;
	struct registry_usb usb = { 0 };
	int r = registry_read_usb(syspath, busid, &usb);

	if (r < 0) {
		log_debug("device %s: plugged in, but it cannot be read: %s",
			  busid, strerror(-r));
		return;
	}
	verdict = judge(registry, &usb, NULL);
	policy_verdict_sentence(&verdict, sentence);
	if (verdict.outcome == POLICY_EXPORTED)
		log_info("device %s (%04x:%04x): plugged in: %s", busid,
			 usb.device.vendor, usb.device.product, sentence);
	else
		log_debug("device %s (%04x:%04x): plugged in: %s", busid,
			  usb.device.vendor, usb.device.product, sentence);
}

static void on_udev(void *arg, short revents)
{
	const struct registry *registry = arg;
	struct udev_device *device;
	bool has_changed = false;

	(void)revents;
	while ((device = udev_monitor_receive_device(registry->monitor))) {
		const char *action = udev_device_get_action(device);
		const char *syspath = udev_device_get_syspath(device);

		has_changed = true;
		if (action && syspath && strcmp(action, "add") == 0)
			on_plugged(registry, syspath);
		else if (action && syspath && strcmp(action, "remove") == 0)
			log_info("device %s: unplugged", busid_of(syspath));
		(void)udev_device_unref(device);
	}
	if (has_changed)
		tell_change(registry);
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
	r = loop ? start_monitor(registry, loop) : 0;
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

void registry_on_change(struct registry *registry,
			registry_change_cb *on_change, void *arg)
{
	registry->on_change = on_change;
	registry->change_arg = arg;
}
