//! The instruction that a vcpu is at: its bytes as they are in the guest's memory, and what
//! they mean. Reading it changes nothing in the guest.

#![forbid(unsafe_code)]

use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
use vmmapi::{CpuMode, Gla, GuestPaging, Prot, SegReg, Translation, Vcpu};

/// The longest instruction.
const INSTRUCTION_MAX: u64 = 15;

/// CS.D of a segment's access rights: 32-bit code (SDM vol. 3A, 3.4.5).
const ACCESS_D: u32 = 1 << 14;

/// One line: bytes and meaning, or why there are none.
pub fn describe(vcpu: &Vcpu, rip: u64) -> String {
    match code_at(vcpu, rip) {
        Ok((bytes, _)) if bytes.is_empty() => "instruction: none, rip is not mapped".to_owned(),
        Ok((bytes, bits)) => format!("instruction: {}", text(&bytes, bits, rip)),
        Err(error) => format!("instruction: {error}"),
    }
}

/// "0f 01 d0  xgetbv". Bytes that are no instruction are shown all.
fn text(bytes: &[u8], bits: u32, rip: u64) -> String {
    let mut decoder = Decoder::with_ip(bits, bytes, rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        return format!("{}  (no instruction in {bits}-bit code)", hex(bytes));
    }
    let mut meaning = String::new();
    NasmFormatter::new().format(&instruction, &mut meaning);
    let len = instruction.len().min(bytes.len());
    format!("{}  {meaning}", hex(&bytes[..len]))
}

fn hex(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}

/// Up to 15 bytes from RIP on, as far as they are mapped, and how wide code is there.
fn code_at(vcpu: &Vcpu, rip: u64) -> Result<(Vec<u8>, u32), vmmapi::Error> {
    let cs = vcpu.desc(SegReg::Cs)?;
    let cpl = (vcpu.desc(SegReg::Ss)?.access >> 5 & 3) as u8;
    let paging = vcpu.guest_paging(cpl)?;
    let (base, bits) = match paging.cpu_mode {
        CpuMode::Long64 => (0, 64),
        CpuMode::Real => (cs.base, 16),
        CpuMode::Protected | CpuMode::Compatibility if cs.access & ACCESS_D != 0 => (cs.base, 32),
        CpuMode::Protected | CpuMode::Compatibility => (cs.base, 16),
    };
    let start = base.wrapping_add(rip);
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < INSTRUCTION_MAX {
        let at = Gla(start.wrapping_add(bytes.len() as u64));
        let left = INSTRUCTION_MAX - bytes.len() as u64;
        let Some(mut part) = page_bytes(vcpu, &paging, at, left)? else {
            break;
        };
        bytes.append(&mut part);
    }
    Ok((bytes, bits))
}

/// The bytes at a linear address up to the end of its page; `None` if nothing is there.
fn page_bytes(
    vcpu: &Vcpu,
    paging: &GuestPaging,
    at: Gla,
    max: u64,
) -> Result<Option<Vec<u8>>, vmmapi::Error> {
    let Translation::Gpa(gpa) = vcpu.gla2gpa_nofault(paging, at, Prot::EXEC)? else {
        return Ok(None);
    };
    let len = max.min(4096 - at.page_offset());
    // Outside of memory there is nothing to show.
    Ok(vcpu
        .vm()
        .map_gpa(gpa, len as usize)
        .ok()
        .map(|range| range.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_shown_with_its_own_bytes() {
        let line = text(&[0x0f, 0x01, 0xd0, 0x90, 0x90], 64, 0);
        assert_eq!(line, "0f 01 d0  xgetbv");
        // The same bytes mean other things in other modes.
        assert_eq!(text(&[0x48, 0x89, 0xd8], 64, 0), "48 89 d8  mov rax,rbx");
        assert_eq!(text(&[0x48, 0x89, 0xd8], 32, 0), "48  dec eax");
        assert_eq!(text(&[0xeb, 0xfe], 16, 0x7c00), "eb fe  jmp short 7C00h");
    }

    #[test]
    fn bytes_that_are_no_instruction_are_shown_all() {
        let line = text(&[0x06, 0x07], 64, 0);
        assert_eq!(line, "06 07  (no instruction in 64-bit code)");
        let cut = text(&[0x48, 0xb8, 1, 2], 64, 0);
        assert!(cut.starts_with("48 b8 01 02  (no instruction"), "{cut}");
    }
}
