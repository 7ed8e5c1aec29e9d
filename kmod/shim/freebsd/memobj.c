/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * memobj.c: guest memory.  A memobj is a swap-backed vm_object, which is what
 * userland maps, and a directory of the pages that the core has asked for.
 * Those are wired until the core gives them back or the last hold on the memobj
 * goes, and count as wired by userland, as VM_MAP_WIRE_USER has them counted.
 * Userland's mappings hold the vm_object and not the memobj: their pages stay,
 * but may be paged.
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/domainset.h>
#include <sys/lock.h>
#include <sys/malloc.h>
#include <sys/refcount.h>
#include <sys/rwlock.h>
#include <sys/sx.h>
#include <sys/vmmeter.h>

#include <vm/vm.h>
#include <vm/vm_param.h>
#include <vm/vm_extern.h>
#include <vm/pmap.h>
#include <vm/vm_object.h>
#include <vm/vm_page.h>
#include <vm/vm_pageout.h>
#include <vm/vm_pager.h>

#include <machine/atomic.h>

#include "../host.h"
#include "shim.h"

#define	CHUNK_PAGES	(1UL << HOST_LARGE_ORDER)
#define	CHUNK_SIZE	(CHUNK_PAGES * PAGE_SIZE)
#define	CHUNK_LARGE	1UL	/* tag in a directory entry */

/*
 * One directory entry for each 2 MiB of the object: 0, or the first page of
 * a physically contiguous and aligned chunk that is wired as a whole, tagged
 * with CHUNK_LARGE, or a table of CHUNK_PAGES pages, NULL where there is none.
 * Entries are written under the lock and read without it; a table stays.
 */
struct host_memobj {
	vm_object_t	 object;
	uint64_t	 npages;
	volatile u_int	 refs;
	struct sx	 lock;		/* populating */
	uintptr_t	 dir[];
};

static int	numa_domainset(const struct host_numa *numa,
		    struct domainset **dsp);
static bool	page_find(struct host_memobj *obj, uint64_t pindex,
		    bool want_large, struct host_page *out);
static int	page_populate(struct host_memobj *obj, uint64_t pindex,
		    bool want_large, struct host_page *out);
static int	page_wire(struct host_memobj *obj, uint64_t pindex,
		    vm_page_t *mp, bool *fresh);
static bool	chunk_fill(struct host_memobj *obj, uint64_t first,
		    vm_page_t *table);
static u_long	chunk_unwire(struct host_memobj *obj, uint64_t chunk,
		    uint64_t first, uint64_t end);
static bool	user_wired_add(u_long npages);
static void	user_wired_sub(u_long npages);

int
host_memobj_create(uint64_t len, const struct host_numa *numa,
    struct host_memobj **objp)
{
	struct host_memobj *obj;
	struct domainset *ds;
	uint64_t entries;
	int error;

	if (len == 0 || len % PAGE_SIZE != 0)
		return (EINVAL);
	error = numa_domainset(numa, &ds);
	if (error != 0)
		return (error);
	/* malloc(M_WAITOK) would wait forever for what can't be had. */
	entries = howmany(len / PAGE_SIZE, CHUNK_PAGES);
	if (entries > ptoa((uint64_t)physmem) / 8 / sizeof(obj->dir[0]))
		return (ENOMEM);

	obj = malloc(sizeof(*obj) + entries * sizeof(obj->dir[0]), M_VMM_RS,
	    M_WAITOK | M_ZERO);
	obj->object = vm_object_allocate(OBJT_SWAP, len / PAGE_SIZE);
	if (ds != NULL)
		obj->object->domain.dr_policy = ds;
	obj->npages = len / PAGE_SIZE;
	refcount_init(&obj->refs, 1);
	sx_init(&obj->lock, "vmm_rs memobj");
	*objp = obj;
	return (0);
}

/* The policy of the answer is NULL for the default. */
static int
numa_domainset(const struct host_numa *numa, struct domainset **dsp)
{
#if __FreeBSD_version >= 1500000
	struct domainset ds;
	int error;
#endif

	*dsp = NULL;
	if (numa == NULL || numa->policy == DOMAINSET_POLICY_INVALID ||
	    numa->mask == NULL)
		return (0);
#if __FreeBSD_version >= 1500000
	if (numa->mask_size < sizeof(domainset_t) ||
	    numa->mask_size > DOMAINSET_MAXSIZE / NBBY)
		return (ERANGE);
	memset(&ds, 0, sizeof(ds));
	error = domainset_populate(&ds, (const domainset_t *)numa->mask,
	    numa->policy, numa->mask_size);
	if (error != 0)
		return (error);
	*dsp = domainset_create(&ds);
	if (*dsp == NULL || domainset_empty_vm(*dsp))
		return (EINVAL);
	return (0);
#else
	return (EOPNOTSUPP);
#endif
}

