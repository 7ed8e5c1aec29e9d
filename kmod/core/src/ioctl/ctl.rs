//! The requests of /dev/vmmctl. hw.vmm.create and hw.vmm.destroy do the same by name.

use vmm_sys as sys;

use super::fields::{array, get, get_chars};
use super::name::VmName;
use crate::types::Errno;

/// One request to the module itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CtlRequest {
    /// EEXIST when there is such a VM.
    Create {
        name: VmName,
        /// VMMCTL_CREATE_DESTROY_ON_CLOSE: the VM goes with the descriptor that the
        /// request came through.
        destroy_on_close: bool,
    },
    /// EINVAL when there is none, or none that the caller may see.
    Destroy(VmName),
}

const CREATE: u64 = sys::ioctl::VMMCTL_VM_CREATE.code() as u64;
const DESTROY: u64 = sys::ioctl::VMMCTL_VM_DESTROY.code() as u64;

/// The request behind a command and its parameter structure. ENOTTY for an unknown
/// command, EINVAL for a bad name, a flag that there isn't, or reserved fields that are
/// not 0.
pub fn decode_ctl(cmd: u64, data: &[u8]) -> Result<CtlRequest, Errno> {
    match cmd {
        CREATE => create(data),
        DESTROY => destroy(data),
        _ => Err(Errno::ENOTTY),
    }
}

fn create(data: &[u8]) -> Result<CtlRequest, Errno> {
    whole::<sys::vmmctl_vm_create>(data)?;
    let flags = get!(data, sys::vmmctl_vm_create, flags: u32);
    let reserved: [u8; 60] = array(data, core::mem::offset_of!(sys::vmmctl_vm_create, reserved));
    if flags & !sys::VMMCTL_CREATE_DESTROY_ON_CLOSE != 0 || reserved != [0; 60] {
        return Err(Errno::EINVAL);
    }
    let name = get_chars!(data, sys::vmmctl_vm_create, name: VmName::MAX_LEN + 1);
    Ok(CtlRequest::Create {
        name: VmName::from_chars(&name)?,
        destroy_on_close: flags & sys::VMMCTL_CREATE_DESTROY_ON_CLOSE != 0,
    })
}

fn destroy(data: &[u8]) -> Result<CtlRequest, Errno> {
    whole::<sys::vmmctl_vm_destroy>(data)?;
    let reserved: [u8; 64] = array(
        data,
        core::mem::offset_of!(sys::vmmctl_vm_destroy, reserved),
    );
    if reserved != [0; 64] {
        return Err(Errno::EINVAL);
    }
    let name = get_chars!(data, sys::vmmctl_vm_destroy, name: VmName::MAX_LEN + 1);
    VmName::from_chars(&name).map(CtlRequest::Destroy)
}

/// EINVAL unless all of a `T` is there.
fn whole<T>(data: &[u8]) -> Result<(), Errno> {
    if data.len() < size_of::<T>() {
        return Err(Errno::EINVAL);
    }
    Ok(())
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
            Ok(CtlRequest::Create {
                name: name.clone(),
                destroy_on_close: false
            })
        );
        assert_eq!(decode_ctl(destroy, &data), Ok(CtlRequest::Destroy(name)));
        assert_eq!(decode_ctl(create + 2, &data), Err(Errno::ENOTTY));
        assert_eq!(decode_ctl(create | 1 << 32, &data), Err(Errno::ENOTTY));
        assert_eq!(decode_ctl(create, &data[1..]), Err(Errno::EINVAL));
    }

    #[test]
    fn flags_of_create() {
        let create = u64::from(sys::ioctl::VMMCTL_VM_CREATE.code());
        let at = core::mem::offset_of!(sys::vmmctl_vm_create, flags);
        let mut data = structure("guest0");
        data[at] = 1;
        assert_eq!(
            decode_ctl(create, &data),
            Ok(CtlRequest::Create {
                name: VmName::new(b"guest0").unwrap(),
                destroy_on_close: true
            })
        );
        for bit in 1..32 {
            data[at..at + 4].copy_from_slice(&(1 | 1_u32 << bit).to_ne_bytes());
            assert_eq!(decode_ctl(create, &data), Err(Errno::EINVAL), "bit {bit}");
        }
        // The same place of the other request is reserved.
        let destroy = u64::from(sys::ioctl::VMMCTL_VM_DESTROY.code());
        data[at..at + 4].copy_from_slice(&1_u32.to_ne_bytes());
        assert_eq!(decode_ctl(destroy, &data), Err(Errno::EINVAL));
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
