//! Every rule on page tables made by hand, in a memory of a few pages.

mod legacy;

use alloc::collections::BTreeMap;

use super::*;

/// Memory as 4-byte words; an address without a word in `words` is zero up to `end`, and
/// past it there is nothing.
#[derive(Default, Clone, PartialEq, Debug)]
struct Memory {
    words: BTreeMap<u64, u32>,
    /// The next compare-and-swap fails because another CPU stores this first.
    race: Option<(u64, u64)>,
    read_only: bool,
}

const END: u64 = 0x10_0000;

impl Memory {
    fn set32(&mut self, gpa: u64, value: u32) {
        self.words.insert(gpa, value);
    }
    fn set64(&mut self, gpa: u64, value: u64) {
        self.set32(gpa, value as u32);
        self.set32(gpa + 4, (value >> 32) as u32);
    }
    fn get64(&self, gpa: u64) -> u64 {
        let word = |at| u64::from(self.words.get(&at).copied().unwrap_or(0));
        word(gpa) | word(gpa + 4) << 32
    }
}

impl GuestMemory for Memory {
    fn read_u32(&mut self, gpa: Gpa) -> Option<u32> {
        assert_eq!(gpa.0 % 4, 0);
        (gpa.0 < END).then(|| self.words.get(&gpa.0).copied().unwrap_or(0))
    }
    fn read_u64(&mut self, gpa: Gpa) -> Option<u64> {
        assert_eq!(gpa.0 % 8, 0);
        (gpa.0 < END).then(|| self.get64(gpa.0))
    }
    fn cas_u32(&mut self, gpa: Gpa, old: u32, new: u32) -> Option<bool> {
        if self.read_only {
            return None;
        }
        let same = self.read_u32(gpa)? == old;
        if same {
            self.set32(gpa.0, new);
        }
        Some(same)
    }
    fn cas_u64(&mut self, gpa: Gpa, old: u64, new: u64) -> Option<bool> {
        if self.read_only {
            return None;
        }
        if let Some((at, value)) = self.race.take() {
            self.set64(at, value);
        }
        let same = self.get64(gpa.0) == old;
        if same {
            self.set64(gpa.0, new);
        }
        Some(same)
    }
}

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const PS: u64 = 0x80;
const RWU: u64 = P | W | U;

const LONG: PagingRegs = PagingRegs {
    cpu_mode: CpuMode::Long64,
    mode: PagingMode::Level4,
    cr3: 0x1000,
    wp: true,
    pse: false,
    smep: false,
    smap: false,
    nxe: true,
    ac: false,
    pkru: None,
    maxphyaddr: 46,
    page1gb: true,
};

const USER_READ: AccessBy = AccessBy::at_cpl(Access::Read, 3);
const USER_WRITE: AccessBy = AccessBy::at_cpl(Access::Write, 3);
const USER_FETCH: AccessBy = AccessBy::at_cpl(Access::Execute, 3);
const READ: AccessBy = AccessBy::at_cpl(Access::Read, 0);
const WRITE: AccessBy = AccessBy::at_cpl(Access::Write, 0);
const FETCH: AccessBy = AccessBy::at_cpl(Access::Execute, 0);

/// PML4, PDPT, PD, PT at 1000H, 2000H, 3000H, 4000H; 0x1_4060_3000 has index 0, 5, 3, 3.
const GLA: Gla = Gla(0x1_4060_3abc);
const ENTRIES: [u64; 4] = [0x1000, 0x2028, 0x3018, 0x4018];

/// The page of [`GLA`] at 0x1_2345_6000, with these rights on the way.
fn four_levels(rights: [u64; 4]) -> Memory {
    let mut mem = Memory::default();
    for (i, next) in [0x2000, 0x3000, 0x4000, 0x1_2345_6000]
        .into_iter()
        .enumerate()
    {
        mem.set64(ENTRIES[i], next | rights[i]);
    }
    mem
}

fn at(mem: &mut Memory, regs: &PagingRegs, gla: Gla, by: AccessBy) -> Result<Gpa, WalkError> {
    translate(mem, regs, gla, by, Flags::Leave)
}

fn fault(error_code: u32) -> Result<Gpa, WalkError> {
    Err(WalkError::PageFault { error_code })
}

