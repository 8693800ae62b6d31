/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/wish_list.h"

#include <dirent.h>
#include <stdio.h>

#include "frontend/agent_config.h"
#include "vchan-transport/log.h"
#include "vchan-transport/state_file.h"

size_t wish_list(struct wish ret_wishes[static WISH_MAX])
{
	DIR *dir = opendir(wish_dir());
	const struct dirent *entry;
	size_t count = 0;

	if (!dir)
		return 0;
	while (count < WISH_MAX && (entry = readdir(dir))) {
		char path[STATE_PATH_BYTES];
		char why[AGENT_WHY_BYTES];

		/* What is just being written has another name. */
		if (!wish_is_name(entry->d_name))
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s", wish_dir(),
			       entry->d_name);
		if (agent_config_load_wish(path, &ret_wishes[count], why) == 0)
			count++;
		else
			log_warn("%s: is not kept attached: %s", path, why);
	}
	(void)closedir(dir);
	return count;
}
