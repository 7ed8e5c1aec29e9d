//! loader.conf(5): its lines, and the files that are read in loader(8)'s order
//! (stand/lua/config.lua): /boot/defaults/loader.conf, the files that it names, those of
//! /boot/loader.conf.d, /boot/loader.conf.local. Every variable goes to the kernel's
//! environment; some also say which modules to load. What this loader can't do is a
//! warning that names file and line.

#![forbid(unsafe_code)]

use std::collections::HashSet;

use super::environment::Environment;
use crate::fs::{FileSystem, FsError};

const DEFAULTS: &str = "/boot/defaults/loader.conf";
/// What the defaults say, for a disk that has none.
const BUILT_IN: &str = "\
kernel=\"kernel\"
bootfile=\"kernel\"
loader_conf_files=\"/boot/device.hints /boot/loader.conf\"
loader_conf_dirs=\"/boot/loader.conf.d\"
local_loader_conf_files=\"/boot/loader.conf.local\"
nextboot_conf=\"/boot/nextboot.conf\"
module_path=\"/boot/modules;/boot/firmware\"
";
/// No file of settings is longer.
const FILE_LIMIT: u64 = 1 << 20;
/// Files that name further files end somewhere.
const FILES_LIMIT: usize = 256;

/// What a module's lines (`NAME_load`, `NAME_type` …) say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Module {
    /// NAME.
    pub key: String,
    pub load: bool,
    /// The file or module, if not NAME.
    pub name: Option<String>,
    /// Not a kernel module but a file of this type.
    pub kind: Option<String>,
    pub flags: Option<String>,
    /// Commands of the loader around the loading, which are not run.
    pub commands: Vec<String>,
    /// The last file that spoke of loading it.
    pub file: String,
}

impl Module {
    pub fn file_name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.key)
    }

    /// Whether only the defaults ask for it: then it is not missed.
    pub fn is_default(&self) -> bool {
        self.file == DEFAULTS
    }
}

/// What the files say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    pub environment: Environment,
    /// In the order of their first lines.
    pub modules: Vec<Module>,
    /// What is not honoured.
    pub warnings: Vec<String>,
    /// The files that were read.
    pub files: Vec<String>,
}

/// A line taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line<'a> {
    Nothing,
    Set { name: &'a str, value: &'a str },
    Exec(&'a str),
    Malformed,
}

/// Takes a line apart: `name="value" # comment`, or a value that is one word without quotes.
pub fn parse_line(line: &str) -> Line<'_> {
    let line = line.trim();
    if is_end(line) {
        return Line::Nothing;
    }
    let Some((name, rest)) = line.split_once('=') else {
        return Line::Malformed;
    };
    let (name, rest) = (name.trim_end(), rest.trim_start());
    let (value, quoted, rest) = match rest.strip_prefix('"') {
        Some(rest) => match rest.split_once('"') {
            Some((value, rest)) => (value, true, rest),
            None => return Line::Malformed,
        },
        None => {
            let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            (&rest[..len], false, &rest[len..])
        }
    };
    let starts_well = |text: &str| text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let value_ok = quoted || starts_well(value) || value.starts_with('-');
    if !value_ok || !is_end(rest.trim_start()) {
        return Line::Malformed;
    }
    if name == "exec" && quoted {
        return Line::Exec(value);
    }
    if !starts_well(name) || !name.chars().all(is_name) {
        return Line::Malformed;
    }
    Line::Set { name, value }
}

fn is_end(text: &str) -> bool {
    text.is_empty() || text.starts_with('#')
}

/// Values that refer to each other would double with each line.
const LONGEST_VALUE: usize = 64 << 10;

