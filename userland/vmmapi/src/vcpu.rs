//! One vcpu: run it, its registers and descriptors, the events and capabilities that the
//! kernel keeps for it.

use vmm_sys::ioctl as req;
use vmm_sys::ioctl::Ioctl;

use crate::platform::{self, Plain};
use crate::{Capability, CpuSet, Error, Reg, SegDesc, SegReg, VcpuId, Vm, VmExit};

/// A vcpu of an open VM. Clones are the same vcpu; one thread at a time can run it, and
/// the others get EBUSY.
#[derive(Clone, Debug)]
pub struct Vcpu {
    vm: Vm,
    id: VcpuId,
}

impl Vcpu {
    pub(crate) const fn new(vm: Vm, id: VcpuId) -> Self {
        Self { vm, id }
    }

    pub const fn id(&self) -> VcpuId {
        self.id
    }

    pub const fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Makes it part of the VM, before its first run. EBUSY when it is already.
    pub fn activate(&self) -> Result<(), Error> {
        self.ioctl(
            req::VM_ACTIVATE_CPU,
            &mut vmm_sys::vm_activate_cpu {
                vcpuid: self.raw_id(),
            },
        )
    }

    /// Stops it for a debugger: it leaves with [`Exit::Debug`](crate::Exit::Debug).
    pub fn suspend(&self) -> Result<(), Error> {
        self.ioctl(
            req::VM_SUSPEND_CPU,
            &mut vmm_sys::vm_activate_cpu {
                vcpuid: self.raw_id(),
            },
        )
    }

    /// Lets it go on after [`Vcpu::suspend`].
    pub fn resume(&self) -> Result<(), Error> {
        self.ioctl(
            req::VM_RESUME_CPU,
            &mut vmm_sys::vm_activate_cpu {
                vcpuid: self.raw_id(),
            },
        )
    }

    /// Runs the guest until the kernel has an exit that it doesn't answer itself.
    pub fn run(&self) -> Result<VmExit, Error> {
        let mut exit = vmm_sys::vm_exit::default();
        let mut dest = CpuSet::default();
        let mut param = vmm_sys::vm_run {
            cpuid: self.raw_id(),
            cpuset: &mut dest.0,
            cpusetsize: CpuSet::SIZE,
            vm_exit: &mut exit,
        };
        // SAFETY: the kernel writes a struct vm_exit at vm_exit and at most cpusetsize
        // bytes at cpuset; both outlive the call.
        unsafe { platform::ioctl_ptr(self.vm.device(), req::VM_RUN, &mut param) }
            .map_err(|errno| self.error(req::VM_RUN, "", errno))?;
        VmExit::decode(&exit, &dest)
    }

    /// Makes the next run repeat the instruction of the last exit.
    pub fn restart_instruction(&self) -> Result<(), Error> {
        self.ioctl(req::VM_RESTART_INSTRUCTION, &mut self.raw_id())
    }

    // ---- Registers -------------------------------------------------------------------

    pub fn register(&self, reg: Reg) -> Result<u64, Error> {
        let mut param = vmm_sys::vm_register {
            cpuid: self.raw_id(),
            regnum: i32::from(reg as u8),
            regval: 0,
        };
        self.ioctl_on(req::VM_GET_REGISTER, reg, &mut param)?;
        Ok(param.regval)
    }

    pub fn set_register(&self, reg: Reg, value: u64) -> Result<(), Error> {
        let mut param = vmm_sys::vm_register {
            cpuid: self.raw_id(),
            regnum: i32::from(reg as u8),
            regval: value,
        };
        self.ioctl_on(req::VM_SET_REGISTER, reg, &mut param)
    }

    /// A field of the vcpu's control structure, for reading only: `number` has bit 31 set,
    /// and below it the encoding of a VMCS field, or offset and width in a VMCB.
    pub fn control_field(&self, number: u32) -> Result<u64, Error> {
        let mut param = vmm_sys::vm_register {
            cpuid: self.raw_id(),
            regnum: number as i32,
            regval: 0,
        };
        self.ioctl_on(
            req::VM_GET_REGISTER,
            format_args!("field {number:#x}"),
            &mut param,
        )?;
        Ok(param.regval)
    }

    /// Several registers in one call, in the order asked for.
    pub fn registers<const N: usize>(&self, regs: [Reg; N]) -> Result<[u64; N], Error> {
        let mut values = [0; N];
        self.register_set(req::VM_GET_REGISTER_SET, &regs, values.as_mut_ptr())?;
        Ok(values)
    }

    /// Several registers in one call, in this order; an error leaves the ones before set.
    pub fn set_registers(&self, regs: &[(Reg, u64)]) -> Result<(), Error> {
        let names: Vec<Reg> = regs.iter().map(|(reg, _)| *reg).collect();
        let mut values: Vec<u64> = regs.iter().map(|(_, value)| *value).collect();
        self.register_set(req::VM_SET_REGISTER_SET, &names, values.as_mut_ptr())
    }

