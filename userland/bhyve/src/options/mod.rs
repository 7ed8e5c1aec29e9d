//! The command line of bhyve(8) becomes variables of the configuration, exactly those that
//! FreeBSD 15's bhyve sets (bhyve_config(5)); the machine is built from the configuration
//! alone. 2013's options are understood beside today's ([`compat`]). Whether what a variable
//! asks for is part of this version is not decided here, but where the machine is built
//! ([`settings`](crate::settings), [`not_yet`]).

#![forbid(unsafe_code)]

mod compat;
mod cpus;
mod devices;
mod error;
mod file;

use cli::getopt::{self, Getopt};

use crate::config::Config;
use crate::devices::fwcfg::Item;
use crate::not_yet;

pub use compat::{VARIABLE, Year, year};
pub use devices::{COM_PORTS, LPC_DEVICES};
pub use error::OptionError;

/// FreeBSD 15's option string, then what only 2013's bhyve had.
pub const OPTSTRING: &str = "aehuwxACDHIPSWYk:f:o:p:G:c:s:m:n:l:K:U:r:bBg:M:z:";

/// Those that today's scripts have no use for.
pub const OF_2013: &str = "AIbBgMz";

/// What is set before any option is looked at.
const DEFAULTS: [(&str, &str); 6] = [
    ("acpi_tables", "true"),
    ("acpi_tables_in_memory", "true"),
    ("memory.size", DEFAULT_MEMORY),
    ("x86.strictmsr", "true"),
    ("x86.verbosemsr", "false"),
    ("lpc.fwcfg", "bhyve"),
];

/// What `memory.size` is without -m.
pub const DEFAULT_MEMORY: &str = "256M";

/// What the command line says.
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// All of it but -f, which sets no variables. It has a `name`.
    pub config: Config,
    /// -f.
    pub fwcfg: Vec<Item>,
    /// What the person should know about it, a line each.
    pub notes: Vec<String>,
}

/// What the command line asks for.
#[derive(PartialEq, Eq, Debug)]
pub enum Answer {
    Run(Box<Options>),
    /// The configuration's lines (config.dump).
    Dump(Vec<String>),
    Help,
    PciDevices,
    LpcDevices,
}

/// An option as it was typed.
struct Typed<'a> {
    name: char,
    arg: Option<&'a str>,
}

/// Takes the arguments (without `argv[0]`) apart. `environment` is the value of
/// [`VARIABLE`]. Files that options name are read.
pub fn parse(args: &[String], environment: Option<&str>) -> Result<Answer, OptionError> {
    let (typed, error, operands) = scan(args);
    let mut options = Options::default();
    for (path, value) in DEFAULTS {
        options.config.set(path, value)?;
    }
    compat::begin(&mut options.config, environment, &typed)?;
    for option in typed {
        if let Some(answer) = options.apply(&option)? {
            return Ok(answer);
        }
    }
    if let Some(error) = error {
        return Err(error.into());
    }
    options.finish(operands)
}

/// The options up to the first one that makes no sense to getopt(3), and the operands. What
/// 2013's forms mean may depend on options further on.
fn scan(args: &[String]) -> (Vec<Typed<'_>>, Option<getopt::Error>, &[String]) {
    let mut typed = Vec::new();
    let mut getopt = Getopt::new(args, OPTSTRING);
    while let Some(option) = getopt.next() {
        let (name, arg) = match option {
            // 2013's -S has a slot.
            Ok(option) if option.name == 'S' => ('S', getopt.take_if(devices::is_slot)),
            Ok(option) => (option.name, option.arg),
            Err(error) => return (typed, Some(error), getopt.operands()),
        };
        typed.push(Typed { name, arg });
    }
    (typed, None, getopt.operands())
}

