//! The agent: `lab_agent /dev/ttyS1`, started by the lab's init, or `lab_agent -` with a socket
//! as its standard input. Runs one command after the other as the harness asks, and sends back
//! output and exit status.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use lab_agent::{Frame, send_output};

fn main() {
    if let Err(error) = serve() {
        eprintln!("lab_agent: {error}");
        std::process::exit(1);
    }
}

fn serve() -> io::Result<()> {
    let path = std::env::args()
        .nth(1)
        .ok_or(io::Error::other("usage: lab_agent <serial line>"))?;
    let mut line = if path == "-" {
        File::from(io::stdin().as_fd().try_clone_to_owned()?)
    } else {
        let line = OpenOptions::new().read(true).write(true).open(path)?;
        make_raw(&line)?;
        line
    };
    let mut requests = BufReader::new(line.try_clone()?);
    let mut last = None;

    line.write_all(&Frame::Hello.encode())?;
    loop {
        let Frame::Run { id, command } = Frame::read(&mut requests)? else {
            continue;
        };
        line.write_all(&Frame::Started { id }.encode())?;
        if last == Some(id) {
            // The harness didn't see our first answer to it.
            continue;
        }
        last = Some(id);
        let status = run(id, &command, &mut line)?;
        line.write_all(&Frame::End { id, status }.encode())?;
    }
}

/// Runs the command with stdout and stderr in one pipe, so that their order is kept. It
/// has ended when nobody holds the pipe any more, background jobs of it included.
fn run(id: u32, command: &[u8], line: &mut File) -> io::Result<u32> {
    let script = format!("exec 2>&1\n{}", String::from_utf8_lossy(command));
    let mut child = Command::new("/bin/sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(output) = child.stdout.take() {
        send_output(id, output, |frame| line.write_all(&frame.encode()))?;
    }
    Ok(shell_status(child.wait()?))
}

fn shell_status(status: ExitStatus) -> u32 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    u32::try_from(code.unwrap_or(255)).unwrap_or(255)
}

/// The line carries bytes: no echo, no signals, no translation.
fn make_raw(line: &File) -> io::Result<()> {
    let status = Command::new("stty")
        .args(["raw", "-echo", "115200"])
        .stdin(line.try_clone()?)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other("stty failed"))
    }
}
