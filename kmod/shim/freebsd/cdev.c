/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * cdev.c: the character devices /dev/vmmctl, /dev/vmm/NAME and
 * /dev/vmm.io/NAME.SEG.  devfs waits for running operations and turns later
 * ones away by itself, so a struct host_cdev is a struct cdev.
 *
 * What is opened of vmmctl has a struct host_file, as devfs_set_cdevpriv(9)
 * keeps it: devfs hands it to ctl_close() once, without a lock held, when the
 * last descriptor is closed (by whatever thread that is: an exiting one, or the
 * one that collects sockets nobody can reach) or from within destroy_dev(),
 * which waits for those calls too.
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/conf.h>
#include <sys/fcntl.h>
#include <sys/malloc.h>
#include <sys/proc.h>
#include <sys/ucred.h>
#include <sys/uio.h>

#include "../host.h"
#include "shim.h"

struct host_file {
	char	unused;		/* it is an address, no more */
};

static d_open_t		ctl_open;
static d_priv_dtor_t	ctl_close;
static d_ioctl_t	ctl_ioctl;
static d_open_t		vm_open;
static d_ioctl_t	vm_ioctl;
static d_read_t		vm_rw;
static d_mmap_single_t	vm_mmap;
static d_mmap_single_t	mem_mmap;

static struct cdevsw ctl_cdevsw = {
	.d_version	= D_VERSION,
	.d_name		= "vmmctl",
	.d_open		= ctl_open,
	.d_ioctl	= ctl_ioctl,
};

static struct cdevsw vm_cdevsw = {
	.d_version	= D_VERSION,
	.d_name		= "vmmdev",
	.d_open		= vm_open,
	.d_ioctl	= vm_ioctl,
	.d_read		= vm_rw,
	.d_write	= vm_rw,
	.d_mmap_single	= vm_mmap,
};

static struct cdevsw mem_cdevsw = {
	.d_version	= D_VERSION,
	.d_name		= "devmem",
	.d_open		= vm_open,
	.d_mmap_single	= mem_mmap,
};

int
host_cdev_create(const char *path, enum host_cdev_kind kind, void *arg,
    const struct host_cred *cred, struct host_cdev **cdevp)
{
	static struct cdevsw *const switches[] = {
		[HOST_CDEV_CTL] = &ctl_cdevsw,
		[HOST_CDEV_VM] = &vm_cdevsw,
		[HOST_CDEV_MEM] = &mem_cdevsw,
	};
	struct make_dev_args mda;
	struct cdev *dev;
	int error;

	make_dev_args_init(&mda);
	mda.mda_flags = MAKEDEV_CHECKNAME | MAKEDEV_WAITOK;
	mda.mda_devsw = switches[kind];
	mda.mda_cr = __DECONST(struct ucred *, cred);
	mda.mda_uid = cred == NULL ? UID_ROOT : mda.mda_cr->cr_uid;
	mda.mda_gid = GID_WHEEL;
	mda.mda_mode = 0600;
	mda.mda_si_drv1 = arg;
	error = make_dev_s(&mda, &dev, "%s", path);
	if (error == 0)
		*cdevp = (struct host_cdev *)dev;
	return (error);
}

void
host_cdev_destroy(struct host_cdev *cdev)
{
	destroy_dev((struct cdev *)cdev);
}

static int
vm_open(struct cdev *dev __unused, int flags __unused, int type __unused,
    struct thread *td __unused)
{
	return (host_priv_vmm());
}

/* A descriptor that can't be written to must not create VMs. */
static int
ctl_open(struct cdev *dev __unused, int flags, int type __unused,
    struct thread *td __unused)
{
	struct host_file *file;
	int error;

	error = host_priv_vmm();
	if (error != 0)
		return (error);
	if ((flags & FWRITE) == 0)
		return (EPERM);
	file = malloc(sizeof(*file), M_VMM_RS, M_WAITOK);
	error = devfs_set_cdevpriv(file, ctl_close);
	if (error != 0)
		free(file, M_VMM_RS);
	return (error);
}

static void
ctl_close(void *data)
{
	vmm_rs_ctl_close(data);
	free(data, M_VMM_RS);
}

static int
ctl_ioctl(struct cdev *dev __unused, u_long cmd, caddr_t data,
    int flags __unused, struct thread *td __unused)
{
	void *file;
	int error;

	error = devfs_get_cdevpriv(&file);
	if (error != 0)
		return (error);
	return (vmm_rs_ctl_ioctl(file, cmd, data));
}

static int
vm_ioctl(struct cdev *dev, u_long cmd, caddr_t data, int flags __unused,
    struct thread *td __unused)
{
	return (vmm_rs_vm_ioctl(dev->si_drv1, cmd, data));
}

static int
vm_rw(struct cdev *dev, struct uio *uio, int flags __unused)
{
	return (vmm_rs_vm_rw(dev->si_drv1, (struct host_uio *)uio,
	    uio->uio_offset, uio->uio_resid, uio->uio_rw == UIO_WRITE));
}

/* From here on the mapping holds the vm_object: the memobj's hold goes back. */
static int
mmap_answer(int error, struct host_memobj *obj, uint64_t objoff,
    vm_ooffset_t *offset, struct vm_object **objp)
{
	if (error != 0)
		return (error);
	*objp = shim_memobj_reference(obj);
	*offset = objoff;
	host_memobj_release(obj);
	return (0);
}

static int
vm_mmap(struct cdev *dev, vm_ooffset_t *offset, vm_size_t size,
    struct vm_object **objp, int prot)
{
	struct host_memobj *obj;
	uint64_t objoff;
	int error;

	error = vmm_rs_vm_mmap(dev->si_drv1, *offset, size, prot, &obj,
	    &objoff);
	return (mmap_answer(error, obj, objoff, offset, objp));
}

static int
mem_mmap(struct cdev *dev, vm_ooffset_t *offset, vm_size_t size,
    struct vm_object **objp, int prot)
{
	struct host_memobj *obj;
	uint64_t objoff;
	int error;

	error = vmm_rs_devmem_mmap(dev->si_drv1, *offset, size, prot, &obj,
	    &objoff);
	return (mmap_answer(error, obj, objoff, offset, objp));
}
