//! The tables against a model: a map from page number to page.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use proptest::prelude::*;

use super::*;

/// Table pages as the tests can look into them: what is allocated, and when to run out.
#[derive(Clone, Default, Debug)]
struct Tables(Rc<RefCell<Pool>>);

#[derive(Default, Debug)]
struct Pool {
    pages: BTreeMap<Hpa, [u64; ENTRIES]>,
    next: u64,
    /// Allocations that still succeed; `None` for all.
    left: Option<usize>,
}

impl Tables {
    fn count(&self) -> usize {
        self.0.borrow().pages.len()
    }

    fn allow(&self, allocations: Option<usize>) {
        self.0.borrow_mut().left = allocations;
    }
}

impl TableMemory for Tables {
    fn alloc(&mut self) -> Result<Hpa, Errno> {
        let mut pool = self.0.borrow_mut();
        if let Some(left) = &mut pool.left {
            *left = left.checked_sub(1).ok_or(Errno::ENOMEM)?;
        }
        pool.next += 1;
        let page = Hpa(0x8_0000_0000 + pool.next * PAGE_SIZE);
        pool.pages.insert(page, [0; ENTRIES]);
        Ok(page)
    }

    fn free(&mut self, table: Hpa) {
        assert!(
            self.0.borrow_mut().pages.remove(&table).is_some(),
            "freed twice: {table:?}"
        );
    }

    fn read(&self, table: Hpa, index: usize) -> u64 {
        self.0.borrow().pages[&table][index]
    }

    fn write(&mut self, table: Hpa, index: usize, entry: u64) {
        self.0
            .borrow_mut()
            .pages
            .get_mut(&table)
            .expect("a table in use")[index] = entry;
    }
}

const MIB_2: u64 = 2 << 20;
const GIB: u64 = 1 << 30;

fn new() -> (Ept<Tables>, Tables) {
    let tables = Tables::default();
    (Ept::new(tables.clone()).unwrap(), tables)
}

fn map_wb(ept: &mut Ept<Tables>, gpa: u64, hpa: u64, size: PageSize) -> Result<(), MapError> {
    ept.map(Gpa(gpa), Hpa(hpa), size, Prot::RWX, MemType::WriteBack)
}

#[test]
fn a_page_is_found_with_its_offset() {
    let (mut ept, _) = new();
    map_wb(&mut ept, 0x7fff_ffff_f000, 0x1234_5000, PageSize::Size4K).unwrap();
    let found = ept.translate(Gpa(0x7fff_ffff_fabc)).unwrap();
    assert_eq!(found.hpa, Hpa(0x1234_5abc));
    assert_eq!(found.size, PageSize::Size4K);
    assert_eq!(found.prot, Prot::RWX);
    assert_eq!(ept.translate(Gpa(0x7fff_ffff_e000)), None);
    assert_eq!(ept.mapped_bytes(), PAGE_SIZE);
}

#[test]
fn walk_gives_the_entries_down_to_the_leaf_or_the_gap() {
    let (mut ept, _) = new();
    map_wb(&mut ept, GIB, 0x4000_0000, PageSize::Size2M).unwrap();
    let (entries, count) = ept.walk(Gpa(GIB + 5));
    assert_eq!(count, 3);
    assert_eq!(entries[2], 0x4000_00b7);
    let (entries, count) = ept.walk(Gpa(GIB + MIB_2));
    assert_eq!((count, entries[2]), (3, 0));
    assert_eq!(ept.walk(Gpa(1 << 39)), ([0; 4], 1));
    assert_eq!(ept.walk(Gpa(GPA_LIMIT)), ([0; 4], 0));
}

