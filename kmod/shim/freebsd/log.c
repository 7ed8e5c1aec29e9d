/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * log.c: the console and message buffer, panic(9), and loader tunables.
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/kernel.h>

#include "../host.h"
#include "shim.h"

void
host_log(enum host_log_level level, const char *msg, size_t len)
{
	static const char *const marks[] = {
		[HOST_LOG_INFO] = "",
		[HOST_LOG_WARN] = "warning: ",
		[HOST_LOG_ERR] = "error: ",
	};

	printf("vmm_rs: %s%.*s\n", marks[level], (int)len, msg);
}

void
host_panic(const char *msg, size_t len)
{
	panic("vmm_rs: %.*s", (int)len, msg);
}

int64_t
host_tunable(const char *name, int64_t dflt)
{
	char path[64];
	int64_t value;

	value = dflt;
	if (snprintf(path, sizeof(path), "hw.vmm.%s", name) <
	    (int)sizeof(path))
		TUNABLE_INT64_FETCH(path, &value);
	return (value);
}
