//! The lab from the command line, for `make run` and `make lab`:
//!
//! * `lab linux`: Debian's kernel as a guest; with a terminal, a shell in it;
//! * `lab demo`: the life of a VM with a small guest program, start to end;
//! * `lab shell`: a shell on the lab host;
//! * `lab bench`: what an exit costs, in ticks of the emulated CPU;
//! * `lab run COMMAND...`: runs commands there, prints what they say.
//!
//! LAB_CPUS, LAB_MEMORY_MB, LAB_CPU_MODEL and LAB_KERNEL_ARGS change the machine.

use std::io::{self, IsTerminal, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use vmm_rs_e2e::lab::bench::{self, Results};
use vmm_rs_e2e::lab::{CpuModel, Lab, LabConfig};

/// The demonstration, as the lab host's shell runs it.
const DEMO: &str = include_str!("demo.sh");
const DEMO_LIMIT: Duration = Duration::from_secs(300);
/// A Linux guest takes as long as the lab's own host to boot, and some of the lab's CPUs.
const LINUX_LIMIT: Duration = Duration::from_secs(600);
/// A shell may stay open for a working day.
const SHELL_LIMIT: Duration = Duration::from_secs(24 * 3600);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((verb, [])) if verb == "linux" => config(1).and_then(linux),
        Some((verb, [])) if verb == "demo" => config(2).and_then(demo),
        Some((verb, [])) if verb == "shell" => config(1).and_then(shell),
        Some((verb, [])) if verb == "bench" => config(1).and_then(bench),
        Some((verb, commands)) if verb == "run" && !commands.is_empty() => {
            config(1).and_then(|c| run(c, commands))
        }
        _ => Err(
            "usage: lab linux | lab demo | lab shell | lab bench | lab run COMMAND...".to_owned(),
        ),
    };
    match result {
        Ok(code) => code,
        Err(message) => {
            eprintln!("lab: {message}");
            ExitCode::from(2)
        }
    }
}

/// The machine, as the environment wants it.
fn config(cpus: u32) -> Result<LabConfig, String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut config = LabConfig {
        cpus,
        ..LabConfig::default()
    };
    if let Some(cpus) = variable("LAB_CPUS") {
        config.cpus = match cpus.parse() {
            Ok(cpus @ 1..=8) => cpus,
            _ => return Err(format!("LAB_CPUS={cpus}: a number from 1 to 8 is needed")),
        };
    }
    if let Some(megabytes) = variable("LAB_MEMORY_MB") {
        config.memory_mb = match megabytes.parse() {
            Ok(megabytes @ 256..=16384) => megabytes,
            _ => {
                return Err(format!(
                    "LAB_MEMORY_MB={megabytes}: a number from 256 to 16384 is needed"
                ));
            }
        };
    }
    if let Some(name) = variable("LAB_CPU_MODEL") {
        config.cpu_model = CpuModel::ALL
            .into_iter()
            .find(|model| model.name() == name)
            .ok_or_else(|| {
                format!(
                    "LAB_CPU_MODEL={name}: one of {} is needed",
                    CpuModel::ALL.map(CpuModel::name).join(", ")
                )
            })?;
    }
    if let Some(arguments) = variable("LAB_KERNEL_ARGS") {
        config.kernel_args = arguments;
    }
    Ok(config)
}

fn boot(config: LabConfig) -> Lab {
    eprintln!(
        "==> booting the lab ({}, {} CPU), about half a minute",
        config.cpu_model.name(),
        config.cpus
    );
    Lab::boot(config)
}

/// With the Linux guest's files, and memory for a guest of that size.
fn with_linux(config: LabConfig) -> LabConfig {
    LabConfig {
        memory_mb: 1024,
        linux_guest: true,
        ..config
    }
}

fn linux(config: LabConfig) -> Result<ExitCode, String> {
    let mut lab = boot(with_linux(config));
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        return on_terminal(lab, "/linux/session");
    }
    let output = lab.run_streaming(LINUX_LIMIT, "/linux/session", print);
    if output.success() {
        eprintln!("==> the guest ran, turned itself off, and everything is torn down");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "*** the Linux guest failed (status {}); logs: {}",
        output.status,
        lab.logs().display()
    );
    Ok(ExitCode::FAILURE)
}

