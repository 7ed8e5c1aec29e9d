//! The usage text.

#![forbid(unsafe_code)]

/// The synopsis and a line for each option that is there.
pub fn usage(progname: &str) -> String {
    let indent = " ".repeat(progname.len());
    format!(
        "Usage: {progname} [-aACDeHhIPSuWwxY]\n       \
         {indent} [-c [[cpus=]numcpus][,sockets=n][,cores=n][,threads=n]]\n       \
         {indent} [-l lpc] [-m mem] [-p vcpu:hostcpu] [-s pci] [-U uuid] vmname\n       \
         -a: local APIC in xAPIC mode\n       \
         -A: no effect, for old scripts (ACPI tables are always built)\n       \
         -b: console port 0x220 of early FreeBSD guests, on stdio\n       \
         -C: include guest memory in core files\n       \
         -c: number of CPUs and/or topology specification\n       \
         -D: destroy on power-off\n       \
         -e: exit on unhandled I/O access\n       \
         -H: vmexit from the guest on HLT\n       \
         -h: help\n       \
         -I: no effect, for old scripts\n       \
         -l: LPC device configuration: com1,stdio or com1,/path or com1,tcp=address:port\n       \
         -m: memory size\n       \
         -P: vmexit from the guest on pause\n       \
         -p: pin 'vcpu' to 'hostcpu'; or a number n: vcpu i to host CPU n + i\n       \
         -S: guest memory cannot be swapped; or -S slot,uart,stdio: com port\n       \
         -s: <slot,driver,configinfo> PCI slot config\n       \
         -U: UUID\n       \
         -u: RTC keeps UTC time\n       \
         -W: virtio devices use single-vector MSI\n       \
         -w: ignore unimplemented MSRs\n       \
         -x: local APIC is in x2APIC mode\n       \
         -Y: disable MPtable generation\n"
    )
}
