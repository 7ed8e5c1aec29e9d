// SPDX-License-Identifier: BSD-2-Clause
/*
 * log.c: the kernel log and panic.
 */
#include <linux/kernel.h>
#include <linux/panic.h>
#include <linux/printk.h>

#include "shim.h"

void host_log(enum host_log_level level, const char *msg, size_t len)
{
	switch (level) {
	case HOST_LOG_INFO:
		pr_info("vmm_rs: %.*s\n", (int)len, msg);
		break;
	case HOST_LOG_WARN:
		pr_warn("vmm_rs: %.*s\n", (int)len, msg);
		break;
	case HOST_LOG_ERR:
		pr_err("vmm_rs: %.*s\n", (int)len, msg);
		break;
	}
}

void host_panic(const char *msg, size_t len)
{
	panic("vmm_rs: %.*s", (int)len, msg);
}
