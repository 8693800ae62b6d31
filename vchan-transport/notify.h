/* SPDX-License-Identifier: Apache-2.0 */
/* notify.h - what a daemon tells the service manager that has started it. */
#ifndef NOTIFY_H
#define NOTIFY_H

/* It serves from now on. Says nothing where nobody asked. */
void notify_ready(void);

#endif