#[test]
fn without_paging_addresses_are_physical() {
    let flat = PagingRegs {
        cpu_mode: CpuMode::Real,
        mode: PagingMode::Flat,
        ..LONG
    };
    let mut mem = Memory::default();
    assert_eq!(
        at(&mut mem, &flat, Gla(0xffff_fff0), WRITE),
        Ok(Gpa(0xffff_fff0))
    );
    // Linear addresses wrap at 4 GiB.
    assert_eq!(at(&mut mem, &flat, Gla(0x1_0000_0010), READ), Ok(Gpa(0x10)));
}

#[test]
fn four_level_pages_of_each_size() {
    let mut mem = four_levels([RWU; 4]);
    assert_eq!(at(&mut mem, &LONG, GLA, USER_WRITE), Ok(Gpa(0x1_2345_6abc)));
    mem.set64(ENTRIES[2], 0x8_4000_0000 | PS | RWU);
    assert_eq!(at(&mut mem, &LONG, GLA, USER_WRITE), Ok(Gpa(0x8_4000_3abc)));
    mem.set64(ENTRIES[1], 0x8_4000_0000 | PS | RWU);
    assert_eq!(at(&mut mem, &LONG, GLA, USER_WRITE), Ok(Gpa(0x8_4060_3abc)));
    // Flags of CR3 (PCID) are no address.
    let pcid = PagingRegs {
        cr3: 0x1fff,
        ..LONG
    };
    assert_eq!(at(&mut mem, &pcid, GLA, READ), Ok(Gpa(0x8_4060_3abc)));
}

#[test]
fn five_levels() {
    let mut mem = four_levels([RWU; 4]);
    // PML5 at 5000H.
    let regs = PagingRegs {
        mode: PagingMode::Level5,
        cr3: 0x5000,
        ..LONG
    };
    let gla = Gla(GLA.0 | 3 << 48);
    mem.set64(0x5018, 0x1000 | RWU);
    assert_eq!(at(&mut mem, &regs, gla, USER_READ), Ok(Gpa(0x1_2345_6abc)));
    assert_eq!(
        at(&mut mem, &LONG, gla, USER_READ),
        Err(WalkError::NonCanonical)
    );
    assert_eq!(
        at(&mut mem, &regs, Gla(1 << 56), READ),
        Err(WalkError::NonCanonical)
    );
}

#[test]
fn canonical_addresses() {
    assert!(is_canonical(0x7fff_ffff_ffff, 48));
    assert!(!is_canonical(0x8000_0000_0000, 48));
    assert!(is_canonical(0xffff_8000_0000_0000, 48));
    assert!(!is_canonical(0xffff_7fff_ffff_ffff, 48));
    assert!(is_canonical(0x8000_0000_0000, 57));
    let mut mem = four_levels([RWU; 4]);
    assert_eq!(
        at(&mut mem, &LONG, Gla(1 << 47), READ),
        Err(WalkError::NonCanonical)
    );
    // Compatibility mode has 32 bits of address, whatever is above.
    let compat = PagingRegs {
        cpu_mode: CpuMode::Compatibility,
        ..LONG
    };
    mem.set64(0x2008, 0x3000 | RWU);
    let gla = Gla(0xdead_0000_4060_3abc);
    assert_eq!(at(&mut mem, &compat, gla, READ), Ok(Gpa(0x1_2345_6abc)));
}

#[test]
fn an_entry_that_is_not_present() {
    for level in 0..4 {
        let mut rights = [RWU; 4];
        rights[level] = W | U;
        let mut mem = four_levels(rights);
        assert_eq!(at(&mut mem, &LONG, GLA, READ), fault(0));
        assert_eq!(at(&mut mem, &LONG, GLA, WRITE), fault(2));
        assert_eq!(at(&mut mem, &LONG, GLA, USER_READ), fault(4));
        assert_eq!(at(&mut mem, &LONG, GLA, USER_WRITE), fault(6));
        assert_eq!(at(&mut mem, &LONG, GLA, USER_FETCH), fault(0x14));
    }
}

