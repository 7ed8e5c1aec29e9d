//! Checkpoints: the state of the devices in the kernel, saved to and restored from bytes
//! whose format is the kernel's own.

use vmm_sys::ioctl as req;

use crate::{Error, Vm};

/// Which part of the kernel's state (enum snapshot_req).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
pub enum SnapshotReq {
    Vioapic = vmm_sys::STRUCT_VIOAPIC,
    Vm = vmm_sys::STRUCT_VM,
    Vlapic = vmm_sys::STRUCT_VLAPIC,
    Mem = vmm_sys::VM_MEM,
    Vhpet = vmm_sys::STRUCT_VHPET,
    Vmcx = vmm_sys::STRUCT_VMCX,
    Vatpic = vmm_sys::STRUCT_VATPIC,
    Vatpit = vmm_sys::STRUCT_VATPIT,
    Vpmtmr = vmm_sys::STRUCT_VPMTMR,
    Vrtc = vmm_sys::STRUCT_VRTC,
}

impl Vm {
    /// Saves one part into `buffer`; the number of bytes it took. EFAULT when the buffer is
    /// too small.
    pub fn snapshot_save(&self, part: SnapshotReq, buffer: &mut [u8]) -> Result<usize, Error> {
        self.snapshot(part, vmm_sys::VM_SNAPSHOT_SAVE, buffer)
    }

    /// Restores one part from `buffer`; the number of bytes it took.
    pub fn snapshot_restore(&self, part: SnapshotReq, buffer: &[u8]) -> Result<usize, Error> {
        self.snapshot(part, vmm_sys::VM_SNAPSHOT_RESTORE, &mut buffer.to_vec())
    }

    fn snapshot(&self, part: SnapshotReq, op: u32, buffer: &mut [u8]) -> Result<usize, Error> {
        let start = buffer.as_mut_ptr();
        let mut param = vmm_sys::vm_snapshot_meta {
            dev_req: part as u32,
            op,
            buffer: vmm_sys::vm_snapshot_buffer {
                buf_start: start,
                buf_size: buffer.len(),
                buf: start,
                buf_rem: buffer.len(),
            },
            ..Default::default()
        };
        // SAFETY: the buffer's pointers and lengths describe `buffer`, which is writable;
        // device data and name, null here, are for programs only.
        unsafe { self.ioctl_ptr(req::VM_SNAPSHOT_REQ, &mut param) }?;
        Ok(buffer.len().saturating_sub(param.buffer.buf_rem))
    }

    /// After a restore: the guest's clocks go on from the time of the checkpoint.
    pub fn restore_time(&self) -> Result<(), Error> {
        self.ioctl(req::VM_RESTORE_TIME, &mut 0)
    }
}
