//! A vcpu: who may touch it, and how other threads reach it while it runs.
//!
//! An ioctl works on a vcpu only after [`Vcpu::lock`] (bhyve's FROZEN state, so that each
//! vcpu has one user at a time); VM_RUN keeps the lock while the guest runs. Whoever
//! waits for it raises `requests.reqidle`, which makes a running vcpu come back, and gets
//! its turn before the vcpu's thread runs again.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::Deref;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use vmm_core::cpu::msr::MsrState;
use vmm_core::devices::Nanos;
use vmm_core::devices::lapic::{ApicPage, Inbox, Signal};
use vmm_core::regs::Reg;
use vmm_core::stats::VcpuStats;
use vmm_core::types::{Errno, HostCpu, VcpuId, Vector};
use vmm_core::vcpu::events::EventQueue;
use vmm_core::vcpu::state::VcpuState;

use super::cpuset::CpuSet;
use super::ops::{Apic, RunRequests, VcpuOps, VmOps, Watched, accept};
use crate::host::cpu;
use crate::host::mem::PageBox;
use crate::host::sync::{SxLock, SxWriteGuard, WaitQueue};
use crate::host::time::Timer;

pub struct Vcpu {
    link: Arc<Link>,
    /// The destinations of the INIT or start-up IPI that the vcpu has just sent.
    pub ipi_targets: CpuSet,
    /// Of the local APIC.
    apic_timer: Timer,
    turns: Turns,
    contents: SxLock<Contents>,
}

/// What others reach of a vcpu without locking it: other vcpus, devices, timers.
pub struct Link {
    pub id: VcpuId,
    pub requests: RunRequests,
    /// The local APIC's.
    pub inbox: Arc<Inbox>,
    pub stats: Arc<VcpuStats>,
    state: StateWord,
    /// Where the vcpu's own thread sleeps (HLT, waiting for the others to suspend).
    sleep: WaitQueue,
}

impl Deref for Vcpu {
    type Target = Link;
    fn deref(&self) -> &Link {
        &self.link
    }
}

/// What only the holder of the lock sees.
pub struct Contents {
    pub backend: Box<dyn VcpuOps>,
    pub events: EventQueue,
    pub msrs: MsrState,
    // Behind the backend, whose VMCS has its page: fields drop in order.
    pub apic: Watched<Apic>,
    /// Where the guest continues.
    pub next_rip: u64,
    /// The guest executed HLT and nothing has woken it since.
    pub halted: Option<Halted>,
}

/// A HLT that waits for its interrupt.
#[derive(Clone, Copy)]
pub struct Halted {
    /// RFLAGS.IF was clear: only an NMI or a reset can end it.
    pub interrupts_off: bool,
}

/// A locked vcpu (FROZEN).
pub struct Frozen<'a> {
    pub vcpu: &'a Vcpu,
    pub contents: SxWriteGuard<'a, Contents>,
    /// Given on after the contents' lock is released: fields drop in this order.
    _turn: Turn<'a>,
}

impl Vcpu {
    /// A vcpu in its reset state. `suspend` is the VM's.
    pub fn new(
        id: VcpuId,
        backend: &dyn VmOps,
        msrs: MsrState,
        suspend: Arc<AtomicU32>,
    ) -> Result<Self, Errno> {
        let inbox = Arc::new(Inbox::new());
        let stats = Arc::new(VcpuStats::new());
        let page: PageBox<ApicPage> = PageBox::new()?;
        let backend = backend.vcpu_init(id, page.hpa())?;
        let contents = Contents {
            backend,
            events: EventQueue::new(),
            msrs,
            apic: Watched::new(Apic::new(page, id, inbox.clone(), stats.clone())),
            next_rip: 0,
            halted: None,
        };
        let link = Arc::new(Link {
            id,
            requests: RunRequests {
                suspend,
                ..RunRequests::default()
            },
            inbox,
            stats,
            state: StateWord::new(),
            sleep: WaitQueue::new(c"vmidle")?,
        });
        let timed = link.clone();
        let apic_timer = Timer::new(Box::new(move |_| {
            timed.inbox.signal(Signal::Timer);
            timed.notify();
        }))?;
        Ok(Self {
            link,
            ipi_targets: CpuSet::new(),
            apic_timer,
            turns: Turns::new()?,
            contents: SxLock::new(c"vcpu", contents)?,
        })
    }