#[test]
fn user_rights_count_at_every_level() {
    for level in 0..4 {
        let mut rights = [RWU; 4];
        rights[level] = P | W;
        let mut mem = four_levels(rights);
        assert_eq!(at(&mut mem, &LONG, GLA, USER_READ), fault(5));
        assert!(at(&mut mem, &LONG, GLA, WRITE).is_ok());
        rights[level] = P | U;
        let mut mem = four_levels(rights);
        assert_eq!(at(&mut mem, &LONG, GLA, USER_WRITE), fault(7));
        assert!(at(&mut mem, &LONG, GLA, USER_READ).is_ok());
        // A supervisor's write, with and without CR0.WP.
        assert_eq!(at(&mut mem, &LONG, GLA, WRITE), fault(3));
        let no_wp = PagingRegs { wp: false, ..LONG };
        assert!(at(&mut mem, &no_wp, GLA, WRITE).is_ok());
        assert_eq!(at(&mut mem, &no_wp, GLA, USER_WRITE), fault(7));
    }
}

#[test]
fn execute_disable_counts_at_every_level() {
    for level in 0..4 {
        let mut rights = [RWU; 4];
        rights[level] |= XD;
        let mut mem = four_levels(rights);
        assert_eq!(at(&mut mem, &LONG, GLA, USER_FETCH), fault(0x15));
        assert_eq!(at(&mut mem, &LONG, GLA, FETCH), fault(0x11));
        assert!(at(&mut mem, &LONG, GLA, USER_READ).is_ok());
        // Without EFER.NXE the bit is reserved, and fetches are reads.
        let no_nx = PagingRegs { nxe: false, ..LONG };
        assert_eq!(at(&mut mem, &no_nx, GLA, USER_READ), fault(0xd));
        assert_eq!(at(&mut mem, &no_nx, GLA, FETCH), fault(9));
        let smep = PagingRegs {
            smep: true,
            ..no_nx
        };
        assert_eq!(at(&mut mem, &smep, GLA, FETCH), fault(0x19));
    }
}

#[test]
fn smep_and_smap_keep_supervisors_off_user_pages() {
    let mut user = four_levels([RWU; 4]);
    let mut kernel = four_levels([RWU, RWU, P | W, RWU]);
    let smep = PagingRegs { smep: true, ..LONG };
    assert_eq!(at(&mut user, &smep, GLA, FETCH), fault(0x11));
    assert!(at(&mut user, &smep, GLA, USER_FETCH).is_ok());
    assert!(at(&mut kernel, &smep, GLA, FETCH).is_ok());
    let smap = PagingRegs { smap: true, ..LONG };
    assert_eq!(at(&mut user, &smap, GLA, READ), fault(1));
    assert_eq!(at(&mut user, &smap, GLA, WRITE), fault(3));
    assert!(
        at(&mut user, &smap, GLA, FETCH).is_ok(),
        "SMAP is about data"
    );
    assert!(at(&mut user, &smap, GLA, USER_READ).is_ok());
    assert!(at(&mut kernel, &smap, GLA, WRITE).is_ok());
    // STAC allows explicit accesses only.
    let stac = PagingRegs { ac: true, ..smap };
    assert!(at(&mut user, &stac, GLA, WRITE).is_ok());
    let implicit = AccessBy::implicit(Access::Read);
    assert_eq!(at(&mut user, &stac, GLA, implicit), fault(1));
    // WP is still to be minded, by who is allowed.
    let mut read_only = four_levels([RWU, RWU, RWU, P | U]);
    assert_eq!(at(&mut read_only, &stac, GLA, WRITE), fault(3));
    assert!(at(&mut user, &smap.without_smap(), GLA, READ).is_ok());
}