    /// `values` points to as many values as there are registers.
    fn register_set(&self, request: Ioctl, regs: &[Reg], values: *mut u64) -> Result<(), Error> {
        let regnums: Vec<i32> = regs.iter().map(|reg| i32::from(*reg as u8)).collect();
        let count = u32::try_from(regs.len()).map_err(|_| Error::Invalid {
            what: "number of registers",
            value: regs.len() as u64,
        })?;
        let mut param = vmm_sys::vm_register_set {
            cpuid: self.raw_id(),
            count,
            regnums: regnums.as_ptr(),
            regvals: values,
        };
        // SAFETY: `count` numbers are at regnums, and by this function's two callers as
        // many values at regvals.
        unsafe { platform::ioctl_ptr(self.vm.device(), request, &mut param) }
            .map_err(|errno| self.error(request, &format!("{regs:?}"), errno))
    }

    /// The hidden part of a segment register, LDTR, TR, GDTR or IDTR.
    pub fn desc(&self, seg: SegReg) -> Result<SegDesc, Error> {
        let mut param = vmm_sys::vm_seg_desc {
            cpuid: self.raw_id(),
            regnum: i32::from(seg as u8),
            ..Default::default()
        };
        self.ioctl_on(req::VM_GET_SEGMENT_DESCRIPTOR, seg, &mut param)?;
        let vmm_sys::seg_desc {
            base,
            limit,
            access,
        } = param.desc;
        Ok(SegDesc {
            base,
            limit,
            access,
        })
    }

    pub fn set_desc(&self, seg: SegReg, desc: SegDesc) -> Result<(), Error> {
        let SegDesc {
            base,
            limit,
            access,
        } = desc;
        let mut param = vmm_sys::vm_seg_desc {
            cpuid: self.raw_id(),
            regnum: i32::from(seg as u8),
            desc: vmm_sys::seg_desc {
                base,
                limit,
                access,
            },
        };
        self.ioctl_on(req::VM_SET_SEGMENT_DESCRIPTOR, seg, &mut param)
    }

    // ---- Events ----------------------------------------------------------------------

    /// Raises an exception in the guest at its next entry. With `restart` it is a fault:
    /// RIP stays at the instruction of the last exit; else a trap behind it.
    pub fn inject_exception(
        &self,
        vector: u8,
        error_code: Option<u32>,
        restart: bool,
    ) -> Result<(), Error> {
        let mut param = vmm_sys::vm_exception {
            cpuid: self.raw_id(),
            vector: i32::from(vector),
            error_code: error_code.unwrap_or(0),
            error_code_valid: i32::from(error_code.is_some()),
            restart_instruction: i32::from(restart),
        };
        self.ioctl_on(req::VM_INJECT_EXCEPTION, vector, &mut param)
    }

    pub fn inject_nmi(&self) -> Result<(), Error> {
        self.ioctl(
            req::VM_INJECT_NMI,
            &mut vmm_sys::vm_nmi {
                cpuid: self.raw_id(),
            },
        )
    }

    /// The event whose delivery an exit interrupted, and the exception that waits behind
    /// it, as EXITINTINFO (0: none).
    pub fn intinfo(&self) -> Result<(u64, u64), Error> {
        let mut param = vmm_sys::vm_intinfo {
            vcpuid: self.raw_id(),
            ..Default::default()
        };
        self.ioctl(req::VM_GET_INTINFO, &mut param)?;
        Ok((param.info1, param.info2))
    }

    pub fn set_intinfo(&self, info1: u64) -> Result<(), Error> {
        let mut param = vmm_sys::vm_intinfo {
            vcpuid: self.raw_id(),
            info1,
            info2: 0,
        };
        self.ioctl(req::VM_SET_INTINFO, &mut param)
    }

    // ---- Capabilities ----------------------------------------------------------------

    /// The value of a capability. ENOENT when this CPU doesn't have it.
    pub fn capability(&self, cap: Capability) -> Result<i32, Error> {
        let mut param = vmm_sys::vm_capability {
            cpuid: self.raw_id(),
            captype: cap as u32,
            ..Default::default()
        };
        self.ioctl_on(req::VM_GET_CAPABILITY, cap, &mut param)?;
        Ok(param.capval)
    }

    pub fn set_capability(&self, cap: Capability, value: i32) -> Result<(), Error> {
        let mut param = vmm_sys::vm_capability {
            cpuid: self.raw_id(),
            captype: cap as u32,
            capval: value,
            allcpus: 0,
        };
        self.ioctl_on(req::VM_SET_CAPABILITY, cap, &mut param)
    }

    // ---- What the other modules of this crate use --------------------------------------

    /// The number as the structures have it.
    pub(crate) const fn raw_id(&self) -> i32 {
        self.id.0 as i32
    }

    /// The error of a request about this vcpu, or about a thing of it.
    pub(crate) fn error(&self, request: Ioctl, thing: &str, errno: i32) -> Error {
        let of = if thing.is_empty() { "" } else { " of " };
        self.vm
            .error_of(request, &format!("{thing}{of}vcpu {}", self.id.0), errno)
    }

    /// A request about the vcpu; the caller has put its number into `param`.
    pub(crate) fn ioctl<T: Plain>(&self, request: Ioctl, param: &mut T) -> Result<(), Error> {
        platform::ioctl(self.vm.device(), request, param)
            .map_err(|errno| self.error(request, "", errno))
    }

    /// A request about something of the vcpu.
    pub(crate) fn ioctl_on<T: Plain>(
        &self,
        request: Ioctl,
        thing: impl std::fmt::Debug,
        param: &mut T,
    ) -> Result<(), Error> {
        platform::ioctl(self.vm.device(), request, param)
            .map_err(|errno| self.error(request, &format!("{thing:?}"), errno))
    }
}
