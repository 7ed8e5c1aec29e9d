//! The usage text.

#![forbid(unsafe_code)]

/// The synopsis and a line for each option that is there.
pub fn usage(progname: &str) -> String {
    let indent = " ".repeat(progname.len());
    format!(
        "Usage: {progname} [-aCDeHhPSuWwxY]\n       \
         {indent} [-c [[cpus=]numcpus][,sockets=n][,cores=n][,threads=n]]\n       \
         {indent} [-k config_file] [-l lpc] [-m mem] [-o var=value]\n       \
         {indent} [-p vcpu:hostcpu] [-s pci] [-U uuid] vmname\n       \
         -a: local apic is in xAPIC mode (deprecated)\n       \
         -C: include guest memory in core file\n       \
         -c: number of CPUs and/or topology specification\n       \
         -D: destroy on power-off\n       \
         -e: exit on unhandled I/O access\n       \
         -H: vmexit from the guest on HLT\n       \
         -h: help\n       \
         -k: key=value flat config file\n       \
         -K: PS2 keyboard layout (there is no keyboard yet)\n       \
         -l: LPC device configuration: com1,stdio or com1,/path or com1,tcp=address:port\n       \
         -m: memory size\n       \
         -o: set config 'var' to 'value'\n       \
         -P: vmexit from the guest on pause\n       \
         -p: pin 'vcpu' to 'hostcpu'\n       \
         -S: guest memory cannot be swapped\n       \
         -s: <slot,driver,configinfo> PCI slot config\n       \
         -U: UUID\n       \
         -u: RTC keeps UTC time\n       \
         -W: force virtio to use single-vector MSI\n       \
         -w: ignore unimplemented MSRs\n       \
         -x: local APIC is in x2APIC mode\n       \
         -Y: disable MPtable generation\n\
         Options of 2013, for old scripts:\n       \
         -A, -I: no effect (there are always ACPI tables and an I/O APIC)\n       \
         -b: console port 0x220 of early FreeBSD guests, on stdio\n       \
         -g: debug port 0x224 of early FreeBSD guests, on that TCP port of localhost\n       \
         -M: adds to the memory size\n       \
         -p: a number n pins vcpu i to host CPU n + i\n       \
         -S: with <slot,uart,backend>, a serial port\n       \
         -x: all vcpus take turns on one host CPU, with one of these or -o compat.year=2013\n       \
         -z: no effect\n"
    )
}
