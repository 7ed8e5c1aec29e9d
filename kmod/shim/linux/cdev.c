// SPDX-License-Identifier: BSD-2-Clause
/*
 * cdev.c: the character devices /dev/vmmctl, /dev/vmm/NAME and
 * /dev/vmm.io/NAME.SEG, which devtmpfs makes and removes. All share one range
 * of device numbers; open() finds the node by its minor number.
 */
#include <linux/cdev.h>
#include <linux/completion.h>
#include <linux/cred.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/idr.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "shim.h"

/* sys/ioccom.h of FreeBSD: a request says in itself what it copies. */
#define BSD_IOC_VOID	0x20000000U
#define BSD_IOC_OUT		0x40000000U
#define BSD_IOC_IN		0x80000000U
#define BSD_IOCPARM_LEN(cmd)	(((cmd) >> 16) & 0x1fff)

#define MINORS		(1U << MINORBITS)

struct host_cdev {
	refcount_t refs;	/* the core's, and one for each open file */
	refcount_t ops;		/* running operations, and one until destroyed */
	bool dead;
	struct completion idle;	/* ops has come to 0 */
	enum host_cdev_kind kind;
	void *arg;
	int minor;
	char *path;
	kuid_t uid;		/* the owner of the file in /dev */
	struct device *dev;
};

static dev_t first_number;
static struct cdev nodes_cdev;
static struct class *nodes_class;
static DEFINE_IDR(nodes);
static DEFINE_MUTEX(nodes_lock);

static const struct file_operations open_fops;
static const struct file_operations *const kind_fops[];

/* What devtmpfs gives the node; NULL leaves its name as it is. */
static char *nodes_devnode(struct device *dev, umode_t *mode, kuid_t *uid,
			   kgid_t *gid)
{
	const struct host_cdev *node = dev_get_drvdata(dev);

	if (mode)
		*mode = 0600;
	if (uid)
		*uid = node->uid;
	return NULL;
}

static const struct device_type nodes_type = {
	.name = "vmm",
	.devnode = nodes_devnode,
};

int shim_cdev_init(void)
{
	int error;

	error = alloc_chrdev_region(&first_number, 0, MINORS, "vmm");
	if (error)
		return error;
	nodes_class = class_create(THIS_MODULE, "vmm");
	if (IS_ERR(nodes_class)) {
		error = PTR_ERR(nodes_class);
		goto fail_region;
	}
	cdev_init(&nodes_cdev, &open_fops);
	nodes_cdev.owner = THIS_MODULE;
	error = cdev_add(&nodes_cdev, first_number, MINORS);
	if (error)
		goto fail_class;
	return 0;

fail_class:
	class_destroy(nodes_class);
fail_region:
	unregister_chrdev_region(first_number, MINORS);
	return error;
}

void shim_cdev_exit(void)
{
	cdev_del(&nodes_cdev);
	class_destroy(nodes_class);
	unregister_chrdev_region(first_number, MINORS);
	idr_destroy(&nodes);
}

static void node_put(struct host_cdev *node)
{
	if (refcount_dec_and_test(&node->refs)) {
		kfree(node->path);
		kfree(node);
	}
}

static int node_insert(struct host_cdev *node)
{
	struct host_cdev *other;
	int minor;

	mutex_lock(&nodes_lock);
	idr_for_each_entry(&nodes, other, minor) {
		if (!strcmp(other->path, node->path)) {
			mutex_unlock(&nodes_lock);
			return -EEXIST;
		}
	}
	minor = idr_alloc(&nodes, node, 0, MINORS, GFP_KERNEL);
	if (minor >= 0)
		node->minor = minor;
	mutex_unlock(&nodes_lock);
	return minor < 0 ? minor : 0;
}

static void node_remove(struct host_cdev *node)
{
	mutex_lock(&nodes_lock);
	idr_remove(&nodes, node->minor);
	mutex_unlock(&nodes_lock);
}

static void device_release(struct device *dev)
{
	kfree(dev);
}

/* device_create() and a type, which is what can say who owns the file. */
static int node_add_device(struct host_cdev *node)
{
	struct device *dev;
	int error;

	dev = kzalloc(sizeof(*dev), GFP_KERNEL);
	if (!dev)
		return -ENOMEM;
	device_initialize(dev);
	dev->devt = first_number + node->minor;
	dev->class = nodes_class;
	dev->type = &nodes_type;
	dev->release = device_release;
	dev_set_drvdata(dev, node);
	error = dev_set_name(dev, "%s", node->path);
	if (!error)
		error = device_add(dev);
	if (error)
		put_device(dev);
	else
		node->dev = dev;
	return error;
}