fn demo(config: LabConfig) -> Result<ExitCode, String> {
    let mut lab = boot(config);
    let output = lab.run_streaming(DEMO_LIMIT, DEMO, print);
    if output.success() {
        eprintln!("==> the guest ran and everything is torn down");
        Ok(ExitCode::SUCCESS)
    } else {
        eprintln!(
            "*** the demonstration failed (status {}); logs: {}",
            output.status,
            lab.logs().display()
        );
        Ok(ExitCode::FAILURE)
    }
}

fn bench(config: LabConfig) -> Result<ExitCode, String> {
    let mut lab = boot(with_linux(config));
    let output = lab.run_streaming(LINUX_LIMIT, bench::SCRIPT, |_| ());
    if !output.success() {
        eprintln!("*** {output}\nlogs: {}", lab.logs().display());
        return Ok(ExitCode::FAILURE);
    }
    let results = Results::parse(&output.text);
    let json = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/bench.json");
    results.save(&json)?;
    print(results.table().as_bytes());
    eprintln!("==> the same in {}", json.display());
    Ok(ExitCode::SUCCESS)
}

fn run(config: LabConfig, commands: &[String]) -> Result<ExitCode, String> {
    let mut lab = boot(with_linux(config));
    for command in commands {
        let output = lab.run_streaming(DEMO_LIMIT, command, print);
        if !output.success() {
            eprintln!(
                "*** status {}: {command}\nlogs: {}",
                output.status,
                lab.logs().display()
            );
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(bytes: &[u8]) {
    // The reader may be gone; the command's status counts.
    let _ = io::stdout()
        .write_all(bytes)
        .and_then(|()| io::stdout().flush());
}

/// A shell on the host.
fn shell(config: LabConfig) -> Result<ExitCode, String> {
    let lab = boot(with_linux(config));
    on_terminal(lab, "guest-shell")
}

/// Connects this terminal to a command that runs on the host's third serial line, with
/// kind and size of the terminal as further arguments.
fn on_terminal(mut lab: Lab, command: &str) -> Result<ExitCode, String> {
    let line = lab
        .terminal()
        .map_err(|e| format!("the lab's terminal: {e}"))?;
    let clone = || {
        line.try_clone()
            .map_err(|e| format!("the lab's terminal: {e}"))
    };
    let (to_host, mut from_host) = (clone()?, clone()?);
    let (rows, columns) = terminal_size();
    let terminal = std::env::var("TERM").unwrap_or_else(|_| "vt100".to_owned());
    let raw = RawTerminal::enter();

    thread::spawn(move || forward_input(to_host));
    let printer = thread::spawn(move || io::copy(&mut from_host, &mut io::stdout().lock()));
    let command = format!(
        "setsid -c {command} {terminal} {rows} {columns} </dev/ttyS2 >/dev/ttyS2 2>&1; sleep 1"
    );
    let output = lab.run_within(SHELL_LIMIT, &command);
    drop(raw);
    drop(lab);
    let _ = printer.join();
    Ok(if output.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Keys to the host, until it or the keyboard is gone. At the pace of a fast typist: the
/// emulated UART drops what the host doesn't fetch in time, and pasted text comes at once.
fn forward_input(mut to_host: TcpStream) {
    const PACE: Duration = Duration::from_millis(3);
    let mut buffer = [0; 256];
    while let Ok(n @ 1..) = io::stdin().read(&mut buffer) {
        for key in &buffer[..n] {
            if to_host.write_all(std::slice::from_ref(key)).is_err() {
                return;
            }
            thread::sleep(PACE);
        }
    }
    // Ctrl-D, for input that was not a terminal.
    let _ = to_host.write_all(&[4]);
}

/// This terminal without echo and line editing, which the host's does; restored on drop.
struct RawTerminal {
    saved: Option<String>,
}

impl RawTerminal {
    fn enter() -> RawTerminal {
        let saved = if io::stdin().is_terminal() {
            stty(&["-g"])
        } else {
            None
        };
        if saved.is_some() {
            stty(&["raw", "-echo"]);
        }
        RawTerminal { saved }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            stty(&[saved.as_str()]);
        }
    }
}

fn stty(arguments: &[&str]) -> Option<String> {
    let output = Command::new("stty")
        .args(arguments)
        .stdin(Stdio::inherit())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn terminal_size() -> (u32, u32) {
    let size = stty(&["size"]).unwrap_or_default();
    let mut numbers = size.split(' ').map(|number| number.parse().unwrap_or(0));
    match (numbers.next(), numbers.next()) {
        (Some(rows @ 1..), Some(columns @ 1..)) => (rows, columns),
        _ => (24, 80),
    }
}
