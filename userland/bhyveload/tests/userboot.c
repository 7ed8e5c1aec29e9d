/*
 * A loader with userboot.so's interface (stand/userboot/userboot.h of FreeBSD, version 5)
 * that calls every function back and says what came of it. tests/userboot.rs compiles it.
 */
#include <stddef.h>
#include <stdint.h>

/* FreeBSD's struct stat, which is not that of every host. */
struct fbsd_stat {
	uint64_t dev, ino, nlink;
	uint16_t mode;
	int16_t bsdflags;
	uint32_t uid, gid;
	int32_t padding;
	uint64_t rdev;
	int64_t atim[2], mtim[2], ctim[2], birthtim[2];
	int64_t size, blocks;
	int32_t blksize;
	uint32_t flags;
	uint64_t gen, filerev, spare[9];
};

struct loader_callbacks {
	int (*getc)(void *);
	void (*putc)(void *, int);
	int (*poll)(void *);
	int (*open)(void *, const char *, void **);
	int (*close)(void *, void *);
	int (*isdir)(void *, void *);
	int (*read)(void *, void *, void *, size_t, size_t *);
	int (*readdir)(void *, void *, uint32_t *, uint8_t *, size_t *, char *);
	int (*seek)(void *, void *, uint64_t, int);
	int (*stat)(void *, void *, struct fbsd_stat *);
	int (*diskread)(void *, int, uint64_t, void *, size_t, size_t *);
	int (*diskwrite)(void *, int, uint64_t, void *, size_t, size_t *);
	int (*copyin)(void *, const void *, uint64_t, size_t);
	int (*copyout)(void *, uint64_t, void *, size_t);
	void (*setreg)(void *, int, uint64_t);
	void (*setmsr)(void *, int, uint64_t);
	void (*setcr)(void *, int, uint64_t);
	void (*setgdt)(void *, uint64_t, size_t);
	void (*exec)(void *, uint64_t);
	void (*delay)(void *, int);
	void (*exit)(void *, int);
	void (*getmem)(void *, uint64_t *, uint64_t *);
	int (*diskioctl)(void *, int, unsigned long, void *);
	char *(*getenv)(void *, int);
	int (*vm_set_register)(void *, int, int, uint64_t);
	int (*vm_set_desc)(void *, int, int, uint64_t, unsigned, unsigned);
	void (*swap_interpreter)(void *, const char *);
};

static struct loader_callbacks *cb;
static void *arg;

static void
put(const char *text)
{
	while (*text != '\0')
		cb->putc(arg, *text++);
}

static void
number(const char *what, uint64_t value)
{
	char digits[17], *p = digits + 16;

	put(what);
	put(" ");
	*p = '\0';
	do
		*--p = "0123456789abcdef"[value & 15];
	while ((value >>= 4) != 0);
	put(p);
	put("\n");
}

static int
same(const char *a, const char *b)
{
	while (*a != '\0' && *a == *b)
		a++, b++;
	return (*a == *b);
}

static void
files(void)
{
	struct fbsd_stat st;
	char buf[16], name[1024];
	size_t resid, len;
	uint32_t fileno;
	uint8_t type;
	void *h, *d;

	number("open missing", cb->open(arg, "/no/file", &h));
	number("open outside", cb->open(arg, "../secret", &h));
	number("open", cb->open(arg, "/boot/file", &h));
	number("isdir", cb->isdir(arg, h));
	number("read", cb->read(arg, h, buf, sizeof(buf), &resid));
	number("resid", resid);
	buf[sizeof(buf) - resid] = '\0';
	put(buf);
	number("seek", cb->seek(arg, h, 2, 0));
	number("read", cb->read(arg, h, buf, 3, &resid));
	buf[3] = '\0';
	put(buf);
	put("\n");
	number("seek badly", cb->seek(arg, h, 0, 9));
	number("stat", cb->stat(arg, h, &st));
	number("mode", st.mode);
	number("size", st.size);
	number("mtime", st.mtim[0] > 0);
	number("opendir", cb->open(arg, "boot", &d));
	number("isdir", cb->isdir(arg, d));
	number("read directory", cb->read(arg, d, buf, 3, &resid));
	while (cb->readdir(arg, d, &fileno, &type, &len, name) == 0)
		if (name[0] != '.') {
			put(name);
			number(" type", type);
			number("length", len);
			number("inode", fileno != 0);
		}
	number("close", cb->close(arg, d));
	number("close", cb->close(arg, h));
	number("close again", cb->close(arg, h));
	number("close nothing", cb->close(arg, NULL));
}

