//! The guest's linear memory, as instructions that are executed here access it: translated
//! by the kernel with all checks, page by page, and only then read or written.

#![forbid(unsafe_code)]

use vmmapi::{Error, Gla, Gpa, GuestPaging, Prot, Translation, Vcpu};

/// Translated bytes, by the pages that they are on.
pub type Place = Vec<(Gpa, usize)>;

/// Translates `len` bytes. `None`: an access faults, and the exception is injected.
pub fn translate(
    vcpu: &Vcpu,
    paging: &GuestPaging,
    gla: Gla,
    len: usize,
    prot: Prot,
) -> Result<Option<Place>, Error> {
    let mut place = Vec::with_capacity(2);
    let mut done = 0;
    while done < len {
        let at = vmm_core::cpu::segment::linear_offset(paging, gla, done as u64);
        match vcpu.gla2gpa(paging, at, prot)? {
            Translation::Fault => return Ok(None),
            Translation::Gpa(gpa) => {
                let part = (len - done).min(4096 - at.page_offset() as usize);
                place.push((gpa, part));
                done += part;
            }
        }
    }
    Ok(Some(place))
}

/// Reads what was translated; `bytes` is as long as that.
pub fn load(vcpu: &Vcpu, place: &Place, bytes: &mut [u8]) -> Result<(), Error> {
    let mut rest = bytes;
    for (gpa, len) in place {
        let (part, more) = rest.split_at_mut((*len).min(rest.len()));
        vcpu.vm().map_gpa(*gpa, part.len())?.copy_from(0, part)?;
        rest = more;
    }
    Ok(())
}

/// Writes what was translated; `bytes` is as long as that.
pub fn store(vcpu: &Vcpu, place: &Place, bytes: &[u8]) -> Result<(), Error> {
    let mut rest = bytes;
    for (gpa, len) in place {
        let (part, more) = rest.split_at((*len).min(rest.len()));
        vcpu.vm().map_gpa(*gpa, part.len())?.copy_to(0, part)?;
        rest = more;
    }
    Ok(())
}
