//! The checks that read instructions: which registers they use, and what lies where on
//! the stack. Function by function, as the symbol table has them.

use std::collections::BTreeSet;

use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, Formatter, Instruction, InstructionInfoFactory,
    IntelFormatter, Mnemonic, OpKind, Register,
};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use super::{Problem, Section};

pub fn check(
    object: &ElfFile64<'_>,
    section: &Section<'_, '_>,
    problems: &mut BTreeSet<Problem>,
) -> Result<(), String> {
    let bytes = section
        .data()
        .map_err(|e| format!("{}: {e}", section.name().unwrap_or("?")))?;
    for function in functions(object, section, bytes.len()) {
        let code = &bytes[function.start..function.end];
        let decoder = Decoder::with_ip(64, code, function.start as u64, DecoderOptions::NONE);
        let instructions: Vec<Instruction> = decoder.into_iter().collect();
        let place =
            |at: &Instruction| format!("{}+{:#x}", function.name, at.ip() - function.start as u64);
        for instruction in vector_users(&instructions) {
            problems.insert(Problem::VectorRegister {
                place: place(instruction),
                instruction: text(instruction),
            });
        }
        for instruction in red_zone_users(&instructions) {
            problems.insert(Problem::RedZone {
                place: place(instruction),
                instruction: text(instruction),
            });
        }
    }
    Ok(())
}

struct Function {
    name: String,
    start: usize,
    end: usize,
}

/// Each from its symbol to the next one; what is before the first has the section's name.
fn functions(object: &ElfFile64<'_>, section: &Section<'_, '_>, size: usize) -> Vec<Function> {
    let mut starts: Vec<(usize, String)> = object
        .symbols()
        .filter(|symbol| symbol.section_index() == Some(section.index()))
        .filter(|symbol| {
            matches!(
                symbol.kind(),
                SymbolKind::Text | SymbolKind::Label | SymbolKind::Unknown
            )
        })
        .filter_map(|symbol| {
            Some((
                usize::try_from(symbol.address()).ok()?,
                symbol.name().ok()?.to_owned(),
            ))
        })
        .filter(|(start, _)| *start < size)
        .collect();
    starts.push((0, section.name().unwrap_or("?").to_owned()));
    // The later of two symbols for one place is the function's own name, not the section's.
    starts.sort();
    starts.reverse();
    starts.dedup_by_key(|(start, _)| *start);
    let mut end = size;
    let mut functions: Vec<Function> = Vec::new();
    for (start, name) in starts {
        functions.push(Function { name, start, end });
        end = start;
    }
    functions
}

fn text(instruction: &Instruction) -> String {
    let mut out = String::new();
    IntelFormatter::new().format(instruction, &mut out);
    out
}

/// Instructions that read or write x87, MMX, SSE or AVX registers. Saving and restoring
/// the whole state (XSAVE and its kin) names none of them.
fn vector_users(instructions: &[Instruction]) -> impl Iterator<Item = &Instruction> {
    let mut info = InstructionInfoFactory::new();
    instructions.iter().filter(move |instruction| {
        if saves_or_loads_state(instruction.mnemonic()) {
            return false;
        }
        let vector = |register: Register| {
            register.is_vector_register() || register.is_mm() || register.is_st() || register.is_k()
        };
        // Most x87 instructions use the top of their stack without naming it.
        instruction.cpuid_features().contains(&CpuidFeature::FPU)
            || info
                .info(instruction)
                .used_registers()
                .iter()
                .any(|used| vector(used.register()))
    })
}

fn saves_or_loads_state(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Fxsave
            | M::Fxsave64
            | M::Fxrstor
            | M::Fxrstor64
            | M::Xsave
            | M::Xsave64
            | M::Xsaveopt
            | M::Xsaveopt64
            | M::Xsavec
            | M::Xsavec64
            | M::Xsaves
            | M::Xsaves64
            | M::Xrstor
            | M::Xrstor64
            | M::Xrstors
            | M::Xrstors64
            | M::Fninit
            | M::Ldmxcsr
            | M::Stmxcsr
    )
}

/// Instructions that use memory below the stack pointer: through RSP itself, or, in a
/// function that keeps RBP as its frame pointer, deeper than the function ever moves RSP.
fn red_zone_users(instructions: &[Instruction]) -> Vec<&Instruction> {
    let depth = frame_depth(instructions);
    instructions
        .iter()
        .filter(|instruction| accesses_memory(instruction))
        .filter(|instruction| {
            let below = (instruction.memory_displacement64() as i64)
                .checked_neg()
                .filter(|below| *below > 0);
            let fixed = instruction.memory_index() == Register::None;
            match (instruction.memory_base(), below) {
                (Register::RSP, Some(_)) => fixed,
                (Register::RBP, Some(below)) => fixed && depth.is_some_and(|depth| below > depth),
                _ => false,
            }
        })
        .collect()
}

fn accesses_memory(instruction: &Instruction) -> bool {
    let has_memory_operand = instruction.op_kinds().any(|kind| kind == OpKind::Memory);
    has_memory_operand
        && !matches!(
            instruction.mnemonic(),
            Mnemonic::Lea | Mnemonic::Nop | Mnemonic::Prefetcht0
        )
}

/// How far below RBP the function moves RSP; None if RBP is no frame pointer, or if RSP
/// moves by an amount that isn't in the code.
fn frame_depth(instructions: &[Instruction]) -> Option<i64> {
    let frame = instructions.iter().position(|i| {
        matches!(i.code(), Code::Mov_rm64_r64 | Code::Mov_r64_rm64)
            && i.op0_register() == Register::RBP
            && i.op1_register() == Register::RSP
    })?;
    let mut depth = 0i64;
    for instruction in &instructions[frame + 1..] {
        let writes_rsp = instruction.op0_register() == Register::RSP;
        match instruction.mnemonic() {
            Mnemonic::Push | Mnemonic::Call => depth += 8,
            Mnemonic::Sub if writes_rsp && instruction.op1_kind() != OpKind::Register => {
                depth = depth.checked_add(instruction.immediate(1) as i64)?;
            }
            // Back up again at the function's end.
            Mnemonic::Add | Mnemonic::Pop | Mnemonic::Leave => {}
            Mnemonic::Lea if writes_rsp && instruction.memory_base() == Register::RBP => {}
            _ if writes_rsp => return None,
            _ => {}
        }
    }
    Some(depth)
}
