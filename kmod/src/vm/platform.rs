//! The rest of the VM as one vcpu's run loop reaches it: the kernel's devices at their
//! ports, the other vcpus through IPIs. INIT and start-up IPIs (SDM vol. 3A, 9.4) end
//! here as exits, because it is userland that starts and stops a vcpu's thread.

use core::sync::atomic::Ordering;

use vmm_core::devices::chipset::Chipset;
use vmm_core::devices::lapic::{ApicEffect, Signal};
use vmm_core::devices::{ApicMessage, DeliveryMode, Nanos};
use vmm_core::exit::{ExitKind, VmExit};
use vmm_core::types::{Errno, VcpuId, Vector};
use vmm_core::vcpu::Capability;

use super::Vm;
use super::ops::{Apic, Platform};
use super::vcpu::{Frozen, Vcpu};

/// One vcpu's view.
pub struct VcpuPlatform<'a> {
    pub vm: &'a Vm,
    pub vcpu: &'a Vcpu,
}

impl Platform for VcpuPlatform<'_> {
    fn port_in(&self, port: u16, bytes: u8) -> Option<u32> {
        Chipset::port(port).then(|| {
            self.vm
                .devices
                .access(|chipset, now, wires| chipset.port_in(port, bytes, now, wires))
        })
    }

    fn port_out(&self, port: u16, bytes: u8, value: u32) -> bool {
        let ours = Chipset::port(port);
        if ours {
            self.vm
                .devices
                .access(|chipset, now, wires| chipset.port_out(port, bytes, value, now, wires));
        }
        ours
    }

    fn apic_effect(&self, apic: &Apic, effect: ApicEffect) -> Option<ExitKind> {
        match effect {
            ApicEffect::None => None,
            ApicEffect::Timer => {
                self.arm_apic_timer(apic.deadline());
                None
            }
            ApicEffect::Eoi(vector) => {
                self.vm
                    .devices
                    .access(|chipset, _, wires| chipset.ioapic_eoi(vector, wires));
                None
            }
            ApicEffect::Ipi(message) => self.send_ipi(&message),
        }
    }

    fn pic_pending(&self) -> bool {
        self.vm.devices.pic_pending()
    }

    fn pic_acknowledge(&self) -> Vector {
        self.vm.devices.pic_acknowledge()
    }

    fn arm_apic_timer(&self, deadline: Option<Nanos>) {
        self.vcpu.arm_apic_timer(deadline);
    }
}

impl VcpuPlatform<'_> {
    fn send_ipi(&self, message: &ApicMessage) -> Option<ExitKind> {
        let devices = &self.vm.devices;
        match message.mode {
            DeliveryMode::Fixed
            | DeliveryMode::LowestPriority
            | DeliveryMode::Smi
            | DeliveryMode::Nmi
            | DeliveryMode::ExtInt => {
                devices.deliver(message, Some(self.vcpu.id));
                None
            }
            DeliveryMode::Init | DeliveryMode::StartUp => {
                let targets = devices.targets(&message.destination, self.vcpu.id);
                self.vcpu.ipi_targets.copy_from(&targets);
                Some(ExitKind::Ipi {
                    // The mode where the ICR has it (APIC_DELMODE_*).
                    mode: u32::from(message.mode as u8) << 8,
                    vector: message.vector.0,
                })
            }
        }
    }
}

/// What an exit for an IPI of `frozen`'s comes to; `None` if userland is not concerned.
pub fn ipi(vm: &Vm, frozen: &mut Frozen<'_>, exit: VmExit) -> Result<Option<VmExit>, Errno> {
    let ExitKind::Ipi { mode, vector } = exit.kind else {
        return Ok(Some(exit));
    };
    let targets = &frozen.vcpu.ipi_targets;
    // A userland that doesn't know the exit has VM_CAP_IPI_EXIT off.
    let exits = frozen
        .contents
        .backend
        .get_capability(Capability::IpiExit)?;
    if mode == u32::from(DeliveryMode::Init as u8) << 8 {
        vm.devices.for_each(targets, |target| {
            target.inbox.clear();
            target.inbox.signal(Signal::Init);
            target.requests.nmi.store(false, Ordering::SeqCst);
            vm.wait_for_sipi.insert(target.id);
            target.notify();
        });
        return Ok(exits.then_some(exit));
    }
    // A start-up IPI means something to a processor that waits for one only.
    let mut first = None;
    for id in (0..vm.max_vcpus()).map(VcpuId) {
        if !targets.contains(id) {
            continue;
        }
        if vm.wait_for_sipi.remove(id) {
            first = first.or(Some(id));
        } else {
            targets.remove(id);
        }
    }
    Ok(first.map(|vcpu| {
        if exits {
            return exit;
        }
        VmExit {
            kind: ExitKind::SpinupAp {
                vcpu,
                rip: u64::from(vector) << 12,
            },
            ..exit
        }
    }))
}