void
host_memobj_hold(struct host_memobj *obj)
{
	refcount_acquire(&obj->refs);
}

void
host_memobj_release(struct host_memobj *obj)
{
	uint64_t i;

	if (!refcount_release(&obj->refs))
		return;
	/*
	 * If nobody maps the object it dies here and leaves its wired pages
	 * behind, each of which is freed by being unwired.
	 */
	vm_object_deallocate(obj->object);
	host_memobj_unwire(obj, 0, obj->npages);
	for (i = 0; i < howmany(obj->npages, CHUNK_PAGES); i++)
		free((void *)obj->dir[i], M_VMM_RS);
	sx_destroy(&obj->lock);
	free(obj, M_VMM_RS);
}

bool
host_memobj_room(uint64_t npages)
{
	const u_long wired = atomic_load_long(&vm_user_wire_count);

	return (wired <= vm_page_max_user_wired &&
	    npages <= vm_page_max_user_wired - wired);
}

void
host_memobj_unwire(struct host_memobj *obj, uint64_t pindex, uint64_t npages)
{
	const uint64_t end = MIN(pindex + npages, obj->npages);
	uint64_t chunk, next;
	u_long unwired;

	unwired = 0;
	sx_xlock(&obj->lock);
	for (; pindex < end; pindex = next) {
		chunk = pindex / CHUNK_PAGES;
		next = MIN((chunk + 1) * CHUNK_PAGES, end);
		unwired += chunk_unwire(obj, chunk, pindex % CHUNK_PAGES,
		    next - chunk * CHUNK_PAGES);
	}
	sx_xunlock(&obj->lock);
	user_wired_sub(unwired);
}

/*
 * Unwires the pages from first to before end of one chunk and returns how many
 * were wired.  The chunk's other pages remain what they were.
 */
static u_long
chunk_unwire(struct host_memobj *obj, uint64_t chunk, uint64_t first,
    uint64_t end)
{
	const uintptr_t entry = obj->dir[chunk];
	vm_page_t m, *table;
	uint64_t i;
	u_long unwired;

	sx_assert(&obj->lock, SA_XLOCKED);
	if (entry == 0)
		return (0);
	table = (vm_page_t *)entry;
	if ((entry & CHUNK_LARGE) != 0) {
		m = (vm_page_t)(entry & ~CHUNK_LARGE);
		if (end - first == CHUNK_PAGES) {
			atomic_store_rel_ptr(&obj->dir[chunk], 0);
			for (i = 0; i < CHUNK_PAGES; i++)
				vm_page_unwire(m + i, PQ_ACTIVE);
			return (CHUNK_PAGES);
		}
		table = malloc(CHUNK_PAGES * sizeof(*table), M_VMM_RS,
		    M_WAITOK);
		for (i = 0; i < CHUNK_PAGES; i++)
			table[i] = m + i;
		atomic_store_rel_ptr(&obj->dir[chunk], (uintptr_t)table);
	}
	unwired = 0;
	for (i = first; i < end; i++) {
		if (table[i] == NULL)
			continue;
		vm_page_unwire(table[i], PQ_ACTIVE);
		table[i] = NULL;
		unwired++;
	}
	return (unwired);
}

struct vm_object *
shim_memobj_reference(struct host_memobj *obj)
{
	vm_object_reference(obj->object);
	return (obj->object);
}

int
host_memobj_page(struct host_memobj *obj, uint64_t pindex, bool want_large,
    struct host_page *out)
{
	int error;

	if (pindex >= obj->npages)
		return (EINVAL);
	if (page_find(obj, pindex, want_large, out))
		return (0);
	error = 0;
	sx_xlock(&obj->lock);
	if (!page_find(obj, pindex, want_large, out))
		error = page_populate(obj, pindex, want_large, out);
	sx_xunlock(&obj->lock);
	return (error);
}

/* Describes a page that is wired already. */
static bool
page_find(struct host_memobj *obj, uint64_t pindex, bool want_large,
    struct host_page *out)
{
	vm_page_t m, *table;
	uintptr_t entry;

