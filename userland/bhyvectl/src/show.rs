//! Output, line by line, in the formats of FreeBSD 15's bhyvectl(8).

use std::fmt::Write;

use cli::size::humanize;
use vmm_core::exit::{EntryInst, Inout, VmFail, VmxExit};
use vmmapi::{CpuSet, CpuTopology, Exit, Memmap, Memseg, Prot, Reg, SegDesc, SegReg, VmExit};

use crate::control::{Format, Line};

/// VM_MEMMAP_F_*.
const MEMMAP_WIRED: u32 = 1 << 0;
const MEMMAP_IOMMU: u32 = 1 << 1;

/// C's %#lx.
pub fn alternate(value: u64) -> String {
    if value == 0 {
        "0".to_owned()
    } else {
        format!("{value:#x}")
    }
}

/// A register or a selector.
pub fn register(name: &str, reg: Reg, vcpu: u16, value: u64) -> String {
    match reg.segment() {
        Some(_) => format!("{name}[{vcpu}]\t\t0x{value:04x}"),
        None if reg == Reg::Rflags => format!("{name}[{vcpu}]\t0x{value:016x}"),
        None => format!("{name}[{vcpu}]\t\t0x{value:016x}"),
    }
}

/// A descriptor; GDTR and IDTR have no access rights.
pub fn descriptor(name: &str, seg: SegReg, vcpu: u16, desc: SegDesc) -> String {
    let SegDesc {
        base,
        limit,
        access,
    } = desc;
    match seg {
        SegReg::Gdtr | SegReg::Idtr => format!("{name}[{vcpu}]\t\t0x{base:016x}/0x{limit:08x}"),
        _ => format!("{name} desc[{vcpu}]\t0x{base:016x}/0x{limit:08x}/0x{access:08x}"),
    }
}

/// A field of the control structure.
pub fn control(line: &Line, vcpu: u16, value: u64) -> String {
    let label = line.label.replacen("[]", &format!("[{vcpu}]"), 1);
    match line.format {
        Format::Hex16 => format!("{label}0x{value:016x}"),
        Format::Hex8 => format!("{label}0x{:08x}", value as u32),
        Format::Hex4 => format!("{label}0x{value:04x}"),
        Format::Alternate => format!("{label}{}", alternate(value)),
    }
}

/// A set of vcpus.
pub fn cpus(banner: &str, cpus: &CpuSet) -> String {
    if cpus.is_empty() {
        return format!("{banner}:\t (none)");
    }
    let numbers: Vec<String> = cpus.iter().map(|cpu| cpu.0.to_string()).collect();
    format!("{banner}:\t {}", numbers.join(", "))
}

pub const MEMSEG_HEADER: &str = "ID  Length      Name";

pub fn memseg(segid: i32, seg: &Memseg) -> String {
    format!(
        "{segid:<4}{:<12}{}",
        humanize(seg.len),
        segment_name(Some(seg))
    )
}

pub const MEMMAP_HEADER: &str = "Address     Length      Segment     Offset      Prot  Flags";

pub fn memmap(map: &Memmap, seg: Option<&Memseg>) -> String {
    let letter = |prot, letter| if map.prot.contains(prot) { letter } else { '-' };
    let mut flags = Vec::new();
    if map.flags & MEMMAP_WIRED != 0 {
        flags.push("wired");
    }
    if map.flags & MEMMAP_IOMMU != 0 {
        flags.push("iommu");
    }
    format!(
        "{:<12X}{:<12}{:<12}{:<12X}{}{}{}   {}",
        map.gpa.get(),
        humanize(map.len),
        segment_name(seg),
        map.segoff,
        letter(Prot::READ, 'R'),
        letter(Prot::WRITE, 'W'),
        letter(Prot::EXEC, 'X'),
        flags.join("/")
    )
}

/// System memory has no name.
fn segment_name(seg: Option<&Memseg>) -> &str {
    seg.and_then(|seg| seg.name.as_deref()).unwrap_or("sysmem")
}

pub fn capability(name: &str, vcpu: u16, set: bool) -> String {
    format!(
        "Capability \"{name}\" is {} on vcpu {vcpu}",
        if set { "set" } else { "not set" }
    )
}

pub fn no_capability(name: &str) -> String {
    format!("Capability \"{name}\" is not available")
}

pub fn topology(t: &CpuTopology) -> String {
    let CpuTopology {
        sockets,
        cores,
        threads,
        maxcpus,
    } = t;
    format!("cpu_topology:\tsockets={sockets}, cores={cores}, threads={threads}, maxcpus={maxcpus}")
}

/// Counters are signed to bhyvectl.
pub fn statistic(desc: &str, value: u64) -> String {
    format!("{desc:<40}\t{}", value as i64)
}

