//! A lab that is this machine: the agent as a process of its own. That is how the tests run on
//! a FreeBSD host with VT-x, with tests/lab/freebsd/native around the agent, which gives it a
//! root folder like that of the emulated machine.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::bochs::{named, new_folder};
use super::workspace;

pub struct Local {
    folder: PathBuf,
    agent: Child,
    line: Option<UnixStream>,
}

impl Local {
    /// This machine as the host of the module.
    pub fn native() -> Result<Local, String> {
        Local::start(Command::new(workspace().join("tests/lab/freebsd/native")))
    }

    /// With an agent that this command starts, and which has its line on standard input.
    pub fn start(mut agent: Command) -> Result<Local, String> {
        let folder = new_folder().map_err(|e| format!("build/lab/runs: {e}"))?;
        let log = File::create(folder.join("console.log")).map_err(named("console.log"))?;
        let errors = log.try_clone().map_err(named("console.log"))?;
        let (ours, theirs) = UnixStream::pair().map_err(named("the agent's line"))?;
        let agent = agent
            .stdin(OwnedFd::from(theirs))
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("{}: {e}", agent.get_program().display()))?;
        Ok(Local {
            folder,
            agent,
            line: Some(ours),
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The line that the agent speaks on.
    pub fn command_line(&self) -> io::Result<UnixStream> {
        match &self.line {
            Some(line) => line.try_clone(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// What the agent, or what is around it, has said: why it did not start.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("console.log")).unwrap_or_default())
            .into_owned()
    }
}

impl Drop for Local {
    /// The agent ends with its line, and what is around it cleans up.
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            let _ = line.shutdown(std::net::Shutdown::Both);
        }
        let _ = self.agent.wait();
    }
}