    /// For those that reach it without locking it.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The local APIC's timer is to go off then.
    pub fn arm_apic_timer(&self, deadline: Option<Nanos>) {
        self.apic_timer.set(deadline);
    }

    /// IDLE to FROZEN: waits until nobody else uses the vcpu.
    pub fn lock(&self) -> Frozen<'_> {
        let turn = self.turns.wait(&self.requests.reqidle, &|| self.notify());
        let contents = self.contents.write();
        self.state.set(VcpuState::Frozen);
        Frozen {
            vcpu: self,
            contents,
            _turn: turn,
        }
    }
}

impl Link {
    /// Makes the vcpu look at `requests` and its events soon: wakes its thread if it
    /// sleeps, kicks its CPU if the guest runs. Context: any.
    pub fn notify(&self) {
        match self.state.get() {
            VcpuState::Running(host_cpu) => cpu::kick(host_cpu),
            VcpuState::Sleeping => self.sleep.wake(),
            // It looks at its requests before it runs or sleeps.
            VcpuState::Frozen | VcpuState::Idle => {}
        }
    }
}

impl Frozen<'_> {
    /// Back to power-on (VM_REINIT).
    pub fn reset(&mut self) -> Result<(), Errno> {
        let contents = &mut *self.contents;
        contents.backend.reset()?;
        contents.events.clear();
        contents.msrs.reset();
        contents.apic.reset();
        self.vcpu.inbox.clear();
        self.vcpu.arm_apic_timer(None);
        contents.next_rip = 0;
        contents.halted = None;
        self.vcpu.requests.nmi.store(false, Ordering::SeqCst);
        self.vcpu.requests.debug.store(false, Ordering::SeqCst);
        self.vcpu.stats.reset();
        Ok(())
    }

    /// VM_INJECT_EXCEPTION, and faults that emulation finds: pending for the next entry.
    /// EBUSY if one is pending, EINVAL for what can't be injected. With `restart` the
    /// guest sees the fault at its current RIP, else behind the instruction.
    pub fn inject_exception(
        &mut self,
        vector: Vector,
        error_code: Option<u32>,
        restart: bool,
    ) -> Result<(), Errno> {
        let contents = &mut *self.contents;
        // Real mode pushes no error codes (SDM vol. 3A, 21.3).
        let real_mode = contents.backend.get_register(Reg::Cr0)? & 1 == 0;
        contents
            .events
            .inject_exception(vector, error_code.filter(|_| !real_mode))?;
        // An exception ends the blocking by STI and MOV SS (SDM table 25-3).
        contents.backend.set_register(Reg::IntrShadow, 0)?;
        if restart {
            contents.next_rip = contents.backend.get_register(Reg::Rip)?;
        }
        Ok(())
    }

    /// A fault of the instruction that exited.
    pub fn inject_fault(&mut self, vector: Vector, error_code: Option<u32>) -> Result<(), Errno> {
        self.inject_exception(vector, error_code, true)
    }

    /// VM_GET_REGISTER: the task priority (CR8) is the local APIC's.
    pub fn get_register(&mut self, reg: Reg) -> Result<u64, Errno> {
        match reg {
            Reg::Tpr => Ok(self.contents.apic.cr8().into()),
            _ => self.contents.backend.get_register(reg),
        }
    }

    /// VM_SET_REGISTER: RIP is also where the guest goes on.
    pub fn set_register(&mut self, reg: Reg, value: u64) -> Result<(), Errno> {
        const TPR_MAX: u64 = 15;
        let contents = &mut *self.contents;
        if reg == Reg::Tpr {
            if value > TPR_MAX {
                return Err(Errno::EINVAL);
            }
            contents.apic.set_cr8(value as u8);
            return Ok(());
        }
        contents.backend.set_register(reg, value)?;
        if reg == Reg::Rip {
            contents.next_rip = value;
            contents.halted = None;
        }
        Ok(())
    }

    /// FROZEN to RUNNING on `Some(cpu)`, and back with `None`.
    pub fn set_running(vcpu: &Vcpu, on: Option<HostCpu>) {
        vcpu.link
            .state
            .set(on.map_or(VcpuState::Frozen, VcpuState::Running));
    }

    /// Takes what others have sent to the local APIC.
    pub fn accept_interrupts(&mut self) {
        let contents = &mut *self.contents;
        if self.vcpu.inbox.is_empty() {
            return;
        }
        let clock = contents.backend.apic_clock();
        let vcpu = self.vcpu;
        accept(&mut contents.apic, &clock, &vcpu.requests, |deadline| {
            vcpu.arm_apic_timer(deadline);
        });
    }

    /// Sleeps until `wake()`, looked at after each [`Vcpu::notify`]; ends early with
    /// false when the thread has to go back to userland.
    pub fn sleep_until(&self, wake: &dyn Fn() -> bool) -> bool {
        self.vcpu.state.set(VcpuState::Sleeping);
        let ended = self.vcpu.sleep.wait_interruptible(wake, 0);
        self.vcpu.state.set(VcpuState::Frozen);
        ended.is_ok()
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.vcpu.state.set(VcpuState::Idle);
        // The contents' lock is released after this, when the fields drop.
    }
}

