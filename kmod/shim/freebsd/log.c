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

/* All levels go to the console, which is where kldload's user looks. */
void
host_log(enum host_log_level level __unused, const char *msg, size_t len)
{
	printf("vmm_rs: %.*s\n", (int)len, msg);
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
