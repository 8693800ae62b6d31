/* SPDX-License-Identifier: Apache-2.0 */
/*
 * claim.h - who uses a device, and how it goes back.
 *
 * A device is claimed while the process lives that was given it, whichever
 * manager looks. That process is named in a file that it cannot write to
 * (session_note.h). A device is claimed, too, while somebody has flock(2) on
 * DIR/BUSID.lock: the manager that opens it, the child that puts it back. The
 * session has a copy of that descriptor, to say how it leaves the device; that
 * it unlocks or closes it frees nothing, since it may still have the device.
 *
 * The lock file says how the device was found; the session can write to it, so
 * it says nothing of processes. Where nobody claims the device any more its
 * session has ended, and the sweep puts it back: after an orderly end there is
 * nothing left to do.
 */
#ifndef CLAIM_H
#define CLAIM_H

/*
 * Makes the directory if it is missing and keeps other managers out of it for
 * as long as the descriptor is open: -EBUSY if one is in it, -EPERM if somebody
 * else could write to it.
 */
int claim_own_dir(const char *dir, int *ret_fd);

/*
 * Claims: 0 with a descriptor, the caller's, that is the claim; -EBUSY if
 * somebody has it, or none can tell; -errno. `busid` is a name of ours or of the
 * kernel's, never a peer's text.
 */
int claim_take(const char *dir, const char *busid, int *ret_fd);

/*
 * Notes how a device of this machine was found. A note about the same device
 * (devnum) that no sweep has acted on stays: it is older and truer.
 */
int claim_note(int fd, unsigned devnum, unsigned configuration);

/*
 * Notes that the session ends in order: the device is as it was found and needs
 * no reset. Works in the sandbox.
 */
void claim_settle(int fd);

/*
 * Removes the files whose claims have ended. A device of this machine is put
 * back first, by a child process that holds the claim meanwhile, since the
 * kernel may take its time; it is reset before if its session was killed.
 * Returns how many claims are held, by sessions or such children.
 */
unsigned claim_sweep(const char *dir);

/*
 * Puts a device back as it was found: its configuration, and a driver for each
 * interface without one that the kernel has one for. Does nothing if the
 * device is gone or another one is in its place. `sysfs` is "/sys". Returns
 * how many things it changed, or -errno.
 */
int claim_put_back(const char *sysfs, const char *busid, unsigned devnum,
		   unsigned configuration);

#endif