/// An event as VM_GET_INTINFO has it (the layout of SDM table 25-16).
pub fn intinfo(banner: &str, info: u64) -> String {
    const VALID: u64 = 1 << 31;
    const ERROR_CODE: u64 = 1 << 11;
    if info & VALID == 0 {
        return format!("{banner}:\tn/a");
    }
    let kind = match info >> 8 & 7 {
        0 => "extint",
        2 => "nmi",
        4 => "swint",
        _ => "exception",
    };
    let mut text = format!("{banner}:\t{kind} vector {}", info & 0xff);
    if info & ERROR_CODE != 0 {
        let _ = write!(text, " errcode {}", alternate(info >> 32));
    }
    text
}

pub fn gpa_pmap(gpa: u64, entries: &[u64]) -> String {
    let mut text = format!("gpa {}:", alternate(gpa));
    for entry in entries {
        let _ = write!(text, " {}", alternate(*entry));
    }
    text
}

pub fn rtc_nvram(offset: u8, value: u8) -> String {
    format!("rtc nvram[{offset:03}]: 0x{value:02x}")
}

/// Seconds since 1970 with the date they are in UTC.
pub fn rtc_time(seconds: i64) -> String {
    const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    // 1 January 1970 was a Thursday.
    let weekday = WEEKDAYS[(days + 4).rem_euclid(7) as usize];
    format!(
        "rtc time {}: {weekday} {} {day:02} {:02}:{:02}:{:02} {year}",
        alternate(seconds as u64),
        MONTHS[month],
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month from 0, day from 1 of a day counted from 1 January 1970: in eras of 400
/// years, with years that begin in March, so that the leap day is a year's last.
fn civil(days: i64) -> (i64, usize, i64) {
    let from_march_of_year_0 = days + 719_468;
    let era = from_march_of_year_0.div_euclid(146_097);
    let day_of_era = from_march_of_year_0.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + i64::from(month_from_march >= 10);
    (year, month as usize, day)
}

/// The exit that --run came back with.
pub fn exit(exit: &VmExit, vcpu: u16) -> String {
    let mut text = format!(
        "vm exit[{vcpu}]\n\trip\t\t0x{:016x}\n\tinst_length\t{}\n",
        exit.rip, exit.inst_length
    );
    match &exit.exit {
        Exit::Inout(io) => text.push_str(&inout(io)),
        Exit::InoutStr(io) => text.push_str(&inout(&io.inout)),
        Exit::Vmx(vmx) => text.push_str(&self::vmx(vmx)),
        Exit::Svm {
            exitcode,
            exitinfo1,
            exitinfo2,
        } => {
            let _ = write!(
                text,
                "\treason\t\tSVM\n\texit_reason\t\t{}\n\texitinfo1\t\t{}\n\texitinfo2\t\t{}\n",
                alternate(*exitcode),
                alternate(*exitinfo1),
                alternate(*exitinfo2)
            );
        }
        // More than FreeBSD's, which has a bare number here.
        other => {
            let _ = writeln!(text, "\treason\t\t{other:?}");
        }
    }
    text
}

fn inout(io: &Inout) -> String {
    format!(
        "\treason\t\tINOUT\n\tdirection\t{}\n\tbytes\t\t{}\n\tflags\t\t{}{}\n\tport\t\t0x{:04x}\n\
         \teax\t\t0x{:08x}\n",
        if io.input { "IN" } else { "OUT" },
        io.bytes,
        if io.string { "STRING " } else { "" },
        if io.rep { "REP " } else { "" },
        io.port,
        io.eax
    )
}

fn vmx(exit: &VmxExit) -> String {
    let (status, reason, qualification, inst_type, inst_error) = match exit {
        VmxExit::Exit {
            reason,
            qualification,
        } => (0, *reason, *qualification, 0, 0),
        VmxExit::EntryFailed { inst, status } => {
            let inst = match inst {
                EntryInst::Vmresume => 1,
                EntryInst::Vmlaunch => 2,
            };
            match status {
                VmFail::Invalid => (1, u32::MAX, 0, inst, 0),
                VmFail::Valid(error) => (2, u32::MAX, 0, inst, *error),
            }
        }
    };
    format!(
        "\treason\t\tVMX\n\tstatus\t\t{status}\n\texit_reason\t0x{reason:08x} ({reason})\n\
         \tqualification\t0x{qualification:016x}\n\tinst_type\t\t{inst_type}\n\
         \tinst_error\t\t{inst_error}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Group;
    use crate::platform::Vendor;
    use vmmapi::Gpa;

    #[test]
    fn registers_and_descriptors_have_freebsds_columns() {
        assert_eq!(
            register("rip", Reg::Rip, 1, 0xfff0),
            "rip[1]\t\t0x000000000000fff0"
        );
        assert_eq!(
            register("rflags", Reg::Rflags, 0, 2),
            "rflags[0]\t0x0000000000000002"
        );
        assert_eq!(register("cs", Reg::Cs, 0, 0x20), "cs[0]\t\t0x0020");
        let desc = SegDesc {
            base: 0xffff_0000,
            limit: 0xffff,
            access: 0x9b,
        };
        assert_eq!(
            descriptor("cs", SegReg::Cs, 0, desc),
            "cs desc[0]\t0x00000000ffff0000/0x0000ffff/0x0000009b"
        );
        assert_eq!(
            descriptor("gdtr", SegReg::Gdtr, 2, desc),
            "gdtr[2]\t\t0x00000000ffff0000/0x0000ffff"
        );
    }

    #[test]
    fn control_fields_keep_their_widths() {
        let line = |group: Group, value| control(&group.lines(Vendor::Intel)[0], 0, value);
        assert_eq!(
            line(Group::PinbasedCtls, 0x1f),
            "pinbased_ctls[0]\t0x000000000000001f"
        );
        assert_eq!(line(Group::ExitReason, 0), "exit_reason[0]\t0");
        assert_eq!(line(Group::ExitReason, 30), "exit_reason[0]\t0x1e");
        assert_eq!(line(Group::VpidAsid, 1), "vpid[0]\t\t0x0001");
        assert_eq!(
            line(Group::ExitInstLength, 3),
            "vmcs_exit_inst_length[0]\t0x00000003"
        );
    }

    #[test]
    fn memory_is_listed_in_columns() {
        let map = Memmap {
            gpa: Gpa(0x1_0000_0000),
            segid: 0,
            segoff: 0xc000_0000,
            len: 2 << 30,
            prot: Prot::ALL,
            flags: 3,
        };
        assert_eq!(
            memmap(&map, None),
            "100000000   2048MB      sysmem      C0000000    RWX   wired/iommu"
        );
        let rom = Memseg {
            len: 0x1_0000,
            name: Some("bootrom".to_owned()),
        };
        let map = Memmap {
            gpa: Gpa(0),
            len: 0x1_0000,
            prot: Prot::READ,
            flags: 0,
            segoff: 0,
            ..map
        };
        assert_eq!(
            memmap(&map, Some(&rom)),
            "0           65536B      bootrom     0           R--   "
        );
        assert_eq!(memseg(3, &rom), "3   65536B      bootrom");
    }

    #[test]
    fn events_are_decoded() {
        assert_eq!(intinfo("pending", 0), "pending:\tn/a");
        let pf = 1 << 31 | 1 << 11 | 3 << 8 | 14 | 2 << 32;
        assert_eq!(
            intinfo("current", pf),
            "current:\texception vector 14 errcode 0x2"
        );
        assert_eq!(
            intinfo("pending", 1 << 31 | 2 << 8 | 2),
            "pending:\tnmi vector 2"
        );
    }

    #[test]
    fn rtc_time_is_utc() {
        assert_eq!(rtc_time(0), "rtc time 0: Thu Jan 01 00:00:00 1970");
        assert_eq!(
            rtc_time(951826154),
            "rtc time 0x38bbb6ea: Tue Feb 29 12:09:14 2000"
        );
        assert_eq!(
            rtc_time(1735689599),
            "rtc time 0x6774857f: Tue Dec 31 23:59:59 2024"
        );
        assert_eq!(
            rtc_time(-1),
            "rtc time 0xffffffffffffffff: Wed Dec 31 23:59:59 1969"
        );
    }

    #[test]
    fn sets_statistics_and_topology_read_as_ever() {
        assert_eq!(
            cpus("active cpus", &CpuSet::default()),
            "active cpus:\t (none)"
        );
        assert_eq!(
            statistic("total number of vm exits", 42),
            format!("{:<40}\t42", "total number of vm exits")
        );
        let t = CpuTopology {
            sockets: 2,
            cores: 1,
            threads: 1,
            maxcpus: 16,
        };
        assert_eq!(
            topology(&t),
            "cpu_topology:\tsockets=2, cores=1, threads=1, maxcpus=16"
        );
    }

    #[test]
    fn exits_are_dumped_with_their_fields() {
        let io = Inout {
            bytes: 1,
            input: false,
            string: true,
            rep: true,
            port: 0x3f8,
            eax: 0x41,
        };
        let text = exit(
            &VmExit {
                rip: 0x1000,
                inst_length: 2,
                exit: Exit::Inout(io),
            },
            0,
        );
        assert_eq!(
            text,
            "vm exit[0]\n\trip\t\t0x0000000000001000\n\tinst_length\t2\n\treason\t\tINOUT\n\
             \tdirection\tOUT\n\tbytes\t\t1\n\tflags\t\tSTRING REP \n\tport\t\t0x03f8\n\
             \teax\t\t0x00000041\n"
        );
        let failed = VmxExit::EntryFailed {
            inst: EntryInst::Vmlaunch,
            status: VmFail::Valid(7),
        };
        let text = exit(
            &VmExit {
                rip: 0,
                inst_length: 0,
                exit: Exit::Vmx(failed),
            },
            0,
        );
        assert!(
            text.contains("\tstatus\t\t2\n") && text.ends_with("\tinst_error\t\t7\n"),
            "{text}"
        );
    }
}
