//! The table against the list of the header.

use vmm_sys::ioctl::{ALL, VM_RUN};

use super::super::{Availability, Command, Privilege, TABLE, VcpuLock, decode, lookup};
use crate::types::Errno;

#[test]
fn every_request_of_the_header_has_one_row() {
    for (name, ioctl) in ALL.iter().filter(|(_, ioctl)| ioctl.group == b'v') {
        let rows = TABLE.iter().filter(|entry| entry.ioctl == *ioctl).count();
        assert_eq!(rows, 1, "{name}");
        assert_eq!(lookup(u64::from(ioctl.code())).unwrap().ioctl, *ioctl);
    }
    assert_eq!(
        TABLE.len(),
        ALL.iter().filter(|(_, ioctl)| ioctl.group == b'v').count()
    );
}

#[test]
fn other_commands_have_none() {
    let run = u64::from(VM_RUN.code());
    assert!(lookup(run).is_some());
    // Another size, group, direction; bits past the 32 that ioctl(2) has.
    for cmd in [
        run ^ 1 << 16,
        run ^ 1 << 8,
        run ^ 1 << 30,
        run | 1 << 32,
        0,
        u64::MAX,
    ] {
        assert!(lookup(cmd).is_none(), "{cmd:#x}");
    }
    // /dev/vmmctl's are not a VM's.
    for (name, ioctl) in ALL.iter().filter(|(_, ioctl)| ioctl.group == b'V') {
        assert!(lookup(u64::from(ioctl.code())).is_none(), "{name}");
    }
}

#[test]
fn who_changes_memory_has_all_vcpus() {
    for entry in TABLE {
        let changes_memory = matches!(
            entry.command,
            Command::Reinit
                | Command::AllocMemseg
                | Command::AllocMemseg12
                | Command::AllocMemseg14
                | Command::MmapMemseg
                | Command::MunmapMemseg
        );
        if changes_memory {
            assert_eq!(entry.vcpus, VcpuLock::All, "{:?}", entry.command);
        }
        // A request that locks a vcpu names it in its first int.
        if matches!(entry.vcpus, VcpuLock::One | VcpuLock::Maybe) {
            assert!(
                entry.ioctl.dir.copies_in() && entry.ioctl.size >= 4,
                "{:?}",
                entry.command
            );
        }
    }
}

#[test]
fn what_is_absent_says_so_whatever_it_is_given() {
    for entry in TABLE {
        let garbage = alloc::vec![0xff; entry.ioctl.size];
        match entry.availability {
            Availability::Absent(errno) => assert_eq!(decode(entry, &garbage), Err(errno)),
            Availability::Served => {
                // One byte short is never decoded.
                if entry.ioctl.size > 0 {
                    assert_eq!(decode(entry, &garbage[1..]), Err(Errno::EINVAL));
                }
            }
        }
    }
    let ppt = TABLE
        .iter()
        .filter(|entry| entry.privilege == Privilege::PptDev);
    assert_eq!(ppt.count(), 7);
}
