//! The loader's variables, which become the kernel's environment (kenv(1)), and the
//! boothowto flags that some of them stand for (sys/kern/subr_boot.c, reboot(2)).

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

/// Flags of reboot(2).
pub mod howto {
    pub const ASKNAME: u32 = 0x1;
    pub const SINGLE: u32 = 0x2;
    pub const DFLTROOT: u32 = 0x20;
    pub const KDB: u32 = 0x40;
    pub const VERBOSE: u32 = 0x800;
    pub const SERIAL: u32 = 0x1000;
    pub const CDROM: u32 = 0x2000;
    pub const GDB: u32 = 0x8000;
    pub const MUTE: u32 = 0x1_0000;
    pub const PAUSE: u32 = 0x10_0000;
    pub const MUTEMSGS: u32 = 0x80_0000;
    pub const PROBE: u32 = 0x1000_0000;
    pub const MULTIPLE: u32 = 0x2000_0000;
}

/// The variables that stand for a flag when they are set to anything but "no", and the
/// letter of boot(8) that does too.
const FLAGS: [(&str, char, u32); 12] = [
    ("boot_askname", 'a', howto::ASKNAME),
    ("boot_cdrom", 'C', howto::CDROM),
    ("boot_ddb", 'd', howto::KDB),
    ("boot_dfltroot", 'r', howto::DFLTROOT),
    ("boot_gdb", 'g', howto::GDB),
    ("boot_multicons", 'D', howto::MULTIPLE),
    ("boot_mute", 'm', howto::MUTE),
    ("boot_mutemsgs", 'M', howto::MUTEMSGS),
    ("boot_pause", 'p', howto::PAUSE),
    ("boot_serial", 'h', howto::SERIAL),
    ("boot_single", 's', howto::SINGLE),
    ("boot_verbose", 'v', howto::VERBOSE),
];

/// The variables, sorted by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Sets a variable and gives its former value. A NUL would end the kernel's view of it,
    /// so that text goes as far as the first one.
    pub fn set(&mut self, name: &str, value: &str) -> Option<String> {
        let clean = |text: &str| text.split('\0').next().unwrap_or_default().to_owned();
        self.variables.insert(clean(name), clean(value))
    }

    pub fn set_default(&mut self, name: &str, value: &str) {
        if self.get(name).is_none() {
            self.set(name, value);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    pub fn unset(&mut self, name: &str) {
        self.variables.remove(name);
    }

    /// `name=value`, or a name alone, which is set to nothing.
    pub fn put(&mut self, text: &str) {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if !name.is_empty() {
            self.set(name, value);
        }
    }

    /// As the kernel takes it: `name=value`, each ended by a NUL, and one more NUL.
    pub fn block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in &self.variables {
            block.extend(name.bytes().chain([b'=']).chain(value.bytes()).chain([0]));
        }
        block.push(0);
        block
    }

    /// The flags that the kernel's arguments (`-sv name=value`) and the variables stand for.
    /// Variables among the arguments are set.
    pub fn boothowto(&mut self, arguments: &str) -> u32 {
        let mut flags = 0;
        for word in arguments.split_ascii_whitespace() {
            match word.strip_prefix('-') {
                Some(letters) => flags |= self.letters(letters),
                None if word.contains('=') => self.put(word),
                None => {
                    self.set(word, "1");
                }
            }
        }
        for (name, _, flag) in FLAGS {
            if self
                .get(name)
                .is_some_and(|v| !v.eq_ignore_ascii_case("no"))
            {
                flags |= flag;
            }
        }
        flags | self.console_flags(flags)
    }

    fn letters(&mut self, letters: &str) -> u32 {
        let mut flags = 0;
        for (at, letter) in letters.char_indices() {
            match letter {
                // The rest is a number.
                'S' => {
                    self.set("comconsole_speed", &letters[at + 1..]);
                    break;
                }
                'P' => flags |= howto::PROBE,
                _ => {
                    let known = FLAGS.iter().find(|(_, l, _)| *l == letter);
                    flags |= known.map_or(0, |(_, _, flag)| *flag);
                }
            }
        }
        flags
    }

    fn console_flags(&self, flags: u32) -> u32 {
        let names = || self.get("console").unwrap_or_default().split([' ', ',']);
        let has = |name| names().any(|n| n == name);
        let mut more = 0;
        if has("nullconsole") {
            more |= howto::MUTE;
        }
        if has("comconsole") {
            more |= howto::SERIAL;
        }
        if has("vidconsole") && (flags | more) & howto::SERIAL != 0 {
            more |= howto::MULTIPLE;
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_sorted_and_ends_with_an_empty_string() {
        let mut env = Environment::default();
        assert_eq!(env.block(), b"\0");
        env.put("b=2=3");
        env.put("a");
        env.put("=x");
        env.set("c", "x\0y");
        assert_eq!(env.block(), b"a=\0b=2=3\0c=x\0\0");
    }

    #[test]
    fn flags_come_from_variables_letters_and_the_console() {
        let flags = |variables: &[&str], arguments: &str| {
            let mut env = Environment::default();
            variables.iter().for_each(|v| env.put(v));
            env.boothowto(arguments)
        };
        assert_eq!(flags(&[], ""), 0);
        assert_eq!(flags(&["boot_serial=1", "boot_verbose="], ""), 0x1800);
        assert_eq!(flags(&["boot_serial=NO", "boot_single=no"], ""), 0);
        assert_eq!(flags(&[], "-sv -h"), 0x1802);
        assert_eq!(flags(&[], "-Pq"), 0x1000_0000);
        assert_eq!(flags(&["console=comconsole"], ""), 0x1000);
        assert_eq!(flags(&["console=vidconsole,comconsole"], ""), 0x2000_1000);
        assert_eq!(flags(&["console=vidconsole"], ""), 0);
        assert_eq!(flags(&["console=nullconsole"], ""), 0x1_0000);
    }

    #[test]
    fn arguments_set_variables() {
        let mut env = Environment::default();
        env.boothowto("-S9600v a=b flag");
        assert_eq!(env.get("a"), Some("b"));
        assert_eq!(env.get("flag"), Some("1"));
        assert_eq!(env.get("comconsole_speed"), Some("9600v"));
    }
}