	entry = atomic_load_acq_ptr(&obj->dir[pindex / CHUNK_PAGES]);
	if (entry == 0)
		return (false);
	out->order = 0;
	out->fresh = false;
	if ((entry & CHUNK_LARGE) != 0) {
		m = (vm_page_t)(entry & ~CHUNK_LARGE);
		if (want_large)
			out->order = HOST_LARGE_ORDER;
		else
			m += pindex % CHUNK_PAGES;
	} else {
		table = (vm_page_t *)entry;
		m = (vm_page_t)atomic_load_acq_ptr(
		    (uintptr_t *)&table[pindex % CHUNK_PAGES]);
		if (m == NULL)
			return (false);
	}
	out->hpa = VM_PAGE_TO_PHYS(m);
	return (true);
}

/*
 * Wires the page, and with it the rest of its 2 MiB when these turn out to be
 * one aligned piece of physical memory: the object's pages come from a
 * reservation (vm_reserv.c) whenever the host has one to give.
 */
static int
page_populate(struct host_memobj *obj, uint64_t pindex, bool want_large,
    struct host_page *out)
{
	const uint64_t chunk = pindex / CHUNK_PAGES;
	vm_page_t m, *table;
	bool fresh;
	int error;

	sx_assert(&obj->lock, SA_XLOCKED);
	error = page_wire(obj, pindex, &m, &fresh);
	if (error != 0)
		return (error);

	table = (vm_page_t *)obj->dir[chunk];
	if (table != NULL) {
		atomic_store_rel_ptr((uintptr_t *)&table[pindex % CHUNK_PAGES],
		    (uintptr_t)m);
	} else {
		table = malloc(CHUNK_PAGES * sizeof(*table), M_VMM_RS,
		    M_WAITOK | M_ZERO);
		table[pindex % CHUNK_PAGES] = m;
		if (want_large &&
		    chunk_fill(obj, chunk * CHUNK_PAGES, table)) {
			atomic_store_rel_ptr(&obj->dir[chunk],
			    (uintptr_t)table[0] | CHUNK_LARGE);
			free(table, M_VMM_RS);
		} else {
			atomic_store_rel_ptr(&obj->dir[chunk],
			    (uintptr_t)table);
		}
	}
	page_find(obj, pindex, want_large, out);
	out->fresh = fresh;
	return (0);
}

static int
page_wire(struct host_memobj *obj, uint64_t pindex, vm_page_t *mp, bool *fresh)
{
	int rv;

	if (!user_wired_add(1))
		return (ENOMEM);
	VM_OBJECT_WLOCK(obj->object);
	*fresh = vm_page_lookup(obj->object, pindex) == NULL;
	rv = vm_page_grab_valid(mp, obj->object, pindex,
	    VM_ALLOC_NORMAL | VM_ALLOC_WIRED | VM_ALLOC_NOBUSY);
	/* A guest writes without the pmap seeing it. */
	if (rv == VM_PAGER_OK)
		vm_page_dirty(*mp);
	VM_OBJECT_WUNLOCK(obj->object);

	if (rv != VM_PAGER_OK)
		user_wired_sub(1);
	switch (rv) {
	case VM_PAGER_OK:
		return (0);
	case VM_PAGER_AGAIN:
		return (ENOMEM);
	default:
		return (EIO);
	}
}

/*
 * Completes a table that has one page.  True if the whole chunk is resident
 * in one aligned piece; it stops at the first page that is elsewhere.
 */
static bool
chunk_fill(struct host_memobj *obj, uint64_t first, vm_page_t *table)
{
	vm_paddr_t base;
	uint64_t i;
	bool fresh;

	if (obj->npages - first < CHUNK_PAGES)
		return (false);
	for (i = 0; table[i] == NULL; i++)
		continue;
	base = VM_PAGE_TO_PHYS(table[i]) - ptoa(i);
	if (base % CHUNK_SIZE != 0)
		return (false);
	for (i = 0; i < CHUNK_PAGES; i++) {
		if (table[i] == NULL &&
		    page_wire(obj, first + i, &table[i], &fresh) != 0)
			return (false);
		if (VM_PAGE_TO_PHYS(table[i]) != base + ptoa(i))
			return (false);
	}
	return (true);
}

/* As vm_map.c counts for mlock(2); false at vm.max_user_wired. */
static bool
user_wired_add(u_long npages)
{
	u_long wired;

	wired = atomic_load_long(&vm_user_wire_count);
	do {
		if (npages + wired > vm_page_max_user_wired)
			return (false);
	} while (!atomic_fcmpset_long(&vm_user_wire_count, &wired,
	    npages + wired));
	return (true);
}

static void
user_wired_sub(u_long npages)
{
	atomic_subtract_long(&vm_user_wire_count, npages);
}
