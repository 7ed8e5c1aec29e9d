//! PCI passthrough: devices of the host that belong to the guest.

use vmm_sys::ioctl as req;
use vmm_sys::ioctl::Ioctl;

use crate::platform::{self, Plain};
use crate::{Error, Gpa, Vm};

/// A PCI function of the host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PciFunction {
    pub bus: u8,
    pub slot: u8,
    pub func: u8,
}

impl std::fmt::Display for PciFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pci{}:{}:{}", self.bus, self.slot, self.func)
    }
}

impl PciFunction {
    fn raw(self) -> (i32, i32, i32) {
        (
            i32::from(self.bus),
            i32::from(self.slot),
            i32::from(self.func),
        )
    }

    fn pptdev(self) -> vmm_sys::vm_pptdev {
        let (bus, slot, func) = self.raw();
        vmm_sys::vm_pptdev { bus, slot, func }
    }
}

impl Vm {
    /// Gives the device to the guest.
    pub fn assign_pptdev(&self, dev: PciFunction) -> Result<(), Error> {
        self.ppt_ioctl(req::VM_BIND_PPTDEV, dev, &mut dev.pptdev())
    }

    /// Takes it back.
    pub fn unassign_pptdev(&self, dev: PciFunction) -> Result<(), Error> {
        self.ppt_ioctl(req::VM_UNBIND_PPTDEV, dev, &mut dev.pptdev())
    }

    /// Puts `len` bytes of the device's memory at host-physical `hpa` at `gpa`.
    pub fn map_pptdev_mmio(
        &self,
        dev: PciFunction,
        gpa: Gpa,
        len: usize,
        hpa: u64,
    ) -> Result<(), Error> {
        let (bus, slot, func) = dev.raw();
        let mut param = vmm_sys::vm_pptdev_mmio {
            bus,
            slot,
            func,
            gpa: gpa.0,
            hpa,
            len,
        };
        self.ppt_ioctl(req::VM_MAP_PPTDEV_MMIO, dev, &mut param)
    }

    pub fn unmap_pptdev_mmio(&self, dev: PciFunction, gpa: Gpa, len: usize) -> Result<(), Error> {
        let (bus, slot, func) = dev.raw();
        let mut param = vmm_sys::vm_pptdev_mmio {
            bus,
            slot,
            func,
            gpa: gpa.0,
            hpa: 0,
            len,
        };
        self.ppt_ioctl(req::VM_UNMAP_PPTDEV_MMIO, dev, &mut param)
    }

    /// The device's MSI, as the guest programmed it; `numvec` 0 turns it off.
    pub fn setup_pptdev_msi(
        &self,
        dev: PciFunction,
        addr: u64,
        msg: u64,
        numvec: i32,
    ) -> Result<(), Error> {
        let (bus, slot, func) = dev.raw();
        let mut param = vmm_sys::vm_pptdev_msi {
            vcpu: 0,
            bus,
            slot,
            func,
            numvec,
            msg,
            addr,
        };
        self.ppt_ioctl(req::VM_PPTDEV_MSI, dev, &mut param)
    }

    /// Entry `idx` of the device's MSI-X table, as the guest programmed it.
    pub fn setup_pptdev_msix(
        &self,
        dev: PciFunction,
        idx: i32,
        addr: u64,
        msg: u64,
        vector_control: u32,
    ) -> Result<(), Error> {
        let (bus, slot, func) = dev.raw();
        let mut param = vmm_sys::vm_pptdev_msix {
            vcpu: 0,
            bus,
            slot,
            func,
            idx,
            msg,
            vector_control,
            addr,
        };
        self.ppt_ioctl(req::VM_PPTDEV_MSIX, dev, &mut param)
    }

    pub fn disable_pptdev_msix(&self, dev: PciFunction) -> Result<(), Error> {
        self.ppt_ioctl(req::VM_PPTDEV_DISABLE_MSIX, dev, &mut dev.pptdev())
    }

    fn ppt_ioctl<T: Plain>(
        &self,
        request: Ioctl,
        dev: PciFunction,
        param: &mut T,
    ) -> Result<(), Error> {
        platform::ioctl(self.device(), request, param)
            .map_err(|e| self.error_of(request, &dev.to_string(), e))
    }
}
