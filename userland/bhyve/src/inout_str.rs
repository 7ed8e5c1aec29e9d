//! INS and OUTS, run here (SDM vol. 2, INS and OUTS): element by element, with the checks
//! of each memory operand, until the count is used up, a fault comes, or it is time to let
//! the vcpu look at its interrupts.

#![forbid(unsafe_code)]

use vmm_core::exit::InoutStr;
use vmmapi::{Error, Gla};

use crate::ports::{PortBus, Width};
use crate::segment::{self, Operation, SegmentFault};

/// Elements in one go; REP is interruptible between any two.
const BATCH: u64 = 16;
const RFLAGS_DF: u64 = 1 << 10;

/// The guest's memory, as one element needs it.
pub trait ElementMemory {
    /// What a translated operand is, until the device has answered.
    type Place;

    /// Translates an operand. `None`: the access faults, and the exception is injected.
    fn translate(
        &mut self,
        gla: Gla,
        len: usize,
        operation: Operation,
    ) -> Result<Option<Self::Place>, Error>;
    fn load(&mut self, place: &Self::Place, bytes: &mut [u8]) -> Result<(), Error>;
    fn store(&mut self, place: &Self::Place, bytes: &[u8]) -> Result<(), Error>;
}

/// Where the instruction stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// RSI or RDI, and RCX, of the address size.
    pub index: u64,
    pub count: u64,
    pub stop: Stop,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The next instruction is due.
    Done,
    /// This instruction again, for what is left.
    More,
    /// A fault is injected already.
    Faulted,
    /// This one is to be injected.
    Segment(SegmentFault),
    /// #AC.
    Alignment,
    /// No device is at the port, and that ends the run (-e).
    Unhandled,
}

