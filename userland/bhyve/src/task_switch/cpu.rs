//! The processor of a task switch: a vcpu.

#![forbid(unsafe_code)]

use vmmapi::{Error, Gla, Gpa, GuestPaging, Prot, Reg, SegDesc, SegReg, Vcpu};

use super::{Exception, TaskCpu};
use crate::linear;

impl TaskCpu for &Vcpu {
    type Error = Error;
    type Place = linear::Place;

    fn register(&mut self, reg: Reg) -> Result<u64, Error> {
        Vcpu::register(self, reg)
    }

    fn set_register(&mut self, reg: Reg, value: u64) -> Result<(), Error> {
        Vcpu::set_register(self, reg, value)
    }

    fn desc(&mut self, seg: SegReg) -> Result<SegDesc, Error> {
        Vcpu::desc(self, seg)
    }

    fn set_desc(&mut self, seg: SegReg, desc: SegDesc) -> Result<(), Error> {
        Vcpu::set_desc(self, seg, desc)
    }

    fn translate(
        &mut self,
        paging: &GuestPaging,
        gla: Gla,
        len: usize,
        write: bool,
    ) -> Result<Option<linear::Place>, Error> {
        let prot = if write { Prot::WRITE } else { Prot::READ };
        linear::translate(self, paging, gla, len, prot)
    }

    fn load(&mut self, place: &linear::Place, bytes: &mut [u8]) -> Result<(), Error> {
        linear::load(self, place, bytes)
    }

    fn store(&mut self, place: &linear::Place, bytes: &[u8]) -> Result<(), Error> {
        linear::store(self, place, bytes)
    }

    fn physical(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<Option<()>, Error> {
        match self.vm().map_gpa(gpa, bytes.len()) {
            Ok(memory) => memory.copy_from(0, bytes).map(Some),
            Err(Error::NotMemory { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn inject(&mut self, exception: Exception) -> Result<(), Error> {
        let Exception {
            vector,
            error_code,
            in_old_task,
        } = exception;
        self.inject_exception(vector, error_code, in_old_task)
    }

    fn event_delivered(&mut self) -> Result<(), Error> {
        self.set_intinfo(0)
    }
}
