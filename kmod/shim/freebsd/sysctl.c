/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * sysctl.c: hw.vmm.  create and destroy take a VM's name; the values below the
 * node are those that the core enumerates.  A jail may write create and
 * destroy, and nothing else.
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/kernel.h>
#include <sys/lock.h>
#include <sys/malloc.h>
#include <sys/sx.h>
#include <sys/sysctl.h>

#include "../host.h"
#include "shim.h"

static int	info_request(struct sysctl_oid *oidp, void *arg1,
		    intmax_t index, struct sysctl_req *req);
static int	name_request(struct sysctl_oid *oidp, void *arg1,
		    intmax_t which, struct sysctl_req *req);
static void	info_add(uint32_t index, const struct vmm_rs_info *info);

enum { REQUEST_CREATE, REQUEST_DESTROY };

SYSCTL_NODE(_hw, OID_AUTO, vmm, CTLFLAG_RW | CTLFLAG_MPSAFE, 0,
    "virtual machine monitor");
SYSCTL_PROC(_hw_vmm, OID_AUTO, create,
    CTLTYPE_STRING | CTLFLAG_RW | CTLFLAG_PRISON | CTLFLAG_MPSAFE,
    NULL, REQUEST_CREATE, name_request, "A",
    "Name of a virtual machine to create");
SYSCTL_PROC(_hw_vmm, OID_AUTO, destroy,
    CTLTYPE_STRING | CTLFLAG_RW | CTLFLAG_PRISON | CTLFLAG_MPSAFE,
    NULL, REQUEST_DESTROY, name_request, "A",
    "Name of a virtual machine to destroy");

/* Held shared while the core works on a request, so that unloading waits. */
static struct sx request_lock;
SX_SYSINIT(vmm_rs_request, &request_lock, "vmm_rs sysctl");
static bool ready;

static struct sysctl_ctx_list info_ctx;

void
shim_sysctl_start(void)
{
	struct vmm_rs_info info;
	uint32_t i;

	sysctl_ctx_init(&info_ctx);
	for (i = 0; vmm_rs_info(i, &info); i++)
		info_add(i, &info);

	sx_xlock(&request_lock);
	ready = true;
	sx_xunlock(&request_lock);
}

void
shim_sysctl_stop(void)
{
	sx_xlock(&request_lock);
	ready = false;
	sx_xunlock(&request_lock);

	sysctl_ctx_free(&info_ctx);
}

/* Adds hw.vmm.a.b.c with the nodes it needs; a node that exists is shared. */
static void
info_add(uint32_t index, const struct vmm_rs_info *info)
{
	struct sysctl_oid_list *parent;
	struct sysctl_oid *node;
	char path[64], *part, *rest;

	if (strlcpy(path, info->name, sizeof(path)) >= sizeof(path)) {
		printf("vmm_rs: hw.vmm.%s: name too long\n", info->name);
		return;
	}
	parent = SYSCTL_STATIC_CHILDREN(_hw_vmm);
	rest = path;
	part = strsep(&rest, ".");
	while (rest != NULL) {
		node = SYSCTL_ADD_NODE(&info_ctx, parent, OID_AUTO, part,
		    CTLFLAG_RW | CTLFLAG_MPSAFE, NULL, "");
		if (node == NULL)
			return;
		parent = SYSCTL_CHILDREN(node);
		part = strsep(&rest, ".");
	}
#define	ADD(access, format)						\
	SYSCTL_ADD_PROC(&info_ctx, parent, OID_AUTO, part,		\
	    (access) | CTLFLAG_MPSAFE, NULL, index,			\
	    info_request, format, info->descr)
	switch (info->type) {
	case VMM_RS_INT:
		ADD(CTLTYPE_INT | CTLFLAG_RD, "I");
		break;
	case VMM_RS_UINT:
		if (info->writable)
			ADD(CTLTYPE_UINT | CTLFLAG_RW, "IU");
		else
			ADD(CTLTYPE_UINT | CTLFLAG_RD, "IU");
		break;
	case VMM_RS_ULONG:
		ADD(CTLTYPE_ULONG | CTLFLAG_RD, "LU");
		break;
	}
#undef ADD
}

static int
info_request(struct sysctl_oid *oidp __unused, void *arg1 __unused,
    intmax_t index, struct sysctl_req *req)
{
	struct vmm_rs_info info;
	u_long wide;
	u_int narrow;
	int error;

	if (!vmm_rs_info(index, &info))
		return (ENOENT);
	if (info.type == VMM_RS_ULONG) {
		wide = info.value;
		return (SYSCTL_OUT(req, &wide, sizeof(wide)));
	}
	narrow = info.value;	/* an int's bits as well */
	error = SYSCTL_OUT(req, &narrow, sizeof(narrow));
	if (error != 0 || req->newptr == NULL)
		return (error);
	error = SYSCTL_IN(req, &narrow, sizeof(narrow));
	if (error != 0)
		return (error);
	return (vmm_rs_info_set(index, narrow));
}

static int
name_request(struct sysctl_oid *oidp, void *arg1 __unused, intmax_t which,
    struct sysctl_req *req)
{
	const int len = SPECNAMELEN + 1;
	char *name;
	int error;

	error = host_priv_vmm();
	if (error != 0)
		return (error);
	name = malloc(len, M_VMM_RS, M_WAITOK | M_ZERO);
	error = sysctl_handle_string(oidp, name, len, req);
	if (error == 0 && req->newptr != NULL) {
		sx_slock(&request_lock);
		if (!ready)
			error = ENXIO;
		else if (which == REQUEST_CREATE)
			error = vmm_rs_create(name);
		else
			error = vmm_rs_destroy(name);
		sx_sunlock(&request_lock);
	}
	free(name, M_VMM_RS);
	return (error);
}