#[test]
fn what_the_cpu_cannot_express_is_refused() {
    let (mut ept, tables) = new();
    let mut map =
        |gpa, hpa, size, prot| ept.map(Gpa(gpa), Hpa(hpa), size, prot, MemType::WriteBack);
    for (gpa, hpa, size, prot) in [
        (0x1001, 0, PageSize::Size4K, Prot::RWX),
        (0, 0x800, PageSize::Size4K, Prot::RWX),
        (0x1000, 0, PageSize::Size2M, Prot::RWX),
        (0, MIB_2, PageSize::Size1G, Prot::RWX),
        (GPA_LIMIT, 0, PageSize::Size4K, Prot::RWX),
        (0, 1 << 52, PageSize::Size4K, Prot::RWX),
        (0, 0, PageSize::Size4K, Prot::empty()),
        (0, 0, PageSize::Size4K, Prot::WRITE),
        (0, 0, PageSize::Size4K, Prot::EXECUTE),
    ] {
        assert_eq!(
            map(gpa, hpa, size, prot),
            Err(MapError::Invalid),
            "{gpa:#x} {hpa:#x}"
        );
    }
    assert_eq!(ept.unmap(Gpa(0x10), PAGE_SIZE), Err(MapError::Invalid));
    assert_eq!(ept.unmap(Gpa(0), 0x10), Err(MapError::Invalid));
    assert_eq!(
        ept.unmap(Gpa(PAGE_SIZE), u64::MAX - 0xfff),
        Err(MapError::Invalid)
    );
    assert_eq!(
        ept.unmap(Gpa(0), GPA_LIMIT + PAGE_SIZE),
        Err(MapError::Invalid)
    );
    assert_eq!(
        ept.protect(Gpa(0), PAGE_SIZE, Prot::empty()),
        Err(MapError::Invalid)
    );
    assert_eq!(tables.count(), 1);
}

#[test]
fn overlaps_are_refused_in_both_directions() {
    let (mut ept, tables) = new();
    map_wb(&mut ept, GIB + 0x3000, 0, PageSize::Size4K).unwrap();
    map_wb(&mut ept, 4 * GIB, 0, PageSize::Size1G).unwrap();
    let before = tables.count();
    for (gpa, size) in [
        (GIB + 0x3000, PageSize::Size4K),
        (GIB, PageSize::Size2M),
        (GIB, PageSize::Size1G),
        (4 * GIB, PageSize::Size1G),
        (4 * GIB + MIB_2, PageSize::Size2M),
        (5 * GIB - PAGE_SIZE, PageSize::Size4K),
    ] {
        assert_eq!(
            map_wb(&mut ept, gpa, 0, size),
            Err(MapError::Overlap),
            "{gpa:#x}"
        );
    }
    assert_eq!(tables.count(), before);
}

#[test]
fn a_hole_in_a_gigabyte_splits_it_twice() {
    let (mut ept, tables) = new();
    map_wb(&mut ept, 0, 7 * GIB, PageSize::Size1G).unwrap();
    assert_eq!(ept.unmap(Gpa(0xa_5000), PAGE_SIZE), Ok(Invept::Needed));
    assert_eq!(ept.translate(Gpa(0xa_5000)), None);
    let before = ept.translate(Gpa(0xa_4fff)).unwrap();
    assert_eq!(
        (before.hpa, before.size),
        (Hpa(7 * GIB + 0xa_4fff), PageSize::Size4K)
    );
    let far = ept.translate(Gpa(GIB - 1)).unwrap();
    assert_eq!((far.hpa, far.size), (Hpa(8 * GIB - 1), PageSize::Size2M));
    assert_eq!(ept.mapped_bytes(), GIB - PAGE_SIZE);
    assert_eq!(tables.count(), 4);
    assert_eq!(ept.unmap(Gpa(0), GPA_LIMIT), Ok(Invept::Needed));
    assert_eq!(tables.count(), 1);
    assert_eq!(ept.unmap(Gpa(0), GPA_LIMIT), Ok(Invept::NotNeeded));
}

#[test]
fn only_a_lost_permission_needs_invept() {
    let (mut ept, _) = new();
    map_wb(&mut ept, 0, 0, PageSize::Size2M).unwrap();
    assert_eq!(
        ept.protect(Gpa(0x1000), 0x2000, Prot::RX),
        Ok(Invept::Needed)
    );
    assert_eq!(ept.translate(Gpa(0x2fff)).unwrap().prot, Prot::RX);
    assert_eq!(ept.translate(Gpa(0x3000)).unwrap().prot, Prot::RWX);
    assert_eq!(ept.protect(Gpa(0), MIB_2, Prot::RWX), Ok(Invept::NotNeeded));
    assert_eq!(ept.translate(Gpa(0x2fff)).unwrap().prot, Prot::RWX);
    assert_eq!(
        ept.protect(Gpa(GIB), GIB, Prot::READ),
        Ok(Invept::NotNeeded)
    );
}

