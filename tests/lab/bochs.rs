//! One run of Bochs: its folder under build/lab/runs, its boot medium, its process and its
//! serial lines.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::config::{Files, LabConfig};
use super::slot::{self, Slot};
use super::{boot_cd, firmware, workspace};

/// Folders of earlier runs that are kept.
const KEEP_RUNS: usize = 40;
/// For the emulator to connect its serial lines.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Starts the emulator and ends it when its standard input ends: with the harness, however
/// that ends.
const KEEPER: &str =
    r#""$@" </dev/null & bochs=$!; cat >/dev/null; kill $bochs 2>/dev/null; wait $bochs"#;

pub struct Bochs {
    folder: PathBuf,
    keeper: Child,
    /// Closing it ends the emulator.
    keeper_input: Option<ChildStdin>,
    agent: TcpStream,
    terminal: TcpListener,
    _slot: Slot,
}

impl Bochs {
    pub fn start(config: &LabConfig) -> Result<Bochs, String> {
        let slot = slot::acquire().map_err(|e| e.to_string())?;
        let folder = new_folder().map_err(|e| format!("build/lab/runs: {e}"))?;
        let iso = folder.join("boot.iso");
        boot_cd::make(config, &folder, &iso)?;
        let bios = firmware::bios(config.feature_control, &folder)?;
        let vga_bios = firmware::vga_bios()?;

        let agent_listener = TcpListener::bind("127.0.0.1:0").map_err(named("agent's port"))?;
        let terminal = TcpListener::bind("127.0.0.1:0").map_err(named("terminal's port"))?;
        let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
        let agent_port = port(&agent_listener).map_err(named("agent's port"))?;
        let terminal_port = port(&terminal).map_err(named("terminal's port"))?;

        let files = Files {
            folder: &folder,
            bios: &bios,
            vga_bios: &vga_bios,
            iso: &iso,
        };
        let write = |name: &str, text: &str| {
            fs::write(folder.join(name), text).map_err(named("Bochs's configuration"))
        };
        write(
            "bochsrc",
            &config.bochsrc(&files, agent_port, terminal_port),
        )?;
        // Debian's Bochs has its debugger on, which waits for `c` before it starts.
        write("debugger", "c\n")?;

        let output = File::create(folder.join("bochs.out")).map_err(named("bochs.out"))?;
        let errors = output.try_clone().map_err(named("bochs.out"))?;
        let mut keeper = Command::new("/bin/sh")
            .args([
                "-c", KEEPER, "lab", "bochs", "-q", "-f", "bochsrc", "-rc", "debugger",
            ])
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("bochs: {e}"))?;
        let keeper_input = keeper.stdin.take();

        let agent = match accept(&agent_listener) {
            Ok(stream) => stream,
            Err(error) => {
                drop(keeper_input);
                let _ = keeper.wait();
                return Err(format!(
                    "bochs did not connect its serial line: {error}; see {}",
                    folder.display()
                ));
            }
        };
        Ok(Bochs {
            folder,
            keeper,
            keeper_input,
            agent,
            terminal,
            _slot: slot,
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The serial line that the agent speaks on.
    pub fn command_line(&self) -> io::Result<TcpStream> {
        self.agent.try_clone()
    }

    /// The third serial line. Can be taken once.
    pub fn terminal(&self) -> io::Result<TcpStream> {
        accept(&self.terminal)
    }

    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("console.log")).unwrap_or_default())
            .into_owned()
    }
}

impl Drop for Bochs {
    fn drop(&mut self) {
        drop(self.keeper_input.take());
        let _ = self.keeper.wait();
        // The medium is large and made anew for each boot.
        let _ = fs::remove_file(self.folder.join("boot.iso"));
    }
}

/// Says what an I/O error was about.
pub(super) fn named(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + CONNECT_LIMIT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(e) => return Err(e),
        }
    }
}

/// build/lab/runs/NNNN, one more than the last; the oldest are removed.
pub(super) fn new_folder() -> io::Result<PathBuf> {
    let runs = workspace().join("build/lab/runs");
    fs::create_dir_all(&runs)?;
    let mut numbers: Vec<u32> = fs::read_dir(&runs)?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    for old in numbers.iter().rev().skip(KEEP_RUNS) {
        let _ = fs::remove_dir_all(runs.join(format!("{old:04}")));
    }
    let mut number = numbers.last().map_or(1, |last| last + 1);
    loop {
        let folder = runs.join(format!("{number:04}"));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            // Another process took it.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(e) => return Err(e),
        }
    }
}
