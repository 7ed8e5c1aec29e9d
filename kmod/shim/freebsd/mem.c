/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * mem.c: kernel memory.  The heap is malloc(9); physically contiguous pages
 * come from the page allocator and are used through the direct map, so that
 * host_phys_to_virt() finds them again.
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/kernel.h>
#include <sys/malloc.h>
#include <sys/proc.h>
#include <sys/taskqueue.h>

#include <vm/vm.h>
#include <vm/vm_param.h>
#include <vm/vm_page.h>
#include <vm/pmap.h>

#include <machine/atomic.h>
#include <machine/vmparam.h>

#include "../host.h"
#include "shim.h"

MALLOC_DEFINE(M_VMM_RS, "vmm_rs", "vmm_rs virtual machine monitor");

/*
 * free(9) is not for critical sections: what is freed in one goes on a list
 * that is made of the freed memory itself, and a task frees it.
 */
struct put_off {
	struct put_off	*next;
};

static uintptr_t put_off_list;

static void	put_off_free(void *arg, int pending);
static struct task put_off_task = TASK_INITIALIZER(0, put_off_free, NULL);

void *
host_alloc(size_t size, size_t align)
{
	size = MAX(size, sizeof(struct put_off));
	/* malloc_aligned(9) rounds sizes up to a power of two. */
	if (align <= sizeof(void *))
		return (malloc(size, M_VMM_RS, M_WAITOK | M_ZERO));
	return (malloc_aligned(size, align, M_VMM_RS, M_WAITOK | M_ZERO));
}

void
host_free(void *p, size_t size __unused, size_t align __unused)
{
	struct put_off *item;
	uintptr_t head;

	if (curthread->td_critnest == 0) {
		free(p, M_VMM_RS);
		return;
	}
	item = p;
	head = atomic_load_ptr(&put_off_list);
	do {
		item->next = (struct put_off *)head;
	} while (!atomic_fcmpset_rel_ptr(&put_off_list, &head,
	    (uintptr_t)item));
	taskqueue_enqueue(taskqueue_fast, &put_off_task);
}

static void
put_off_free(void *arg __unused, int pending __unused)
{
	struct put_off *item, *next;

	item = (struct put_off *)atomic_swap_ptr(&put_off_list, 0);
	for (; item != NULL; item = next) {
		next = item->next;
		free(item, M_VMM_RS);
	}
}

void
shim_mem_drain(void)
{
	taskqueue_drain(taskqueue_fast, &put_off_task);
}

void *
host_pages_alloc(uint32_t npages, uint64_t *hpa)
{
	const int req = VM_ALLOC_NORMAL | VM_ALLOC_WIRED | VM_ALLOC_ZERO;
	vm_page_t m;

	if (npages == 1)
		m = vm_page_alloc_noobj(req | VM_ALLOC_WAITOK);
	else
		m = vm_page_alloc_noobj_contig(req, npages, 0, ~(vm_paddr_t)0,
		    PAGE_SIZE, 0, VM_MEMATTR_DEFAULT);
	if (m == NULL)
		return (NULL);
	*hpa = VM_PAGE_TO_PHYS(m);
	return ((void *)PHYS_TO_DMAP(*hpa));
}

void
host_pages_free(void *va, uint32_t npages)
{
	vm_page_t m;
	uint32_t i;

	m = PHYS_TO_VM_PAGE(DMAP_TO_PHYS((vm_offset_t)va));
	for (i = 0; i < npages; i++) {
		vm_page_unwire_noq(m + i);
		vm_page_free(m + i);
	}
}

void *
host_phys_to_virt(uint64_t hpa)
{
	return ((void *)PHYS_TO_DMAP(hpa));
}
