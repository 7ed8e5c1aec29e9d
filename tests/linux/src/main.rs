//! `guestcheck VERB…`: what the tests run in a Linux guest, and some of it on its host at the
//! same time. Each verb ends with status 0 and a line of what it did, or with status 1 and
//! a line of what is wrong.

#[cfg(target_arch = "x86_64")]
mod exchange;
#[cfg(target_arch = "x86_64")]
mod gdb;
#[cfg(target_arch = "x86_64")]
mod platform;
#[cfg(target_arch = "x86_64")]
mod records;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod shootdown;
#[cfg(target_arch = "x86_64")]
mod socket;
#[cfg(target_arch = "x86_64")]
mod stamp;
#[cfg(target_arch = "x86_64")]
mod state;
#[cfg(target_arch = "x86_64")]
mod vectors;

const USAGE: &str = "usage:
  guestcheck shootdown SECONDS      so long at least, threads on all CPUs remap what others read (Linux)
  guestcheck vectors SEED SECONDS   keeps values in all vector registers
  guestcheck state SEED SECONDS     keeps values in all registers on all CPUs, and a watchpoint
  guestcheck write FILE             writes and flushes records, one after the other, until killed
  guestcheck verify FILE COUNT      the first COUNT records are there
  guestcheck listen ADDRESS MIB     takes a connection, and sends and checks that much at once
  guestcheck connect ADDRESS MIB    the other end of that
  guestcheck socket PATH SEND WANT  connects to a socket, sends a file, gets what is in the other
  guestcheck gdb ADDRESS PACKET...  sends a debugger's packets, prints the answers
  guestcheck stamp                  copies lines, the host's clock in front of each
  guestcheck clock                  this kernel's monotonic clock, in seconds
  guestcheck tsc                    the time stamp counter";

#[cfg(target_arch = "x86_64")]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        #[cfg(target_os = "linux")]
        ["shootdown", seconds] => number(seconds).and_then(shootdown::run),
        ["vectors", seed, seconds] => {
            number(seed).and_then(|seed| vectors::run(seed, number(seconds)?))
        }
        ["state", seed, seconds] => {
            number(seed).and_then(|seed| state::run(seed, number(seconds)?))
        }
        ["write", file] => records::write(file.as_ref()),
        ["verify", file, count] => {
            number(count).and_then(|count| records::verify(file.as_ref(), count))
        }
        ["listen", address, mib] => number(mib).and_then(|mib| exchange::listen(address, mib)),
        ["connect", address, mib] => number(mib).and_then(|mib| exchange::connect(address, mib)),
        ["socket", path, send, want] => socket::run(path.as_ref(), send.as_ref(), want.as_ref()),
        ["gdb", address, ref packets @ ..] => gdb::run(address, packets),
        ["stamp"] => stamp::run(),
        ["clock"] => Ok(format!("{:.6}", stamp::monotonic())),
        ["tsc"] => {
            // SAFETY: Linux and FreeBSD leave CR4.TSD clear.
            Ok(format!("{}", unsafe { std::arch::x86_64::_rdtsc() }))
        }
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            println!("{text}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|e| format!("guestcheck: {text}: {e}\n{USAGE}"))
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    eprintln!("guestcheck runs on x86-64\n{USAGE}");
    std::process::exit(2);
}