int host_cdev_create(const char *path, enum host_cdev_kind kind, void *arg,
		     const struct host_cred *cred, struct host_cdev **cdevp)
{
	struct host_cdev *node;
	int error;

	/* It fails when unloading has begun. */
	if (kind == HOST_CDEV_VM && !try_module_get(THIS_MODULE))
		return HOST_ENXIO;
	error = -ENOMEM;
	node = kzalloc(sizeof(*node), GFP_KERNEL_ACCOUNT);
	if (!node)
		goto fail_module;
	refcount_set(&node->refs, 1);
	refcount_set(&node->ops, 1);
	init_completion(&node->idle);
	node->kind = kind;
	node->arg = arg;
	node->uid = cred ? ((const struct cred *)cred)->euid : GLOBAL_ROOT_UID;
	node->path = kstrdup(path, GFP_KERNEL_ACCOUNT);
	if (!node->path)
		goto fail_node;
	error = node_insert(node);
	if (error)
		goto fail_node;
	error = node_add_device(node);
	if (error)
		goto fail_insert;
	*cdevp = node;
	return 0;

fail_insert:
	node_remove(node);
fail_node:
	node_put(node);
fail_module:
	if (kind == HOST_CDEV_VM)
		module_put(THIS_MODULE);
	return shim_host_error(error);
}

static void op_end(struct host_cdev *node)
{
	if (refcount_dec_and_test(&node->ops))
		complete(&node->idle);
}

/* Nothing may sleep here: mmap() comes with the process's mmap_lock held. */
static bool op_begin(struct host_cdev *node)
{
	if (!refcount_inc_not_zero(&node->ops))
		return false;
	/* Pairs with host_cdev_destroy(): it sees the count or we see dead. */
	smp_mb__after_atomic();
	if (!READ_ONCE(node->dead))
		return true;
	op_end(node);
	return false;
}

void host_cdev_destroy(struct host_cdev *node)
{
	const bool holds_module = node->kind == HOST_CDEV_VM;

	device_unregister(node->dev);
	node_remove(node);
	WRITE_ONCE(node->dead, true);
	smp_mb();
	op_end(node);
	wait_for_completion(&node->idle);
	node_put(node);
	if (holds_module)
		module_put(THIS_MODULE);
}

/* ---- Files ---- */

static int node_open(struct inode *inode, struct file *file)
{
	struct host_cdev *node;
	int error;

	error = shim_errno(host_priv_vmm());
	if (error)
		return error;
	mutex_lock(&nodes_lock);
	node = idr_find(&nodes, iminor(inode));
	if (node)
		refcount_inc(&node->refs);
	mutex_unlock(&nodes_lock);
	if (!node)
		return -ENXIO;
	/* A descriptor that can't be written to must not create VMs. */
	if (node->kind == HOST_CDEV_CTL && !(file->f_mode & FMODE_WRITE)) {
		node_put(node);
		return -EPERM;
	}
	file->private_data = node;
	replace_fops(file, fops_get(kind_fops[node->kind]));
	return 0;
}

static int node_release(struct inode *inode, struct file *file)
{
	node_put(file->private_data);
	return 0;
}

/* What was opened of vmmctl is the struct file that all its descriptors share. */
static struct host_file *ctl_file(struct file *file)
{
	return (struct host_file *)file;
}

/* The last close, by whatever process; an open file holds the module. */
static int ctl_release(struct inode *inode, struct file *file)
{
	vmm_rs_ctl_close(ctl_file(file));
	return node_release(inode, file);
}

static int call_ioctl(struct file *file, unsigned int cmd, void *data)
{
	struct host_cdev *node = file->private_data;

	if (node->kind == HOST_CDEV_CTL)
		return vmm_rs_ctl_ioctl(ctl_file(file), cmd, data);
	return vmm_rs_vm_ioctl(node->arg, cmd, data);
}

/* What FreeBSD's ioctl(2) does before and after it calls a driver. */
static long bsd_ioctl(struct file *file, unsigned int cmd, unsigned long uarg)
{
	const size_t size = BSD_IOCPARM_LEN(cmd);
	u64 small[32];
	void *data = small;
	long error;

	if (!(cmd & (BSD_IOC_VOID | BSD_IOC_OUT | BSD_IOC_IN)))
		return -ENOTTY;
	if (cmd & BSD_IOC_VOID) {
		if (size != 0 && size != sizeof(int))
			return -ENOTTY;
		small[0] = uarg;
		return shim_errno(call_ioctl(file, cmd, small));
	}
	if (size == 0)
		return -ENOTTY;
	if (size > sizeof(small)) {
		data = kmalloc(size, GFP_KERNEL_ACCOUNT);
		if (!data)
			return -ENOMEM;
	}
	error = -EFAULT;
	if (!(cmd & BSD_IOC_IN))
		memset(data, 0, size);
	else if (copy_from_user(data, (void __user *)uarg, size))
		goto out;
	error = shim_errno(call_ioctl(file, cmd, data));
	if (!error && (cmd & BSD_IOC_OUT) &&
	    copy_to_user((void __user *)uarg, data, size))
		error = -EFAULT;
out:
	if (data != small)
		kfree(data);
	return error;
}

