// SPDX-License-Identifier: BSD-2-Clause
/*
 * memobj.c: guest memory. A memobj is an xarray of zeroed pages by their
 * number in the object, where a 2 MiB compound page takes 512 slots as one
 * entry. Pages stay until the object dies; a mapping in userland holds it.
 */
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/nodemask.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/topology.h>
#include <linux/xarray.h>

#include "shim.h"

#define CHUNK_PAGES	(1UL << HOST_LARGE_ORDER)

/* The pages of all objects, and how many they may have; 0: 4/5 of memory. */
static atomic_long_t guest_pages = ATOMIC_LONG_INIT(0);
static ulong max_guest_pages;
module_param(max_guest_pages, ulong, 0644);
MODULE_PARM_DESC(max_guest_pages, "pages that all guests may have together");

/* sys/domainset.h of FreeBSD: its policies, and the sizes a mask may have. */
enum domainset_policy {
	POLICY_INVALID,		/* none given */
	POLICY_ROUNDROBIN,
	POLICY_FIRSTTOUCH,
	POLICY_PREFER,
	POLICY_INTERLEAVE,
};
#define MASK_SIZE_MIN	8
#define MASK_SIZE_MAX	32

struct host_memobj {
	refcount_t refs;
	u64 npages;
	struct xarray pages;
	struct mutex lock;	/* populating */
	enum domainset_policy policy;
	nodemask_t nodes;
	unsigned int turn;	/* POLICY_ROUNDROBIN, under lock */
};

static int numa_policy(struct host_memobj *obj, const struct host_numa *numa)
{
	size_t bit;

	if (!numa || numa->policy == POLICY_INVALID || !numa->mask)
		return 0;
	if (numa->mask_size < MASK_SIZE_MIN || numa->mask_size > MASK_SIZE_MAX)
		return HOST_ERANGE;
	if (numa->policy < 0 || numa->policy > POLICY_INTERLEAVE)
		return HOST_EINVAL;
	for (bit = 0; bit < numa->mask_size * 8; bit++) {
		if (!(numa->mask[bit / 8] & (1 << bit % 8)))
			continue;
		if (bit >= MAX_NUMNODES || !node_state(bit, N_MEMORY))
			return HOST_EINVAL;
		node_set(bit, obj->nodes);
	}
	if (nodes_empty(obj->nodes))
		return HOST_EDEADLK;
	if (numa->policy == POLICY_PREFER && nodes_weight(obj->nodes) != 1)
		return HOST_EINVAL;
	obj->policy = numa->policy;
	return 0;
}

int host_memobj_create(uint64_t len, const struct host_numa *numa,
		       struct host_memobj **objp)
{
	struct host_memobj *obj;
	int error;

	if (!len || len % PAGE_SIZE)
		return HOST_EINVAL;
	obj = kzalloc(sizeof(*obj), GFP_KERNEL_ACCOUNT);
	if (!obj)
		return HOST_ENOMEM;
	error = numa_policy(obj, numa);
	if (error) {
		kfree(obj);
		return error;
	}
	refcount_set(&obj->refs, 1);
	obj->npages = len / PAGE_SIZE;
	xa_init_flags(&obj->pages, XA_FLAGS_ACCOUNT);
	mutex_init(&obj->lock);
	*objp = obj;
	return 0;
}

void host_memobj_hold(struct host_memobj *obj)
{
	refcount_inc(&obj->refs);
}

/* A mapping that is just being made may still have it. */
static void page_free(struct page *page, unsigned int order)
{
	put_page(page);
	atomic_long_sub(1L << order, &guest_pages);
}

/* Linux has no pager for these pages: they stay. */
void host_memobj_unwire(struct host_memobj *obj, uint64_t pindex,
			uint64_t npages)
{
}

void host_memobj_release(struct host_memobj *obj)
{
	struct page *page;
	unsigned long index;

	if (!refcount_dec_and_test(&obj->refs))
		return;
	xa_for_each(&obj->pages, index, page) {
		page_free(page, compound_order(page));
		cond_resched();
	}
	xa_destroy(&obj->pages);
	mutex_destroy(&obj->lock);
	kfree(obj);
}

static long guest_limit(void)
{
	return READ_ONCE(max_guest_pages) ?: totalram_pages() / 5 * 4;
}

bool host_memobj_room(uint64_t npages)
{
	const long room = guest_limit() - atomic_long_read(&guest_pages);

	return room > 0 && npages <= room;
}