impl Options {
    fn apply(&mut self, option: &Typed<'_>) -> Result<Option<Answer>, OptionError> {
        let arg = option.arg.unwrap_or_default();
        let config = &mut self.config;
        match option.name {
            'a' => config.set("x86.x2apic", "false")?,
            // ACPI tables are always built, and whether there is an I/O APIC is the kernel's
            // matter.
            'A' | 'I' => {}
            'c' => cpus::topology(config, arg)?,
            'C' => config.set("memory.guest_in_core", "true")?,
            'D' => config.set("destroy_on_poweroff", "true")?,
            'e' => config.set("x86.strictio", "true")?,
            'f' => self
                .fwcfg
                .push(Item::parse(arg).map_err(|error| OptionError::Invalid {
                    what: "fwcfg item",
                    text: arg.to_owned(),
                    why: Some(error.to_string()),
                })?),
            'G' => gdb(config, arg)?,
            'h' => return Ok(Some(Answer::Help)),
            'H' => config.set("x86.vmexit_on_hlt", "true")?,
            'k' => file::read(config, arg)?,
            'K' => config.set("keyboard.layout", arg)?,
            'l' if is_help(arg) => return Ok(Some(Answer::LpcDevices)),
            'l' => devices::lpc(config, arg)?,
            'm' => config.set("memory.size", arg)?,
            'n' => cpus::numa(config, arg)?,
            'o' => file::set(config, arg).map_err(|why| OptionError::Invalid {
                what: "configuration option",
                text: arg.to_owned(),
                why: Some(why),
            })?,
            'p' => cpus::pin(config, arg)?,
            'P' => config.set("x86.vmexit_on_pause", "true")?,
            'r' => return Err(OptionError::NotYet(not_yet::RESTORE)),
            's' if is_help(arg) => return Ok(Some(Answer::PciDevices)),
            's' => devices::pci(config, arg)?,
            'S' => match option.arg {
                Some(slot) => compat::legacy_device(config, slot)?,
                None => config.set("memory.wired", "true")?,
            },
            'u' => config.set("rtc.use_localtime", "false")?,
            'U' => config.set("uuid", arg)?,
            'w' => config.set("x86.strictmsr", "false")?,
            'W' => config.set("virtio_msix", "false")?,
            'x' if year(config)? == Year::Y2013 => compat::mux(config)?,
            'x' => config.set("x86.x2apic", "true")?,
            'Y' => config.set("x86.mptable", "false")?,
            name => compat::option(config, name, arg)?,
        }
        Ok(None)
    }

    /// What bhyve(8) does when all options are known.
    fn finish(mut self, operands: &[String]) -> Result<Answer, OptionError> {
        for name in ["bootrom", "bootvars"] {
            let old = format!("lpc.{name}");
            if let (Some(value), None) = (self.config.get(&old), self.config.get(name)) {
                self.notes
                    .push(format!("{old} is deprecated, use '-o {name}' instead"));
                self.config.set(name, &value)?;
            }
        }
        // Accepted everywhere, and of no use here.
        for (name, option, why) in [
            ("keyboard.layout", "-K", "there is no keyboard"),
            (
                "compat.hz",
                "-z",
                "the guest's clocks run as fast as they say",
            ),
        ] {
            if self.config.get(name).is_some() {
                self.notes.push(format!("{option} has no effect: {why}"));
            }
        }
        match operands {
            [] => {}
            [name] => self.config.set("name", name)?,
            _ => return Err(OptionError::Usage),
        }
        if self.config.get("name").is_none() {
            return Err(OptionError::Usage);
        }
        if self.config.bool("config.dump", false)? {
            return Ok(Answer::Dump(self.config.lines()));
        }
        Ok(Answer::Run(Box::new(self)))
    }
}

/// Any beginning of "help", as bhyve compares it, but not nothing.
fn is_help(arg: &str) -> bool {
    !arg.is_empty() && "help".starts_with(arg)
}

/// `[w][address:]port`.
fn gdb(config: &mut Config, text: &str) -> Result<(), OptionError> {
    let text = match text.strip_prefix('w') {
        Some(rest) => {
            config.set("gdb.wait", "true")?;
            rest
        }
        None => text,
    };
    let port = match text.rsplit_once(':') {
        Some((address, port)) => {
            config.set("gdb.address", address)?;
            port
        }
        None => text,
    };
    Ok(config.set("gdb.port", port)?)
}

#[cfg(test)]
mod tests;