/* The request is 32 bits wide: a sign-extended one arrives cut to them. */
static long node_ioctl(struct file *file, unsigned int cmd, unsigned long uarg)
{
	struct host_cdev *node = file->private_data;
	long error;

	if (!op_begin(node))
		return -ENXIO;
	error = bsd_ioctl(file, cmd, uarg);
	op_end(node);
	return error;
}

static ssize_t vm_rw(struct kiocb *iocb, struct iov_iter *iter, bool write)
{
	struct host_cdev *node = iocb->ki_filp->private_data;
	struct host_uio uio = { .iter = iter, .write = write };
	const size_t len = iov_iter_count(iter);
	size_t done;
	int error;

	if (!op_begin(node))
		return -ENXIO;
	error = vmm_rs_vm_rw(node->arg, &uio, iocb->ki_pos, len, write);
	op_end(node);
	done = len - iov_iter_count(iter);
	iocb->ki_pos += done;
	return done ? done : shim_errno(error);
}

static ssize_t vm_read(struct kiocb *iocb, struct iov_iter *iter)
{
	return vm_rw(iocb, iter, false);
}

static ssize_t vm_write(struct kiocb *iocb, struct iov_iter *iter)
{
	return vm_rw(iocb, iter, true);
}

/* ---- Mappings: each holds its memory object, whatever becomes of the VM ---- */

static void mapping_open(struct vm_area_struct *vma)
{
	host_memobj_hold(vma->vm_private_data);
}

static void mapping_close(struct vm_area_struct *vma)
{
	host_memobj_release(vma->vm_private_data);
}

static vm_fault_t mapping_fault(struct vm_fault *vmf)
{
	vmf->page = shim_memobj_get_page(vmf->vma->vm_private_data, vmf->pgoff);
	return vmf->page ? 0 : VM_FAULT_SIGBUS;
}

static const struct vm_operations_struct mapping_ops = {
	.open = mapping_open,
	.close = mapping_close,
	.fault = mapping_fault,
};

static_assert(VM_READ == 1 && VM_WRITE == 2 && VM_EXEC == 4,
	      "the protection that host.h gives to the core");

static int node_mmap(struct file *file, struct vm_area_struct *vma)
{
	const u64 offset = (u64)vma->vm_pgoff << PAGE_SHIFT;
	const u64 len = vma->vm_end - vma->vm_start;
	const int prot = vma->vm_flags & (VM_READ | VM_WRITE | VM_EXEC);
	struct host_cdev *node = file->private_data;
	struct host_memobj *obj;
	u64 objoff;
	int error;

	if (!op_begin(node))
		return -ENXIO;
	if (node->kind == HOST_CDEV_VM)
		error = vmm_rs_vm_mmap(node->arg, offset, len, prot, &obj,
				       &objoff);
	else
		error = vmm_rs_devmem_mmap(node->arg, offset, len, prot, &obj,
					   &objoff);
	op_end(node);
	if (error)
		return shim_errno(error);
	vma->vm_pgoff = objoff >> PAGE_SHIFT;
	vma->vm_private_data = obj;
	vma->vm_ops = &mapping_ops;
	vma->vm_flags |= VM_DONTEXPAND;
	return 0;
}

static const struct file_operations open_fops = {
	.owner = THIS_MODULE,
	.open = node_open,
	.llseek = noop_llseek,
};

static const struct file_operations ctl_fops = {
	.owner = THIS_MODULE,
	.release = ctl_release,
	.unlocked_ioctl = node_ioctl,
	.llseek = noop_llseek,
};

static const struct file_operations vm_fops = {
	.owner = THIS_MODULE,
	.release = node_release,
	.unlocked_ioctl = node_ioctl,
	.read_iter = vm_read,
	.write_iter = vm_write,
	.mmap = node_mmap,
	.llseek = default_llseek,
};

static const struct file_operations mem_fops = {
	.owner = THIS_MODULE,
	.release = node_release,
	.mmap = node_mmap,
	.llseek = noop_llseek,
};

static const struct file_operations *const kind_fops[] = {
	[HOST_CDEV_CTL] = &ctl_fops,
	[HOST_CDEV_VM] = &vm_fops,
	[HOST_CDEV_MEM] = &mem_fops,
};