static struct page *page_alloc(struct host_memobj *obj, u64 pindex,
			       unsigned int order, gfp_t gfp)
{
	struct page *page;
	nodemask_t *nodes = &obj->nodes;
	int node = numa_mem_id();
	unsigned int skip;

	switch (obj->policy) {
	case POLICY_INVALID:
		nodes = NULL;
		break;
	case POLICY_FIRSTTOUCH:
		break;
	case POLICY_PREFER:
		node = first_node(obj->nodes);
		nodes = NULL;
		break;
	case POLICY_ROUNDROBIN:
	case POLICY_INTERLEAVE:
		skip = obj->policy == POLICY_ROUNDROBIN ?
			obj->turn++ : pindex / CHUNK_PAGES;
		node = first_node(obj->nodes);
		for (skip %= nodes_weight(obj->nodes); skip; skip--)
			node = next_node(node, obj->nodes);
		break;
	}
	if (atomic_long_add_return(1L << order, &guest_pages) > guest_limit())
		page = NULL;
	else
		page = __alloc_pages(GFP_KERNEL_ACCOUNT | __GFP_ZERO | gfp,
				     order, node, nodes);
	if (!page)
		atomic_long_sub(1L << order, &guest_pages);
	return page;
}

static int page_store(struct host_memobj *obj, u64 pindex, unsigned int order,
		      struct page *page)
{
	XA_STATE_ORDER(xas, &obj->pages, pindex, order);

	do {
		xas_lock(&xas);
		xas_store(&xas, page);
		xas_unlock(&xas);
	} while (xas_nomem(&xas, GFP_KERNEL_ACCOUNT));
	return xas_error(&xas);
}

/* The 2 MiB around pindex as one page, if nothing in it is resident yet. */
static struct page *populate_large(struct host_memobj *obj, u64 pindex)
{
	const u64 first = round_down(pindex, CHUNK_PAGES);
	unsigned long index = first;
	struct page *page;

	if (obj->npages - first < CHUNK_PAGES)
		return NULL;
	if (xa_find(&obj->pages, &index, first + CHUNK_PAGES - 1, XA_PRESENT))
		return NULL;
	page = page_alloc(obj, pindex, HOST_LARGE_ORDER,
			  __GFP_COMP | __GFP_NORETRY | __GFP_NOWARN);
	if (!page)
		return NULL;
	if (page_store(obj, first, HOST_LARGE_ORDER, page)) {
		page_free(page, HOST_LARGE_ORDER);
		return NULL;
	}
	return page;
}

static struct page *populate_small(struct host_memobj *obj, u64 pindex)
{
	struct page *page;

	/* Killing processes would not bring back what VMs hold: fail instead. */
	page = page_alloc(obj, pindex, 0, __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	if (!page)
		return NULL;
	if (page_store(obj, pindex, 0, page)) {
		page_free(page, 0);
		return NULL;
	}
	return page;
}

/* The resident page that has pindex in it: a small one, or a large one's head. */
static struct page *page_resident(struct host_memobj *obj, u64 pindex,
				  bool want_large, bool *fresh)
{
	struct page *page;

	*fresh = false;
	page = xa_load(&obj->pages, pindex);
	if (page)
		return page;
	mutex_lock(&obj->lock);
	page = xa_load(&obj->pages, pindex);
	if (!page) {
		*fresh = true;
		if (want_large)
			page = populate_large(obj, pindex);
		if (!page)
			page = populate_small(obj, pindex);
	}
	mutex_unlock(&obj->lock);
	return page;
}

int host_memobj_page(struct host_memobj *obj, uint64_t pindex, bool want_large,
		     struct host_page *out)
{
	struct page *page;

	if (pindex >= obj->npages)
		return HOST_EINVAL;
	page = page_resident(obj, pindex, want_large, &out->fresh);
	if (!page)
		return HOST_ENOMEM;
	out->hpa = page_to_phys(page);
	out->order = 0;
	if (PageCompound(page)) {
		if (want_large)
			out->order = HOST_LARGE_ORDER;
		else
			out->hpa += (pindex % CHUNK_PAGES) << PAGE_SHIFT;
	}
	return 0;
}

struct page *shim_memobj_get_page(struct host_memobj *obj, u64 pindex)
{
	struct page *page;
	bool fresh;

	if (pindex >= obj->npages)
		return NULL;
	page = page_resident(obj, pindex, true, &fresh);
	if (!page)
		return NULL;
	if (PageCompound(page))
		page += pindex % CHUNK_PAGES;
	get_page(page);
	return page;
}
