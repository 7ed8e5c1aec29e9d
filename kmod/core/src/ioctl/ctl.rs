//! The requests of /dev/vmmctl. hw.vmm.create and hw.vmm.destroy do the same by name.

use vmm_sys as sys;

use super::fields::{array, get_chars};
use super::name::VmName;
use crate::types::Errno;

/// One request to the module itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CtlRequest {
    /// EEXIST when there is such a VM.
    Create(VmName),
    /// EINVAL when there is none, or none that the caller may see.
    Destroy(VmName),
}

/// The request behind a command and its parameter structure. ENOTTY for an unknown
/// command, EINVAL for a bad name or reserved fields that are not 0.
pub fn decode_ctl(cmd: u64, data: &[u8]) -> Result<CtlRequest, Errno> {
    const CREATE: u64 = sys::ioctl::VMMCTL_VM_CREATE.code() as u64;
    const DESTROY: u64 = sys::ioctl::VMMCTL_VM_DESTROY.code() as u64;
    let make = match cmd {
        CREATE => CtlRequest::Create,
        DESTROY => CtlRequest::Destroy,
        _ => return Err(Errno::ENOTTY),
    };
    // Both have the same structure.
    const LEN: usize = size_of::<sys::vmmctl_vm_create>();
    const _: () = assert!(LEN == size_of::<sys::vmmctl_vm_destroy>());
    if data.len() < LEN {
        return Err(Errno::EINVAL);
    }
    let reserved: [u8; 64] = array(data, core::mem::offset_of!(sys::vmmctl_vm_create, reserved));
    if reserved != [0; 64] {
        return Err(Errno::EINVAL);
    }
    let name = get_chars!(data, sys::vmmctl_vm_create, name: VmName::MAX_LEN + 1);
    VmName::from_chars(&name).map(make)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(name: &str) -> [u8; size_of::<sys::vmmctl_vm_create>()] {
        let mut data = [0; size_of::<sys::vmmctl_vm_create>()];
        data[..name.len()].copy_from_slice(name.as_bytes());
        data
    }

    #[test]
    fn create_and_destroy() {
        let name = VmName::new(b"guest0").unwrap();
        let create = u64::from(sys::ioctl::VMMCTL_VM_CREATE.code());
        let destroy = u64::from(sys::ioctl::VMMCTL_VM_DESTROY.code());
        let data = structure("guest0");
        assert_eq!(
            decode_ctl(create, &data),
            Ok(CtlRequest::Create(name.clone()))
        );
        assert_eq!(decode_ctl(destroy, &data), Ok(CtlRequest::Destroy(name)));
        assert_eq!(decode_ctl(create + 2, &data), Err(Errno::ENOTTY));
        assert_eq!(decode_ctl(create | 1 << 32, &data), Err(Errno::ENOTTY));
        assert_eq!(decode_ctl(create, &data[1..]), Err(Errno::EINVAL));
    }

    #[test]
    fn reserved_fields_and_names_are_checked() {
        let create = u64::from(sys::ioctl::VMMCTL_VM_CREATE.code());
        let mut data = structure("guest0");
        *data.last_mut().unwrap() = 1;
        assert_eq!(decode_ctl(create, &data), Err(Errno::EINVAL));
        assert_eq!(decode_ctl(create, &structure("")), Err(Errno::EINVAL));
        // Not terminated: FreeBSD cuts the name, which then names another VM.
        let unterminated = "x".repeat(230);
        assert_eq!(
            decode_ctl(create, &structure(&unterminated)),
            Err(Errno::EINVAL)
        );
    }
}
