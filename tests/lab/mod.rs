//! The lab: an emulated VT-x machine (Bochs) that boots a host with our module and userland,
//! and runs commands there for the tests. The host is Linux, or FreeBSD when this crate is
//! built with the feature `freebsd-host` (`make freebsd-test`).
//!
//! ```no_run
//! use vmm_rs_e2e::lab::{Lab, LabConfig};
//! let mut lab = Lab::boot(LabConfig::default());
//! let output = lab.run("load_module && ls /dev/vmmctl");
//! assert!(output.success(), "{output}");
//! ```
//!
//! What differs between the hosts' commands has one name on both, such as `load_module`:
//! tests/lab/linux/words.sh and tests/lab/freebsd/words.sh, which docs/lab.md lists.
//!
//! A boot takes half a minute, so tests of one file share labs through [`shared`]. At most
//! two run at a time on a machine. Every failure panics with the folder of the logs:
//! `console.log` (the host kernel), `bochs.log`, `commands.log` (what ran, what it said).

pub mod bench;
mod bochs;
mod boot_cd;
mod config;
mod firmware;
mod line;
mod local;
mod shared;
mod slot;

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub use config::{CpuModel, FeatureControl, LabConfig};
pub use shared::{SharedLab, shared};

use bochs::Bochs;
use lab_agent::Frame;
use line::Line;
use local::Local;

/// What runs the module in the labs of this build.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Host {
    Linux,
    FreeBsd,
}

pub const HOST: Host = if cfg!(freebsd_host) {
    Host::FreeBsd
} else {
    Host::Linux
};

impl Host {
    /// What its kernel prints when it stops.
    fn panics(self) -> &'static [&'static str] {
        match self {
            Host::Linux => &["Kernel panic"],
            Host::FreeBsd => &["panic: ", "Fatal trap "],
        }
    }
}

/// Read by the host's shell before each command; a file of the host.
const WORDS: &str = "/root/words.sh";

/// Boots take about 30 s on an idle machine with one emulated CPU.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// For one command, unless the test says otherwise.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
/// A request is sent again when its answer hasn't started by then.
const RESEND_AFTER: Duration = Duration::from_secs(5);

/// What a command printed (stdout and stderr together) and its exit status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    pub command: String,
    /// As sh counts: 128 + signal number if a signal ended it.
    pub status: u32,
    pub text: String,
}

impl Output {
    pub fn success(&self) -> bool {
        self.status == 0
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "$ {}\n{}[status {}]",
            self.command, self.text, self.status
        )
    }
}

/// What a lab runs on.
enum Machine {
    Emulated(Bochs),
    /// This one.
    Local(Local),
}

impl Machine {
    fn folder(&self) -> &Path {
        match self {
            Machine::Emulated(bochs) => bochs.folder(),
            Machine::Local(local) => local.folder(),
        }
    }

    fn line(&self) -> io::Result<Line> {
        match self {
            Machine::Emulated(bochs) => bochs.command_line().and_then(Line::of_emulator),
            Machine::Local(local) => local.command_line().and_then(Line::of_agent),
        }
    }

    fn console(&self) -> String {
        match self {
            Machine::Emulated(bochs) => bochs.console(),
            Machine::Local(local) => local.console(),
        }
    }
}

/// A running lab. Dropping it ends the emulator.
pub struct Lab {
    machine: Machine,
    line: Line,
    words: String,
    /// commands.log.
    notes: File,
    next_id: u32,
    /// Set when a command didn't end: what the host does now is unknown.
    broken: bool,
}

impl Lab {
    /// Starts a machine and waits until its host takes commands. Panics, naming the logs,
    /// when it doesn't come up. On a FreeBSD host it is that host, whatever the configuration
    /// says.
    pub fn boot(config: LabConfig) -> Lab {
        let machine = if cfg!(native_host) {
            Local::native().map(Machine::Local)
        } else {
            Bochs::start(&config).map(Machine::Emulated)
        };
        let machine = machine.unwrap_or_else(|error| panic!("the lab did not start: {error}"));
        Lab::on(machine, WORDS)
    }

    /// A lab whose agent, on this machine, is started by this command (`lab_agent -`).
    pub fn with_agent(agent: Command, words: &str) -> Lab {
        let local = Local::start(agent);
        let local = local.unwrap_or_else(|error| panic!("the agent did not start: {error}"));
        Lab::on(Machine::Local(local), words)
    }

    fn on(machine: Machine, words: &str) -> Lab {
        let start = Instant::now();
        let line = machine
            .line()
            .unwrap_or_else(|error| panic!("the lab's line: {error}"));
        let notes = File::create(machine.folder().join("commands.log"))
            .unwrap_or_else(|error| panic!("commands.log: {error}"));
        let mut lab = Lab {
            machine,
            line,
            words: words.to_owned(),
            notes,
            next_id: 1,
            broken: false,
        };
        lab.wait_for("the boot", Instant::now() + BOOT_LIMIT, |frame| {
            (frame == Frame::Hello).then_some(())
        });
        lab.note(&format!("booted in {:.1} s", start.elapsed().as_secs_f32()));
        lab
    }