/// Who is next: a vcpu's thread that comes back at once must not overtake those that made
/// it leave, so turns are taken in the order of arrival.
struct Turns {
    /// Of the next to arrive.
    next: AtomicU64,
    /// Of the one whose turn it is.
    serving: AtomicU64,
    queue: WaitQueue,
}

/// One turn; dropping it makes it the next one's.
struct Turn<'a> {
    turns: &'a Turns,
    waiting: &'a AtomicU32,
}

impl Turns {
    fn new() -> Result<Self, Errno> {
        Ok(Self {
            next: AtomicU64::new(0),
            serving: AtomicU64::new(0),
            queue: WaitQueue::new(c"vmvcpu")?,
        })
    }

    /// Waits for the caller's turn, counted in `waiting` meanwhile; `hurry` asks the one
    /// whose turn it is to come to an end.
    fn wait<'a>(&'a self, waiting: &'a AtomicU32, hurry: &dyn Fn()) -> Turn<'a> {
        let mine = self.next.fetch_add(1, Ordering::SeqCst);
        let ready = || self.serving.load(Ordering::SeqCst) == mine;
        if !ready() {
            waiting.fetch_add(1, Ordering::SeqCst);
            hurry();
            self.queue.wait(&ready);
            waiting.fetch_sub(1, Ordering::SeqCst);
        }
        Turn {
            turns: self,
            waiting,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.serving.fetch_add(1, Ordering::SeqCst);
        // Who is not counted yet will find `serving` changed.
        if self.waiting.load(Ordering::SeqCst) != 0 {
            self.turns.queue.wake();
        }
    }
}

/// The vcpu's state in one word that notifiers read without a lock; writers hold the
/// vcpu's lock. SeqCst pairs it with `requests`: a requester sets its request and then
/// reads the state, the vcpu sets its state and then reads the requests.
struct StateWord(AtomicU64);

impl StateWord {
    fn new() -> Self {
        Self(AtomicU64::new(encode(VcpuState::Idle)))
    }

    fn get(&self) -> VcpuState {
        decode(self.0.load(Ordering::SeqCst))
    }

    /// One transition. A wrong one is a bug of ours.
    fn set(&self, to: VcpuState) {
        let mut state = self.get();
        let moved = if state == VcpuState::Idle {
            state.freeze().and(Ok(()))
        } else {
            state.set(to)
        };
        assert!(
            moved.is_ok() && state == to,
            "vcpu state {state:?} to {to:?}"
        );
        self.0.store(encode(to), Ordering::SeqCst);
    }
}

fn encode(state: VcpuState) -> u64 {
    match state {
        VcpuState::Idle => 0,
        VcpuState::Frozen => 1,
        VcpuState::Sleeping => 2,
        VcpuState::Running(cpu) => 3 + u64::from(cpu.0),
    }
}

fn decode(word: u64) -> VcpuState {
    match word {
        0 => VcpuState::Idle,
        1 => VcpuState::Frozen,
        2 => VcpuState::Sleeping,
        running => VcpuState::Running(HostCpu((running - 3) as u32)),
    }
}