/// Puts `$name` and `${name}` in, and takes backslashes out.
fn expand(value: &str, env: &Environment) -> Result<String, &'static str> {
    let mut out = String::new();
    let mut rest = value;
    while let Some(c) = rest.chars().next() {
        if out.len() > LONGEST_VALUE {
            return Err("more than 64 KiB with all that it refers to");
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let next = rest.chars().next().ok_or("a stray \\ at its end")?;
                out.push(next);
                rest = &rest[next.len_utf8()..];
            }
            '$' => {
                let (name, behind) = match rest.strip_prefix('{') {
                    Some(braced) => braced.split_once('}').ok_or("a ${ without }")?,
                    None => {
                        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                        let len = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                        (&rest[..len], &rest[len..])
                    }
                };
                if name.is_empty() {
                    return Err("a $ without a name");
                }
                out.push_str(env.get(name).unwrap_or_default());
                rest = behind;
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Reads all files of a volume. The environment begins with what the command line set.
pub fn read(files: &dyn FileSystem, environment: Environment) -> Result<Settings, FsError> {
    let mut reader = Reader {
        files,
        seen: HashSet::new(),
        settings: Settings {
            environment,
            ..Settings::default()
        },
    };
    let further = if reader.exists(DEFAULTS)? {
        reader.read_file(DEFAULTS)?
    } else {
        reader.parse(BUILT_IN, DEFAULTS)
    };
    reader.read_further(further)?;
    reader.read_directories()?;
    let local = reader.list("local_loader_conf_files");
    for file in local {
        reader.read_with_further(&file)?;
    }
    reader.check();
    Ok(reader.settings)
}

struct Reader<'a> {
    files: &'a dyn FileSystem,
    seen: HashSet<String>,
    settings: Settings,
}

impl Reader<'_> {
    fn exists(&self, path: &str) -> Result<bool, FsError> {
        Ok(self.files.open(path)?.is_some())
    }

    fn warn(&mut self, text: String) {
        self.settings.warnings.push(text);
    }

    /// A variable with names in it.
    fn list(&self, name: &str) -> Vec<String> {
        let value = self.settings.environment.get(name).unwrap_or_default();
        value.split_whitespace().map(str::to_owned).collect()
    }

    fn read_with_further(&mut self, path: &str) -> Result<(), FsError> {
        let further = self.read_file(path)?;
        self.read_further(further)
    }

    /// `loader_conf_files` of a file: read now, and those that they name.
    fn read_further(&mut self, further: Vec<String>) -> Result<(), FsError> {
        let mut queue: Vec<String> = further.into_iter().rev().collect();
        while let Some(path) = queue.pop() {
            queue.extend(self.read_file(&path)?.into_iter().rev());
        }
        Ok(())
    }

    /// Reads a file that may not exist, once. Returns the files that it names.
    fn read_file(&mut self, path: &str) -> Result<Vec<String>, FsError> {
        if self.seen.len() >= FILES_LIMIT || !self.seen.insert(path.to_owned()) {
            return Ok(Vec::new());
        }
        let Some(bytes) = self.files.read(path, FILE_LIMIT)? else {
            return Ok(Vec::new());
        };
        if path.ends_with(".lua") {
            self.warn(format!(
                "{path}: Lua is not run, so that its settings are missing"
            ));
            return Ok(Vec::new());
        }
        self.settings.files.push(path.to_owned());
        let text = String::from_utf8_lossy(&bytes);
        Ok(self.parse(&text, path))
    }

    fn read_directories(&mut self) -> Result<(), FsError> {
        for directory in self.list("loader_conf_dirs") {
            for name in self.files.list(&directory)?.unwrap_or_default() {
                if name.ends_with(".conf") {
                    self.read_with_further(&format!("{directory}/{name}"))?;
                }
            }
        }
        Ok(())
    }

    /// The lines of a file, which is `path` in warnings. Returns the files that it names.
    fn parse(&mut self, text: &str, path: &str) -> Vec<String> {
        let mut further = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let place = format!("{path}:{}", n + 1);
            match parse_line(line) {
                Line::Nothing => {}
                Line::Set {
                    name: "loader_conf_files",
                    value,
                } => {
                    further = value.split_whitespace().map(str::to_owned).collect();
                }
                Line::Set { name, value } => self.set(name, value, path, &place),
                // The defaults say what they are.
                Line::Exec(command) if command.starts_with("echo ") => {}
                Line::Exec(command) => self.warn(format!(
                    "{place}: exec=\"{command}\" is not run: this loader has no commands"
                )),
                Line::Malformed => {
                    self.warn(format!("{place}: not name=\"value\": {}", line.trim()));
                }
            }
        }
        further
    }

    fn set(&mut self, name: &str, value: &str, path: &str, place: &str) {
        for suffix in ["load", "name", "type", "flags", "before", "after", "error"] {
            let key = name.strip_suffix(suffix).and_then(|k| k.strip_suffix('_'));
            if let Some(key) = key.filter(|key| !key.is_empty()) {
                self.set_module(key, suffix, value, path);
                self.settings.environment.set(name, value);
                return;
            }
        }
        match expand(value, &self.settings.environment) {
            Ok(value) => {
                self.settings.environment.set(name, &value);
            }
            Err(why) => self.warn(format!("{place}: {name} has {why}; it is not set")),
        }
    }

    fn set_module(&mut self, key: &str, what: &str, value: &str, path: &str) {
        let modules = &mut self.settings.modules;
        let at = modules.iter().position(|m| m.key == key);
        let at = at.unwrap_or_else(|| {
            modules.push(Module {
                key: key.to_owned(),
                ..Module::default()
            });
            modules.len() - 1
        });
        let module = &mut modules[at];
        let text = || Some(value.to_owned());
        match what {
            "load" => {
                module.load = value.eq_ignore_ascii_case("yes");
                module.file = path.to_owned();
            }
            "name" => module.name = text(),
            "type" => module.kind = text(),
            "flags" => module.flags = text(),
            _ => module.commands.push(format!("{key}_{what}=\"{value}\"")),
        }
    }

    /// Settings that mean something to loader(8) which this loader doesn't do.
    fn check(&mut self) {
        let commands = self.settings.modules.iter().filter(|m| m.load);
        let commands: Vec<String> = commands.flat_map(|m| m.commands.clone()).collect();
        for command in commands {
            self.warn(format!("{command} is not run: this loader has no commands"));
        }
        let env = &self.settings.environment;
        let mut warnings = Vec::new();
        for name in ["password", "bootlock_password"] {
            if env.get(name).is_some() {
                warnings.push(format!("{name} is not asked for: this loader has no menu"));
            }
        }
        for name in ["geom_eli_passphrase_prompt", "product_vars", "currdev"] {
            let value = env.get(name).unwrap_or("no");
            if !value.eq_ignore_ascii_case("no") {
                warnings.push(format!("{name}=\"{value}\" has no effect in this loader"));
            }
        }
        let nextboot = env.get("nextboot_conf").map(str::to_owned);
        self.settings.warnings.extend(warnings);
        self.check_nextboot(nextboot);
        // A password is for the loader's eyes.
        for name in ["password", "bootlock_password"] {
            self.settings.environment.unset(name);
        }
    }

    /// nextboot(8)'s file is for one boot, which takes a loader that can write to the disk.
    fn check_nextboot(&mut self, path: Option<String>) {
        let Some(path) = path else { return };
        let Ok(Some(bytes)) = self.files.read(&path, FILE_LIMIT) else {
            return;
        };
        let text = String::from_utf8_lossy(&bytes);
        let first = text.lines().next().unwrap_or_default();
        if !first.starts_with("nextboot_enable=\"NO\"") {
            self.warn(format!(
                "{path} is not honoured: this loader does not write to the disk, so that the \
                 next boot would never end"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Tree;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_taken_apart() {
        let set = |name, value| Line::Set { name, value };
        for (line, parsed) in [
            ("", Line::Nothing),
            ("  # comment = \"x\"", Line::Nothing),
            ("a=\"b\"", set("a", "b")),
            ("  a.b-c_1 = \"x y#z\"  # why\r", set("a.b-c_1", "x y#z")),
            ("kern.hz=100", set("kern.hz", "100")),
            ("a=-1.5_x", set("a", "-1.5_x")),
            ("a=\"\"", set("a", "")),
            ("exec=\"ls -l\"", Line::Exec("ls -l")),
            ("a=", Line::Malformed),
            ("a", Line::Malformed),
            ("a b=\"c\"", Line::Malformed),
            ("a=b c", Line::Malformed),
            ("a='b'", Line::Malformed),
            ("a=\"b\" c", Line::Malformed),
            ("a=\"b", Line::Malformed),
            ("=\"b\"", Line::Malformed),
            ("a=/boot/x", Line::Malformed),
        ] {
            assert_eq!(parse_line(line), parsed, "{line:?}");
        }
    }

    fn settings(tree: &Tree) -> Settings {
        read(tree, Environment::default()).unwrap()
    }

    #[test]
    fn files_are_read_in_the_loaders_order() {
        let tree = Tree::new(&[
            (
                "/boot/defaults/loader.conf",
                "exec=\"echo Loading\"\nloader_conf_files=\"/boot/device.hints /boot/loader.conf\"\n\
                 loader_conf_dirs=\"/boot/loader.conf.d /nowhere\"\n\
                 local_loader_conf_files=\"/boot/loader.conf.local\"\na=\"0\"\n\
                 list=\"x\"\nlist=\"${list} y\"\n",
            ),
            ("/boot/device.hints", "hint.uart.0.at=\"isa\"\n"),
            (
                "/boot/loader.conf",
                "a=\"1\"\nb=\"1\"\nloader_conf_files=\"/boot/more /boot/loader.conf\"\n",
            ),
            ("/boot/more", "b=\"2\"\nc=\"2\"\n"),
            ("/boot/loader.conf.d/2.conf", "c=\"4\"\nd=\"$a\\$\"\n"),
            ("/boot/loader.conf.d/1.conf", "c=\"3\"\ne=\"3\"\n"),
            ("/boot/loader.conf.d/readme", "c=\"9\"\n"),
            ("/boot/loader.conf.local", "e=\"5\"\n"),
        ]);
        let settings = settings(&tree);
        assert_eq!(settings.warnings, [""; 0]);
        let values = ["a", "b", "c", "d", "e", "list", "hint.uart.0.at"];
        let values = values.map(|name| settings.environment.get(name).unwrap());
        assert_eq!(values, ["1", "2", "4", "1$", "5", "x y", "isa"]);
        assert_eq!(settings.environment.get("loader_conf_files"), None);
        assert_eq!(settings.files.len(), 7);
    }

    #[test]
    fn a_disk_without_defaults_has_the_usual_ones() {
        let tree = Tree::new(&[
            ("/boot/loader.conf", "boot_verbose=YES\n"),
            ("/boot/loader.conf.local", "x=1\n"),
        ]);
        let env = settings(&tree).environment;
        assert_eq!(env.get("kernel"), Some("kernel"));
        assert_eq!(env.get("boot_verbose"), Some("YES"));
        assert_eq!(env.get("x"), Some("1"));
        assert_eq!(env.get("loader_conf_files"), None);
    }

    #[test]
    fn modules_are_collected() {
        let tree = Tree::new(&[(
            "/boot/loader.conf",
            "if_bridge_load=\"YES\"\nmfsroot_load=\"yes\"\nmfsroot_type=\"mfs_root\"\n\
             mfsroot_name=\"/boot/mfsroot\"\nzfs_load=\"NO\"\nsnd_flags=\"-x\"\n",
        )]);
        let settings = settings(&tree);
        let loaded: Vec<_> = settings.modules.iter().filter(|m| m.load).collect();
        assert_eq!(loaded.len(), 2);
        assert_eq!(loaded[0].file_name(), "if_bridge");
        assert_eq!(loaded[1].file_name(), "/boot/mfsroot");
        assert_eq!(loaded[1].kind.as_deref(), Some("mfs_root"));
        // Kernel modules may look at these variables too.
        assert_eq!(settings.environment.get("mfsroot_load"), Some("yes"));
    }

    #[test]
    fn what_is_not_honoured_is_said() {
        let tree = Tree::new(&[
            (
                "/boot/loader.conf",
                "exec=\"show\"\nnonsense\nx_load=\"YES\"\nx_before=\"ls\"\npassword=\"secret\"\n\
                 y=\"a$\"\nloader_conf_files=\"/boot/c.lua\"\n",
            ),
            ("/boot/c.lua", "x = 1"),
            (
                "/boot/nextboot.conf",
                "nextboot_enable=\"YES\"\nkernel=\"new\"\n",
            ),
        ]);
        let settings = settings(&tree);
        let all = settings.warnings.join("\n");
        for part in [
            "/boot/loader.conf:1: exec=\"show\"",
            "/boot/loader.conf:2: not name=\"value\": nonsense",
            "/boot/loader.conf:6: y has a $ without a name",
            "x_before=\"ls\" is not run",
            "password is not asked for",
            "/boot/c.lua: Lua is not run",
            "/boot/nextboot.conf is not honoured",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
        assert!(!all.contains("secret"));
        assert_eq!(settings.environment.get("password"), None);
        assert_eq!(settings.environment.get("kernel"), Some("kernel"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_warned_about(text in "[ -~\n\t\"$\\\\{}=#é]{0,200}") {
            let tree = Tree::new(&[("/boot/loader.conf", &text)]);
            let _ = settings(&tree);
        }
    }
}