    /// Runs a command of the lab host's shell to its end.
    pub fn run(&mut self, command: &str) -> Output {
        self.run_within(COMMAND_LIMIT, command)
    }

    /// Like [`Lab::run`], for commands that may take longer (or must not take as long).
    pub fn run_within(&mut self, limit: Duration, command: &str) -> Output {
        self.run_streaming(limit, command, |_| ())
    }

    /// Like [`Lab::run`], and panics with its output unless it succeeds. The text.
    pub fn check(&mut self, command: &str) -> String {
        let output = self.run(command);
        assert!(
            output.success(),
            "{output}\nlogs: {}",
            self.logs().display()
        );
        output.text
    }

    /// Runs a command and hands its output to `on_output` as it comes.
    pub fn run_streaming(
        &mut self,
        limit: Duration,
        command: &str,
        mut on_output: impl FnMut(&[u8]),
    ) -> Output {
        let (id, deadline) = (self.next_id, Instant::now() + limit);
        self.next_id += 1;
        let mut bytes = Vec::new();
        self.request(id, command);
        let status = self.wait_for(command, deadline, |frame| match frame {
            Frame::Output {
                id: of,
                bytes: chunk,
            } if of == id => {
                on_output(&chunk);
                bytes.extend_from_slice(&chunk);
                None
            }
            Frame::End { id: of, status } if of == id => Some(status),
            _ => None,
        });
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let output = Output {
            command: command.to_owned(),
            status,
            text,
        };
        self.note(&output.to_string());
        output
    }

    /// For a lab in a state that nothing leads out of: the next test boots a new one.
    pub fn give_up(&mut self) {
        self.broken = true;
    }

    /// What the host's kernel has printed so far.
    pub fn console(&self) -> String {
        self.machine.console()
    }

    /// The folder with this lab's logs.
    pub fn logs(&self) -> &Path {
        self.machine.folder()
    }

    /// The third serial line: a terminal of the host, see `lab shell`.
    pub fn terminal(&self) -> io::Result<std::net::TcpStream> {
        match &self.machine {
            Machine::Emulated(bochs) => bochs.terminal(),
            Machine::Local(_) => Err(io::Error::other("this machine is the lab")),
        }
    }

    /// Adds to commands.log; a full disk must not fail a test.
    fn note(&mut self, text: &str) {
        let _ = writeln!(self.notes, "{text}");
    }

    /// Sends a request until the agent says that it has it.
    fn request(&mut self, id: u32, command: &str) {
        assert!(
            !self.broken,
            "an earlier command of this lab did not end; logs: {}",
            self.logs().display()
        );
        let frame = Frame::Run {
            id,
            command: format!(". {}\n{command}", self.words).into_bytes(),
        };
        for _ in 0..10 {
            self.line.send(&frame);
            let deadline = Instant::now() + RESEND_AFTER;
            while let Some(frame) = self.line.receive(deadline) {
                if matches!(frame, Frame::Started { id: of } if of == id) {
                    return;
                }
            }
            self.check_host("a request");
        }
        self.fail(command, "the host's agent does not answer");
    }

    /// The first frame for which `wanted` has an answer.
    fn wait_for<T>(
        &mut self,
        what: &str,
        deadline: Instant,
        mut wanted: impl FnMut(Frame) -> Option<T>,
    ) -> T {
        loop {
            // In slices, so that a panic of the host is seen at once.
            let slice = deadline.min(Instant::now() + Duration::from_millis(500));
            if let Some(answer) = self.line.receive(slice).and_then(&mut wanted) {
                return answer;
            }
            self.check_host(what);
            if Instant::now() >= deadline {
                self.fail(what, "did not end in time");
            }
        }
    }

    /// Panics if the host's kernel or the emulator has stopped.
    fn check_host(&mut self, during: &str) {
        if self.line.is_closed() {
            self.fail(during, "the emulator or the agent ended");
        }
        let console = self.console();
        if HOST.panics().iter().any(|line| console.contains(line)) {
            self.fail(during, "the host's kernel panicked");
        }
    }

    fn fail(&mut self, what: &str, why: &str) -> ! {
        self.broken = true;
        self.note(&format!("FAILED: {what}: {why}"));
        let console = self.console();
        let tail: Vec<&str> = console.lines().rev().take(30).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        panic!(
            "{what}: {why}\nend of the console:\n{}\nlogs: {}",
            tail.join("\n"),
            self.logs().display()
        );
    }
}

/// The top of the workspace.
fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
