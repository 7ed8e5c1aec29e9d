//! Guest memory as the kernel reads it: from btext's stack through the page tables to the list
//! of files and the environment (sys/kern/subr_module.c).

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::elf::BASE;
use crate::plan::{Plan, Start};

pub struct Memory<'a>(&'a Plan<'static>);

impl Memory<'_> {
    /// Bytes at a physical address; what nothing was put at is zero.
    pub fn bytes(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        for piece in &self.0.pieces {
            for (n, byte) in piece.data.iter().enumerate() {
                let at = piece.gpa + n as u64;
                if let Some(place) = at.checked_sub(gpa).and_then(|n| out.get_mut(n as usize)) {
                    *place = *byte;
                }
            }
        }
        out
    }

    pub fn u32(&self, gpa: u64) -> u32 {
        u32::from_le_bytes(self.bytes(gpa, 4).try_into().unwrap())
    }

    pub fn u64(&self, gpa: u64) -> u64 {
        u64::from_le_bytes(self.bytes(gpa, 8).try_into().unwrap())
    }

    pub fn text(&self, gpa: u64) -> String {
        let bytes = self.bytes(gpa, 4096);
        String::from_utf8(bytes.split(|b| *b == 0).next().unwrap().to_vec()).unwrap()
    }

    /// What a virtual address is in the page tables that the vcpu begins with.
    pub fn translate(&self, page_tables: u64, address: u64) -> u64 {
        let mut table = page_tables;
        for shift in [39, 30] {
            let entry = self.u64(table + 8 * (address >> shift & 511));
            assert_eq!(entry & 0b1000_0011, 0b11);
            table = entry & !0xfff;
        }
        let entry = self.u64(table + 8 * (address >> 21 & 511));
        assert_eq!(entry & 0b1000_0011, 0b1000_0011);
        (entry & !0x1f_ffff) | address & 0x1f_ffff
    }
}

/// One file as the list tells it.
#[derive(Default, Debug)]
pub struct Entry {
    pub name: String,
    pub kind: String,
    pub arguments: String,
    pub address: u64,
    pub size: u64,
    pub metadata: BTreeMap<u32, (u64, u32)>,
}

/// What a kernel finds.
pub struct Found<'a> {
    pub memory: Memory<'a>,
    pub files: Vec<Entry>,
    pub environment: Vec<String>,
}

impl Found<'_> {
    pub fn metadata(&self, kind: u32) -> u64 {
        self.memory.u64(self.files[0].metadata[&kind].0)
    }

    pub fn variable(&self, name: &str) -> Option<&str> {
        let find = |v: &'_ String| v.split_once('=').is_some_and(|(n, _)| n == name);
        let variable = self.environment.iter().find(|v| find(v))?;
        variable.split_once('=').map(|(_, value)| value)
    }

    pub fn howto(&self) -> u32 {
        self.metadata(7) as u32
    }

    pub fn names(&self) -> Vec<&str> {
        self.files.iter().map(|file| file.name.as_str()).collect()
    }
}

pub fn read<'a>(plan: &'a Plan<'static>) -> Found<'a> {
    let memory = Memory(plan);
    let Start::FreeBsd {
        entry,
        page_tables,
        gdt,
        stack,
    } = plan.start
    else {
        panic!("not FreeBSD's state");
    };
    assert_eq!((entry, stack), (BASE + 4, 0x1000));
    // btext: the stack's words, through the page tables.
    let word = |n| memory.u32(memory.translate(page_tables, stack + n));
    let (modulep, kernel_end) = (u64::from(word(4)), u64::from(word(8)));
    assert_eq!(memory.u64(gdt + 8), 0x0020_9a00_0000_0000);
    assert_eq!(memory.u64(gdt + 16), 0x0000_9200_0000_0000);
    assert_eq!(memory.translate(page_tables, BASE), 0x20_0000);
    assert_eq!(memory.translate(page_tables, 0x20_0000), 0x20_0000);

    let mut files: Vec<Entry> = Vec::new();
    let mut at = modulep;
    loop {
        let (kind, len) = (memory.u32(at), memory.u32(at + 4));
        let value = at + 8;
        at = value + u64::from(len).next_multiple_of(8);
        match kind {
            0 => break,
            1 => files.push(Entry {
                name: memory.text(value),
                ..Entry::default()
            }),
            _ => {
                let file = files.last_mut().expect("a name comes first");
                match kind {
                    2 => file.kind = memory.text(value),
                    3 => file.address = memory.u64(value),
                    4 => file.size = memory.u64(value),
                    6 => file.arguments = memory.text(value),
                    _ => {
                        assert_eq!(kind & !0x7fff, 0x8000, "{kind:#x}");
                        file.metadata.insert(kind & 0x7fff, (value, len));
                    }
                }
            }
        }
    }
    let mut found = Found {
        memory,
        files,
        environment: Vec::new(),
    };
    // Nothing overlaps, and the kernel's free memory begins behind all of it.
    let mut end = 0;
    for file in &found.files {
        assert!(file.address >= end && file.address % 4096 == 0, "{file:?}");
        end = file.address + file.size;
    }
    let envp = found.metadata(6);
    assert!(envp >= end && modulep > envp && envp % 4096 == 0);
    assert_eq!(found.metadata(8), kernel_end);
    assert!(kernel_end >= at && kernel_end % 4096 == 0);
    let mut at = envp;
    loop {
        let variable = found.memory.text(at);
        at += variable.len() as u64 + 1;
        if variable.is_empty() {
            break;
        }
        found.environment.push(variable);
    }
    assert!(at <= modulep);
    found
}