static void
disks(void)
{
	char buf[8];
	size_t resid;
	unsigned sector = 0;
	int64_t media = 0;

	number("diskread", cb->diskread(arg, 0, 1, buf, 4, &resid));
	number("resid", resid);
	buf[4] = '\0';
	put(buf);
	put("\n");
	number("diskread end", cb->diskread(arg, 0, 1022, buf, 4, &resid));
	number("resid", resid);
	number("diskwrite", cb->diskwrite(arg, 0, 2, "XY", 2, &resid));
	number("resid", resid);
	number("diskread none", cb->diskread(arg, 1, 0, buf, 4, &resid));
	number("sector", cb->diskioctl(arg, 0, 0x40046480, &sector));
	number("sector", sector);
	number("media", cb->diskioctl(arg, 0, 0x40086481, &media));
	number("media", media);
	number("ioctl unknown", cb->diskioctl(arg, 0, 0x40046490, &media));
	number("ioctl none", cb->diskioctl(arg, -1, 0x40046480, &media));
}

void
loader_main(struct loader_callbacks *callbacks, void *argument, int version, int ndisks)
{
	char buf[8];
	uint64_t low, high;
	char *variable;
	int i;

	cb = callbacks;
	arg = argument;
	number("version", version);
	number("disks", ndisks);
	for (i = 0; (variable = cb->getenv(arg, i)) != NULL; i++) {
		put("env ");
		put(variable);
		put("\n");
		if (same(variable, "mode=exit"))
			cb->exit(arg, 5);
		if (same(variable, "mode=reboot"))
			cb->exit(arg, 2);
		if (same(variable, "mode=swap"))
			cb->swap_interpreter(arg, "nonsense");
		if (same(variable, "mode=swap-badly"))
			cb->swap_interpreter(arg, "../tmp/x");
		if (same(variable, "mode=panic"))
			cb->copyin(arg, buf, 0x66600000, 1);
		if (same(variable, "mode=setreg"))
			cb->setreg(arg, 5, 1);
		if (same(variable, "mode=return"))
			return;
	}
	number("poll", cb->poll(arg));
	number("getc", cb->getc(arg));
	number("getc", cb->getc(arg));
	cb->delay(arg, 1);
	files();
	disks();
	cb->getmem(arg, &low, &high);
	number("low", low);
	number("high", high);
	number("copyin", cb->copyin(arg, "kernel", 0xffffffff80200000, 7));
	number("copyout", cb->copyout(arg, 0x200000, buf, 7));
	put(buf);
	put("\n");
	number("copyin far", cb->copyin(arg, "kernel", 0x7ffffff0, 64));
	number("vm_set_register", cb->vm_set_register(arg, 0, 3, 0x77));
	number("vm_set_register", cb->vm_set_register(arg, 1, 3, 0x77));
	number("vm_set_desc", cb->vm_set_desc(arg, 0, 23, 0x1000, 0xffff, 0x9b));
	cb->setreg(arg, 4, 0x1000);
	cb->setmsr(arg, 0xc0000080, 0x500);
	cb->setcr(arg, 4, 0x20);
	cb->setcr(arg, 3, 0x2000);
	cb->setcr(arg, 0, 0x80000021);
	cb->setgdt(arg, 0x5000, 24);
	cb->exec(arg, 0xffffffff80200000);
}