/// Runs up to a batch of elements.
pub fn run<M: ElementMemory>(
    io: &InoutStr,
    width: Width,
    bus: &PortBus,
    strict: bool,
    memory: &mut M,
) -> Result<Progress, Error> {
    let mask = segment::address_mask(io.addrsize);
    let len = width.bytes();
    let operation = if io.inout.input {
        Operation::Write
    } else {
        Operation::Read
    };
    let mut at = Progress {
        index: io.index & mask,
        count: io.count & mask,
        stop: Stop::Done,
    };
    let mut left = at.count.min(BATCH);
    while left > 0 {
        let gla = segment::linear_address(
            &io.paging,
            io.seg,
            &io.seg_desc,
            at.index,
            u64::from(len),
            io.addrsize,
            operation,
        );
        let gla = match gla {
            Ok(gla) => gla,
            Err(fault) => {
                return Ok(Progress {
                    stop: Stop::Segment(fault),
                    ..at
                });
            }
        };
        let Some(place) = memory.translate(gla, usize::from(len), operation)? else {
            return Ok(Progress {
                stop: Stop::Faulted,
                ..at
            });
        };
        if segment::alignment_fault(io.paging.cpl, io.cr0, io.rflags, gla, u64::from(len)) {
            return Ok(Progress {
                stop: Stop::Alignment,
                ..at
            });
        }
        let mut bytes = [0; 4];
        let element = &mut bytes[..usize::from(len)];
        let handled = if io.inout.input {
            let value = bus.read(io.inout.port, width);
            element
                .copy_from_slice(&value.unwrap_or(width.mask()).to_le_bytes()[..usize::from(len)]);
            memory.store(&place, element)?;
            value.is_some()
        } else {
            memory.load(&place, element)?;
            bus.write(io.inout.port, width, u32::from_le_bytes(bytes))
        };
        if !handled && strict {
            return Ok(Progress {
                stop: Stop::Unhandled,
                ..at
            });
        }
        let step = u64::from(len);
        at.index = if io.rflags & RFLAGS_DF != 0 {
            at.index.wrapping_sub(step)
        } else {
            at.index.wrapping_add(step)
        } & mask;
        at.count -= 1;
        left -= 1;
    }
    if at.count > 0 {
        at.stop = Stop::More;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::tests::Recorder;
    use std::sync::Arc;
    use vmm_core::exit::Inout;
    use vmmapi::{CpuMode, GuestPaging, PagingMode, SegDesc, SegReg};

    /// Memory without paging in which one address faults.
    struct Flat {
        bytes: Vec<u8>,
        faulting: u64,
    }

    impl ElementMemory for Flat {
        type Place = usize;

        fn translate(
            &mut self,
            gla: Gla,
            len: usize,
            _operation: Operation,
        ) -> Result<Option<usize>, Error> {
            let at = gla.get() as usize;
            assert!(at + len <= self.bytes.len());
            Ok((gla.get() != self.faulting).then_some(at))
        }
        fn load(&mut self, place: &usize, bytes: &mut [u8]) -> Result<(), Error> {
            bytes.copy_from_slice(&self.bytes[*place..*place + bytes.len()]);
            Ok(())
        }
        fn store(&mut self, place: &usize, bytes: &[u8]) -> Result<(), Error> {
            self.bytes[*place..*place + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }
    }

    fn memory() -> Flat {
        Flat {
            bytes: (0..=255).collect(),
            faulting: u64::MAX,
        }
    }

    fn exit(input: bool, index: u64, count: u64) -> InoutStr {
        let paging = GuestPaging {
            cr3: 0,
            cpl: 0,
            cpu_mode: CpuMode::Protected,
            paging_mode: PagingMode::Flat,
        };
        InoutStr {
            inout: Inout {
                bytes: 1,
                input,
                string: true,
                rep: true,
                port: 0x100,
                eax: 0,
            },
            paging,
            rflags: 2,
            cr0: 1,
            index,
            count,
            addrsize: 4,
            seg: SegReg::Ds,
            seg_desc: SegDesc {
                base: 0,
                limit: u32::MAX,
                access: 0xc093,
            },
            cs_d: true,
            cs_base: 0,
        }
    }

    fn bus() -> (PortBus, Arc<Recorder>) {
        let device = Arc::new(Recorder::default());
        let bus = PortBus::default();
        bus.register("recorder", 0x100, 8, device.clone()).unwrap();
        (bus, device)
    }

    #[test]
    fn outs_sends_elements_in_order_and_stops_after_a_batch() {
        let (bus, device) = bus();
        let progress = run(
            &exit(false, 0x10, 20),
            Width::Byte,
            &bus,
            false,
            &mut memory(),
        )
        .unwrap();
        assert_eq!(
            progress,
            Progress {
                index: 0x20,
                count: 4,
                stop: Stop::More
            }
        );
        let progress = run(
            &exit(false, 0x20, 4),
            Width::Byte,
            &bus,
            false,
            &mut memory(),
        )
        .unwrap();
        assert_eq!(
            progress,
            Progress {
                index: 0x24,
                count: 0,
                stop: Stop::Done
            }
        );
        let sent: Vec<u32> = device.writes.lock().unwrap().iter().map(|w| w.2).collect();
        assert_eq!(sent, (0x10..0x24).collect::<Vec<u32>>());
    }

    #[test]
    fn ins_stores_elements_and_counts_down_with_the_direction_flag() {
        let (bus, _) = bus();
        let mut io = exit(true, 0x40, 2);
        io.inout.bytes = 2;
        io.rflags |= RFLAGS_DF;
        let mut memory = memory();
        let progress = run(&io, Width::Word, &bus, false, &mut memory).unwrap();
        assert_eq!(
            progress,
            Progress {
                index: 0x3c,
                count: 0,
                stop: Stop::Done
            }
        );
        assert_eq!(
            memory.bytes[0x3d..0x43],
            [0x3d, 0x00, 0x01, 0x00, 0x01, 0x42]
        );
        assert_eq!(memory.bytes[0x3e..0x42], [0, 1, 0, 1]);
    }

    #[test]
    fn a_fault_stops_at_its_element_before_the_device_is_touched() {
        let (bus, device) = bus();
        let mut memory = memory();
        memory.faulting = 0x12;
        let progress = run(&exit(false, 0x10, 5), Width::Byte, &bus, false, &mut memory).unwrap();
        assert_eq!(
            progress,
            Progress {
                index: 0x12,
                count: 3,
                stop: Stop::Faulted
            }
        );
        assert_eq!(device.writes.lock().unwrap().len(), 2);
        let mut io = exit(false, 0x10, 5);
        io.seg_desc.limit = 0x11;
        let progress = run(&io, Width::Byte, &bus, false, &mut memory).unwrap();
        let stop = Stop::Segment(SegmentFault::GeneralProtection);
        assert_eq!(
            progress,
            Progress {
                index: 0x12,
                count: 3,
                stop
            }
        );
    }

    #[test]
    fn index_wraps_at_the_address_size_and_a_zero_count_does_nothing() {
        let (bus, device) = bus();
        let mut io = exit(false, 0xff, 1);
        io.addrsize = 2;
        io.index = 0xabc_ffff;
        io.seg_desc.base = 0u64.wrapping_sub(0xff00) & 0xffff_ffff;
        let progress = run(&io, Width::Byte, &bus, false, &mut memory()).unwrap();
        assert_eq!(
            progress,
            Progress {
                index: 0,
                count: 0,
                stop: Stop::Done
            }
        );
        io.count = 0x1_0000;
        let progress = run(&io, Width::Byte, &bus, false, &mut memory()).unwrap();
        assert_eq!(
            progress,
            Progress {
                index: 0xffff,
                count: 0,
                stop: Stop::Done
            }
        );
        assert_eq!(device.writes.lock().unwrap().len(), 1);
    }

    #[test]
    fn ports_without_a_device_end_a_strict_run_only() {
        let bus = PortBus::default();
        let mut memory = memory();
        let stop = |strict, memory: &mut Flat| {
            run(&exit(true, 0x10, 1), Width::Byte, &bus, strict, memory)
                .unwrap()
                .stop
        };
        assert_eq!(stop(true, &mut memory), Stop::Unhandled);
        assert_eq!(stop(false, &mut memory), Stop::Done);
        assert_eq!(memory.bytes[0x10], 0xff);
    }

    #[test]
    fn unaligned_elements_raise_ac_where_it_is_on() {
        let (bus, _) = bus();
        let mut io = exit(false, 0x11, 1);
        io.inout.bytes = 2;
        io.paging.cpl = 3;
        io.cr0 |= 1 << 18;
        io.rflags |= 1 << 18;
        let progress = run(&io, Width::Word, &bus, false, &mut memory()).unwrap();
        assert_eq!(progress.stop, Stop::Alignment);
    }
}