#[test]
fn reserved_bits() {
    let rsvd = fault(9);
    for level in 0..4 {
        // MAXPHYADDR is 46.
        for bit in [46, 51] {
            let mut rights = [RWU; 4];
            rights[level] |= 1 << bit;
            assert_eq!(at(&mut four_levels(rights), &LONG, GLA, READ), rsvd);
        }
        // 62:52 are the software's.
        let mut rights = [RWU; 4];
        rights[level] |= 0x7ff << 52;
        assert!(at(&mut four_levels(rights), &LONG, GLA, READ).is_ok());
    }
    // PS in a PML4E; in a PDPTE without 1 GiB pages; bits within a large page.
    let mut mem = four_levels([RWU | PS, RWU, RWU, RWU]);
    assert_eq!(at(&mut mem, &LONG, GLA, READ), rsvd);
    let mut mem = four_levels([RWU; 4]);
    mem.set64(ENTRIES[1], 0x4000_0000 | RWU | PS);
    assert!(at(&mut mem, &LONG, GLA, READ).is_ok());
    assert_eq!(
        at(
            &mut mem,
            &PagingRegs {
                page1gb: false,
                ..LONG
            },
            GLA,
            READ
        ),
        rsvd
    );
    for bit in [13, 20, 29] {
        mem.set64(ENTRIES[1], 1 << bit | RWU | PS);
        assert_eq!(at(&mut mem, &LONG, GLA, READ), rsvd);
    }
    let mut mem = four_levels([RWU; 4]);
    for bit in [13, 20] {
        mem.set64(ENTRIES[2], 1 << bit | RWU | PS);
        assert_eq!(at(&mut mem, &LONG, GLA, READ), rsvd);
    }
    // Bit 12 of a large page and bit 7 of a PTE are PAT.
    mem.set64(ENTRIES[2], 0x20_0000 | 1 << 12 | RWU | PS);
    assert_eq!(at(&mut mem, &LONG, GLA, READ), Ok(Gpa(0x20_3abc)));
    assert!(
        at(
            &mut four_levels([RWU, RWU, RWU, RWU | PS]),
            &LONG,
            GLA,
            READ
        )
        .is_ok()
    );
    // Not present: the rest of the entry says nothing.
    assert_eq!(
        at(&mut four_levels([1 << 51, RWU, RWU, RWU]), &LONG, GLA, READ),
        fault(0)
    );
}

#[test]
fn accessed_and_dirty_flags() {
    let mut mem = four_levels([RWU; 4]);
    let before = mem.clone();
    translate(&mut mem, &LONG, GLA, USER_READ, Flags::Leave).unwrap();
    assert_eq!(mem, before);
    translate(&mut mem, &LONG, GLA, USER_READ, Flags::Update).unwrap();
    for entry in ENTRIES {
        assert_eq!(
            mem.get64(entry) & (ACCESSED | DIRTY),
            ACCESSED,
            "{entry:#x}"
        );
    }
    translate(&mut mem, &LONG, GLA, USER_WRITE, Flags::Update).unwrap();
    assert_eq!(ENTRIES.map(|at| mem.get64(at) & DIRTY), [0, 0, 0, DIRTY]);
    assert_eq!(
        mem.get64(ENTRIES[3]),
        0x1_2345_6000 | RWU | ACCESSED | DIRTY
    );
    // A refused access leaves no marks.
    let mut mem = four_levels([RWU, RWU, RWU, P | W]);
    let before = mem.clone();
    assert_eq!(
        translate(&mut mem, &LONG, GLA, USER_WRITE, Flags::Update),
        fault(7)
    );
    assert_eq!(mem, before);
}

#[test]
fn an_entry_that_changes_meanwhile_is_walked_again() {
    let mut mem = four_levels([RWU; 4]);
    mem.race = Some((ENTRIES[0], P | W | 0x2000));
    assert_eq!(
        translate(&mut mem, &LONG, GLA, USER_READ, Flags::Update),
        fault(5)
    );
    let mut mem = four_levels([RWU; 4]);
    mem.race = Some((ENTRIES[3], RWU | 0x7000));
    assert_eq!(
        translate(&mut mem, &LONG, GLA, USER_WRITE, Flags::Update),
        Ok(Gpa(0x7abc))
    );
    assert_eq!(mem.get64(ENTRIES[3]), 0x7000 | RWU | ACCESSED | DIRTY);
}

