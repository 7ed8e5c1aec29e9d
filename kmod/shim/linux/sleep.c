// SPDX-License-Identifier: BSD-2-Clause
/*
 * sleep.c: loading and unloading the core, which concerns every CPU that is
 * online at that moment, and telling it of CPUs that go offline and come
 * online later. When the machine sleeps all CPUs but one are taken offline;
 * the last one sleeps by its syscore operations.
 */
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/kernel.h>
#include <linux/syscore_ops.h>

#include "shim.h"

static int hotplug_state;

/* A CPU that the core can't use stays offline. */
static int came_online(unsigned int cpu)
{
	const uint64_t cookie = host_spin_enter();
	const int error = vmm_rs_cpu_resume();

	host_spin_exit(cookie);
	return shim_errno(error);
}

static int going_offline(unsigned int cpu)
{
	const uint64_t cookie = host_spin_enter();

	vmm_rs_cpu_suspend();
	host_spin_exit(cookie);
	return 0;
}

static int last_cpu_suspend(void)
{
	vmm_rs_cpu_suspend();
	return 0;
}

/* The core has said in the log why not, and refuses guests. */
static void last_cpu_resume(void)
{
	(void)vmm_rs_cpu_resume();
}

static struct syscore_ops sleep_ops = {
	.suspend = last_cpu_suspend,
	.resume = last_cpu_resume,
};

/* Nothing comes or goes between the core's look at the CPUs and the callback. */
int shim_core_load(void)
{
	int error;

	cpus_read_lock();
	error = shim_errno(vmm_rs_load());
	if (error)
		goto out;
	error = cpuhp_setup_state_nocalls_cpuslocked(CPUHP_AP_ONLINE_DYN,
						     "vmm_rs:online",
						     came_online, going_offline);
	if (error < 0) {
		vmm_rs_unload();
		goto out;
	}
	hotplug_state = error;
	error = 0;
	register_syscore_ops(&sleep_ops);
out:
	cpus_read_unlock();
	return error;
}

void shim_core_unload(void)
{
	cpus_read_lock();
	unregister_syscore_ops(&sleep_ops);
	cpuhp_remove_state_nocalls_cpuslocked(hotplug_state);
	WARN_ON(vmm_rs_unload());
	cpus_read_unlock();
}
