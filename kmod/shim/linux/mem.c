// SPDX-License-Identifier: BSD-2-Clause
/*
 * mem.c: kernel memory, all of it charged to the process that asks.
 */
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/llist.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/preempt.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

#include "shim.h"

/*
 * vfree() must be able to sleep: what is freed where one can't goes on a list
 * made of the freed memory itself.
 */
static LLIST_HEAD(put_off_list);

static void put_off_free(struct work_struct *work)
{
	struct llist_node *node, *next;

	llist_for_each_safe(node, next, llist_del_all(&put_off_list))
		vfree(node);
}
static DECLARE_WORK(put_off_work, put_off_free);

/*
 * The kernel's allocators align what has the size of a power of two to that
 * size, up to a page, and everything above a page to pages.
 */
void *host_alloc(size_t size, size_t align)
{
	if (size < PAGE_SIZE)
		size = roundup_pow_of_two(max(size, align));
	return kvzalloc(size, GFP_KERNEL_ACCOUNT);
}

void host_free(void *p, size_t size, size_t align)
{
	if (is_vmalloc_addr(p) && !preemptible()) {
		llist_add(p, &put_off_list);
		schedule_work(&put_off_work);
	} else {
		kvfree(p);
	}
}

void shim_mem_drain(void)
{
	flush_work(&put_off_work);
}

void *host_pages_alloc(uint32_t npages, uint64_t *hpa)
{
	void *va;

	va = alloc_pages_exact((size_t)npages << PAGE_SHIFT,
			       GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (va)
		*hpa = virt_to_phys(va);
	return va;
}

void host_pages_free(void *va, uint32_t npages)
{
	free_pages_exact(va, (size_t)npages << PAGE_SHIFT);
}

void *host_phys_to_virt(uint64_t hpa)
{
	return phys_to_virt(hpa);
}