#[test]
fn tables_outside_memory() {
    let mut mem = four_levels([RWU; 4]);
    mem.set64(ENTRIES[1], END | RWU);
    assert_eq!(
        at(&mut mem, &LONG, GLA, READ),
        Err(WalkError::NoMemory(Gpa(END + 0x18)))
    );
    let outside = PagingRegs { cr3: END, ..LONG };
    assert_eq!(
        at(&mut mem, &outside, Gla(0), READ),
        Err(WalkError::NoMemory(Gpa(END)))
    );
    // Tables in memory that cannot be written can be walked, not marked.
    let mut rom = four_levels([RWU; 4]);
    rom.read_only = true;
    assert!(at(&mut rom, &LONG, GLA, READ).is_ok());
    let marked = translate(&mut rom, &LONG, GLA, READ, Flags::Update);
    assert_eq!(marked, Err(WalkError::NoMemory(Gpa(0x1000))));
}

#[test]
fn protection_keys() {
    let key = 5u64;
    let mut mem = four_levels([RWU, RWU, RWU, RWU | key << 59]);
    let with = |rights: u32| PagingRegs {
        pkru: Some(rights << (2 * key)),
        ..LONG
    };
    assert!(at(&mut mem, &with(0), GLA, USER_WRITE).is_ok());
    assert_eq!(at(&mut mem, &with(1), GLA, USER_READ), fault(0x25));
    assert_eq!(at(&mut mem, &with(1), GLA, READ), fault(0x21));
    assert!(at(&mut mem, &with(1), GLA, USER_FETCH).is_ok());
    assert!(at(&mut mem, &with(2), GLA, USER_READ).is_ok());
    assert_eq!(at(&mut mem, &with(2), GLA, USER_WRITE), fault(0x27));
    assert_eq!(at(&mut mem, &with(2), GLA, WRITE), fault(0x23));
    let no_wp = PagingRegs {
        wp: false,
        ..with(2)
    };
    assert!(at(&mut mem, &no_wp, GLA, WRITE).is_ok());
    // Keys are for users' pages.
    let mut kernel = four_levels([RWU, RWU, RWU, P | W | key << 59]);
    assert!(at(&mut kernel, &with(1), GLA, WRITE).is_ok());
}

#[test]
fn registers_say_the_rules() {
    let paging = GuestPaging {
        cr3: 7,
        cpl: 0,
        cpu_mode: CpuMode::Long64,
        paging_mode: PagingMode::Level4,
    };
    let none = PagingRegs::new(&paging, &ControlRegs::default(), 46, false);
    let off = PagingRegs {
        cr3: 7,
        wp: false,
        nxe: false,
        page1gb: false,
        ..LONG
    };
    assert_eq!(none, off);
    let all = ControlRegs {
        cr0: !0,
        cr4: !0,
        efer: !0,
        rflags: !0,
        pkru: 9,
    };
    assert_eq!(
        PagingRegs::new(&paging, &all, 255, true),
        PagingRegs {
            cr3: 7,
            pse: true,
            smep: true,
            smap: true,
            ac: true,
            pkru: Some(9),
            maxphyaddr: 52,
            ..LONG
        }
    );
}

proptest::proptest! {
    /// Whatever is in the tables, a translation is an answer, below MAXPHYADDR, and the
    /// same when nothing changed in between.
    #[test]
    fn any_tables_give_an_answer(
        words in proptest::collection::vec(proptest::num::u32::ANY, 64),
        gla: u64,
        cr3 in 0u64..0x100,
        mode in 1usize..5,
        write: bool,
        user: bool,
    ) {
        let mut mem = Memory::default();
        for (i, word) in words.iter().enumerate() {
            // Pointers into the first page, most of them present.
            mem.set32(i as u64 * 4, word & 0x0000_00ff | 1);
        }
        let mode = [PagingMode::Flat, PagingMode::Bits32, PagingMode::Pae, PagingMode::Level4, PagingMode::Level5][mode];
        let regs = PagingRegs { cr3: cr3 & !0x1f, mode, ..LONG };
        let access = if write { Access::Write } else { Access::Read };
        let by = AccessBy { access, user, implicit: false };
        let gla = Gla(gla & 0x7fff_ffff_ffff & !(0x1f8 << 12) & !(0x1f8 << 21) & !(0x1f8 << 30) & !(0x1f8 << 39));
        let first = translate(&mut mem, &regs, gla, by, Flags::Leave);
        assert_eq!(translate(&mut mem, &regs, gla, by, Flags::Update), first);
        if let Ok(gpa) = first {
            assert!(gpa.0 < 1 << 46);
        }
    }
}