#[test]
fn without_memory_nothing_changes() {
    let (mut ept, tables) = new();
    for allowed in 0..3 {
        tables.allow(Some(allowed));
        assert_eq!(
            map_wb(&mut ept, GIB, 0, PageSize::Size4K),
            Err(MapError::NoMemory)
        );
        assert_eq!(tables.count(), 1, "with {allowed} allocations");
    }
    tables.allow(None);
    map_wb(&mut ept, 0, 0, PageSize::Size1G).unwrap();
    for allowed in 0..2 {
        tables.allow(Some(allowed));
        assert_eq!(ept.unmap(Gpa(0x5000), PAGE_SIZE), Err(MapError::NoMemory));
        assert_eq!(ept.translate(Gpa(0x5123)).unwrap().hpa, Hpa(0x5123));
        assert_eq!(ept.mapped_bytes(), GIB);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Map {
        page: u64,
        hpa_page: u64,
        size: PageSize,
        prot: Prot,
        mem_type: MemType,
    },
    Unmap {
        page: u64,
        pages: u64,
    },
    Protect {
        page: u64,
        pages: u64,
        prot: Prot,
    },
    /// So many allocations succeed from here on.
    Memory(Option<usize>),
}

/// Pages next to the boundaries where the tables change, and the last one.
fn page() -> impl Strategy<Value = u64> {
    let edges: Vec<u64> = alloc::vec![0, 512, 1024, 1 << 18, 2 << 18, 1 << 27, (1 << 36) - 1];
    (prop::sample::select(edges), 0u64..520).prop_map(|(base, n)| (base + n) % (1 << 36))
}

fn prot() -> impl Strategy<Value = Prot> {
    prop::sample::select(alloc::vec![Prot::READ, Prot::RW, Prot::RX, Prot::RWX])
}

fn size() -> impl Strategy<Value = PageSize> {
    // 1 GiB pages are 262144 pages of the model, so they are rarer.
    prop_oneof![
        8 => Just(PageSize::Size4K),
        4 => Just(PageSize::Size2M),
        1 => Just(PageSize::Size1G),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let mem_type = prop::sample::select(alloc::vec![MemType::WriteBack, MemType::Uncacheable]);
    let map = (page(), 0u64..(1 << 34), size(), prot(), mem_type).prop_map(
        |(page, hpa_page, size, prot, mem_type)| {
            let unit = size.bytes() / PAGE_SIZE;
            let (page, hpa_page) = (page / unit * unit, hpa_page / unit * unit);
            Op::Map {
                page,
                hpa_page,
                size,
                prot,
                mem_type,
            }
        },
    );
    let pages = prop_oneof![0u64..4, 0u64..1100, Just(1u64 << 18), Just(1u64 << 36)];
    prop_oneof![
        6 => map,
        3 => (page(), pages.clone()).prop_map(|(page, pages)| Op::Unmap { page, pages }),
        3 => (page(), pages, prot()).prop_map(|(page, pages, prot)| Op::Protect { page, pages, prot }),
        1 => prop::option::of(0usize..4).prop_map(Op::Memory),
    ]
}

/// Runs of pages that are mapped alike: first page, to (length, first host page, kind).
/// Runs, because a 1 GiB page is too many pages for a property test.
#[derive(Default)]
struct Model(BTreeMap<u64, Run>);

#[derive(Clone, Copy)]
struct Run {
    pages: u64,
    hpa_page: u64,
    prot: Prot,
    mem_type: MemType,
}

impl Model {
    /// Makes `page` the start of a run, if it is inside of one.
    fn cut(&mut self, page: u64) {
        let Some((&start, &run)) = self.0.range(..page).next_back() else {
            return;
        };
        if page < start + run.pages {
            let head = page - start;
            self.0.insert(start, Run { pages: head, ..run });
            let tail = Run {
                pages: run.pages - head,
                hpa_page: run.hpa_page + head,
                ..run
            };
            self.0.insert(page, tail);
        }
    }

    fn runs_in(&mut self, page: u64, pages: u64) -> Vec<u64> {
        self.cut(page);
        self.cut(page + pages);
        self.0
            .range(page..page + pages)
            .map(|(&start, _)| start)
            .collect()
    }

    fn find(&self, page: u64) -> Option<(u64, Prot, MemType)> {
        let (&start, run) = self.0.range(..=page).next_back()?;
        (page < start + run.pages).then(|| (run.hpa_page + page - start, run.prot, run.mem_type))
    }

    fn bytes(&self) -> u64 {
        self.0.values().map(|run| run.pages).sum::<u64>() * PAGE_SIZE
    }

    /// Where something could have gone wrong: around each edge of each run.
    fn interesting_pages(&self) -> BTreeSet<u64> {
        self.0
            .iter()
            .flat_map(|(&start, run)| {
                [
                    start.wrapping_sub(1),
                    start,
                    start + run.pages - 1,
                    start + run.pages,
                ]
            })
            .filter(|&page| page < GPA_LIMIT / PAGE_SIZE)
            .collect()
    }
}

/// Tables that the mappings need: the root, and those that lead to a leaf.
fn tables_in_use(ept: &Ept<Tables>) -> usize {
    fn below(ept: &Ept<Tables>, table: Hpa, level: Level) -> usize {
        let mut count = 1;
        let mut present = 0;
        for index in 0..ENTRIES {
            let entry = ept.read(table, index);
            if entry.is_present() {
                present += 1;
                if !entry.is_leaf(level) {
                    count += below(ept, entry.address(), level.below().expect("not a leaf"));
                }
            }
        }
        assert!(
            present > 0 || table == ept.root(),
            "an empty table was kept"
        );
        count
    }
    below(ept, ept.root(), Level::Pml4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_the_model_and_leaks_nothing(ops in prop::collection::vec(op(), 1..40)) {
        let (mut ept, tables) = new();
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::Memory(allocations) => tables.allow(allocations),
                Op::Map { page, hpa_page, size, prot, mem_type } => {
                    let pages = size.bytes() / PAGE_SIZE;
                    let (gpa, hpa) = (Gpa(page * PAGE_SIZE), Hpa(hpa_page * PAGE_SIZE));
                    let free = model.runs_in(page, pages).is_empty();
                    match ept.map(gpa, hpa, size, prot, mem_type) {
                        Ok(()) => {
                            prop_assert!(free);
                            model.0.insert(page, Run { pages, hpa_page, prot, mem_type });
                        }
                        Err(MapError::Overlap) => prop_assert!(!free),
                        Err(MapError::NoMemory) => prop_assert!(tables.0.borrow().left.is_some()),
                        Err(MapError::Invalid) => prop_assert!(false, "a valid map was refused"),
                    }
                }
                Op::Unmap { page, pages } => {
                    let pages = pages.min(GPA_LIMIT / PAGE_SIZE - page);
                    match ept.unmap(Gpa(page * PAGE_SIZE), pages * PAGE_SIZE) {
                        Ok(invept) => {
                            let gone = model.runs_in(page, pages);
                            prop_assert_eq!(invept == Invept::Needed, !gone.is_empty());
                            gone.iter().for_each(|start| { model.0.remove(start); });
                        }
                        Err(error) => {
                            prop_assert_eq!(error, MapError::NoMemory);
                            prop_assert!(tables.0.borrow().left.is_some());
                        }
                    }
                }
                Op::Protect { page, pages, prot } => {
                    let pages = pages.min(GPA_LIMIT / PAGE_SIZE - page);
                    match ept.protect(Gpa(page * PAGE_SIZE), pages * PAGE_SIZE, prot) {
                        Ok(invept) => {
                            let mut stricter = false;
                            for start in model.runs_in(page, pages) {
                                let run = model.0.get_mut(&start).expect("a run");
                                stricter |= !prot.contains(run.prot);
                                run.prot = prot;
                            }
                            prop_assert_eq!(invept == Invept::Needed, stricter);
                        }
                        Err(error) => {
                            prop_assert_eq!(error, MapError::NoMemory);
                            prop_assert!(tables.0.borrow().left.is_some());
                        }
                    }
                }
            }
            for page in model.interesting_pages() {
                let found = ept.translate(Gpa(page * PAGE_SIZE + 0x123));
                let found = found.map(|t| (t.hpa, t.prot, t.mem_type));
                let wanted = model.find(page);
                prop_assert_eq!(found, wanted.map(|(p, prot, mt)| (Hpa(p * PAGE_SIZE + 0x123), prot, mt)));
            }
            prop_assert_eq!(ept.mapped_bytes(), model.bytes());
            prop_assert_eq!(tables.count(), tables_in_use(&ept));
        }
        drop(ept);
        prop_assert_eq!(tables.count(), 0);
    }
}
