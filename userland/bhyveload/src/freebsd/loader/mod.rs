//! Finds a kernel and its modules on a volume and places them in memory, as loader(8) does
//! when nobody stops it (stand/lua/config.lua, stand/common/module.c and boot.c). Where it
//! looks for files is [`search`]'s.

#![forbid(unsafe_code)]

use std::collections::HashMap;

use vmmapi::address_map::e820;

use super::conf::{self, Module};
use super::environment::Environment;
use super::image::{self, ElfError, Kind};
use super::preload::{Dependency, Preloaded, metadata, metadata_list};
use super::{fstab, object, start};
use crate::console::Console;
use crate::fs::{FileSystem, FsError, gzip};
use crate::layout::Layout;
use crate::plan::{Format, Piece, Plan};
use error::Refused;
use search::{EXTENSIONS, Found, join};

mod error;
mod search;

pub use error::FreeBsdError;

const PAGE: u64 = 4096;
const FSTAB_LIMIT: u64 = 1 << 20;
const DEFAULT_MODULE_PATH: &str = "/boot/kernel;/boot/modules";
/// More files than any kernel wants; a chain of dependencies ends here.
const FILES_LIMIT: usize = 1024;

/// A file of the host, and what the kernel is told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostFile {
    pub path: String,
    pub bytes: Vec<u8>,
    /// The kernel's or module's arguments.
    pub arguments: String,
    /// Not a kernel module but a file of this type (md_image …).
    pub kind: Option<String>,
}

/// What to load.
pub struct Request<'a> {
    /// The volume's files; a kernel from the host may come without.
    pub files: Option<&'a dyn FileSystem>,
    /// The volume in loader(8)'s words: `disk0p2`.
    pub volume: &'a str,
    /// Instead of the volume's.
    pub kernel: Option<HostFile>,
    /// Besides the volume's.
    pub modules: Vec<HostFile>,
    /// `name=value` that every guest of bhyve has, unless something says otherwise.
    pub defaults: Vec<String>,
    /// `name=value` of the command line, in the order in which they are set.
    pub variables: Vec<String>,
    /// Bytes of guest memory.
    pub memory: u64,
}

/// A volume without files.
struct Nothing;

impl FileSystem for Nothing {
    fn open(&self, _path: &str) -> Result<Option<Box<dyn crate::fs::FileRead + '_>>, FsError> {
        Ok(None)
    }

    fn list(&self, _path: &str) -> Result<Option<Vec<String>>, FsError> {
        Ok(None)
    }
}

/// Makes the plan.
pub fn plan(request: Request<'_>, console: &mut Console) -> Result<Plan<'static>, FreeBsdError> {
    let layout = Layout::new(request.memory);
    let mut environment = Environment::default();
    let all = request.defaults.iter().chain(&request.variables);
    all.for_each(|variable| environment.put(variable));
    let files = request.files.unwrap_or(&Nothing);
    let settings = conf::read(files, environment)?;
    for file in &settings.files {
        console.line(&format!("{}{file}", prefix(&request)));
    }
    for warning in &settings.warnings {
        console.warn(&format!("{}{warning}", prefix(&request)));
    }
    let mut loader = Loader {
        files,
        prefix: prefix(&request),
        environment: settings.environment,
        console,
        preloaded: Vec::new(),
        next: 0,
        limit: layout.lowmem().min(start::REACH),
        hints: HashMap::new(),
    };
    loader.report_overrides(&request.variables);
    if request.files.is_some() {
        let device = format!("{}:", request.volume);
        loader.environment.set("currdev", &device);
        loader.environment.set("loaddev", &device);
    }
    let entry = match request.kernel {
        Some(kernel) => loader.host_kernel(kernel)?,
        None => loader.find_kernel(request.volume)?,
    };
    for module in request.modules {
        loader.host_module(module)?;
    }
    for module in settings.modules.iter().filter(|module| module.load) {
        loader.configured_module(module)?;
    }
    loader.root_file_system(request.volume)?;
    loader.finish(entry, &layout)
}

fn prefix(request: &Request<'_>) -> String {
    match request.files {
        Some(_) => format!("{}:", request.volume),
        None => String::new(),
    }
}

struct Loader<'a> {
    files: &'a dyn FileSystem,
    /// Before a path in messages.
    prefix: String,
    environment: Environment,
    console: &'a mut Console,
    /// The kernel first.
    preloaded: Vec<Preloaded>,
    /// Where the next file goes.
    next: u64,
    limit: u64,
    /// linker.hints by directory.
    hints: HashMap<String, Vec<u8>>,
}

impl Loader<'_> {
    fn report_overrides(&mut self, variables: &[String]) {
        let mut given = Environment::default();
        variables.iter().for_each(|variable| given.put(variable));
        for (name, value) in given.iter() {
            let now = self.environment.get(name).unwrap_or_default();
            if now != value {
                let text = format!("-e {name}={value}: loader.conf sets it to \"{now}\"");
                self.console.warn(&text);
            }
        }
    }

    /// $bootfile in /boot/$kernel, then in $kernel; without $kernel on the module path.
    fn find_kernel(&mut self, volume: &str) -> Result<u64, FreeBsdError> {
        let env = &self.environment;
        let names = format!("{};kernel", env.get("bootfile").unwrap_or_default());
        let names: Vec<&str> = names.split(';').filter(|n| !n.is_empty()).collect();
        let kernel = env.get("kernel").filter(|k| !k.is_empty());
        let paths = match kernel {
            Some(kernel) => vec![format!("/boot/{kernel}"), kernel.to_owned()],
            None => {
                let path = env.get("module_path").unwrap_or(DEFAULT_MODULE_PATH);
                path.split(';').map(str::to_owned).collect()
            }
        };
        let mut tried = Vec::new();
        for path in paths {
            for name in &names {
                let found = if name.contains('/') {
                    self.locate(name)?
                } else {
                    self.locate_in(&path, name, &EXTENSIONS)?
                };
                let full = match name.contains('/') {
                    true => (*name).to_owned(),
                    false => join(&path, name),
                };
                match found {
                    Some(found) => return self.kernel_at(found, &path),
                    None if !tried.contains(&full) => tried.push(full),
                    None => {}
                }
            }
        }
        let volume = volume.to_owned();
        Err(FreeBsdError::NoKernel { volume, tried })
    }

    fn kernel_at(&mut self, found: Found, directory: &str) -> Result<u64, FreeBsdError> {
        let env = &mut self.environment;
        let modules = env.get("module_path").unwrap_or(DEFAULT_MODULE_PATH);
        let modules = format!("{directory};{modules}");
        env.set("module_path", &modules);
        env.set("kernel_path", directory);
        let arguments = env.get("kernel_options").unwrap_or_default().to_owned();
        let bytes = self.read(&found)?;
        self.kernel(&found.name, &bytes, &arguments)
    }

    fn host_kernel(&mut self, kernel: HostFile) -> Result<u64, FreeBsdError> {
        let bytes = unpacked(kernel.bytes, &kernel.path, self.limit)?;
        self.console
            .reading(&kernel.path, bytes.len() as u64)
            .done("");
        self.environment
            .set_default("module_path", DEFAULT_MODULE_PATH);
        self.kernel(&kernel.path, &bytes, &kernel.arguments)
    }

    fn kernel(&mut self, name: &str, bytes: &[u8], arguments: &str) -> Result<u64, FreeBsdError> {
        let (mut kernel, entry) =
            image::load_kernel(name, bytes, self.limit).map_err(|error| self.elf(name, error))?;
        kernel.arguments = (!arguments.is_empty()).then(|| arguments.to_owned());
        self.environment.set("kernelname", name);
        self.push(kernel);
        Ok(entry)
    }

    fn elf(&self, path: &str, error: ElfError) -> FreeBsdError {
        let path = format!("{}{path}", self.prefix);
        FreeBsdError::Elf { path, error }
    }

    fn push(&mut self, file: Preloaded) {
        self.next = file.end().next_multiple_of(PAGE);
        self.preloaded.push(file);
    }

    fn host_module(&mut self, module: HostFile) -> Result<(), FreeBsdError> {
        let HostFile { path, bytes, .. } = &module;
        self.console.reading(path, bytes.len() as u64).done("");
        let bytes = unpacked(module.bytes, &module.path, self.limit)?;
        if let Some(kind) = module.kind {
            return self.raw(module.path, kind, bytes);
        }
        let mut loaded = self.module_image(&module.path, &bytes)?;
        loaded.arguments = (!module.arguments.is_empty()).then_some(module.arguments);
        let name = loaded.name.clone();
        let before = self.preloaded.len();
        self.push(loaded);
        self.dependencies(before).map_err(|why| match why {
            Refused::Error(error) => error,
            Refused::Why(why) => FreeBsdError::Missing(format!("{name}: {why}")),
        })
    }

    /// A module that loader.conf names. One that can't be loaded is a warning, unless it is
    /// the root file system.
    fn configured_module(&mut self, module: &Module) -> Result<(), FreeBsdError> {
        let name = module.file_name();
        let blacklist = self.environment.get("module_blacklist").unwrap_or_default();
        if blacklist.split([' ', ',', ';']).any(|n| n == name) {
            let text = format!("{name} is not loaded: it is on the module_blacklist");
            self.console.line(&text);
            return Ok(());
        }
        let result = match &module.kind {
            Some(kind) => self.typed_file(name, kind),
            None => self.module_by_name(name, None, module.flags.as_deref()),
        };
        match result {
            Ok(()) => Ok(()),
            Err(Refused::Why(_)) if module.is_default() => Ok(()),
            Err(refused) if module.kind.as_deref() == Some("mfs_root") => Err(match refused {
                Refused::Error(error) => error,
                Refused::Why(why) => FreeBsdError::Missing(why),
            }),
            Err(refused) => {
                self.console.warn(&format!("not loaded: {refused}"));
                Ok(())
            }
        }
    }

    fn typed_file(&mut self, name: &str, kind: &str) -> Result<(), Refused> {
        let found = if name.contains('/') {
            self.locate(name)?
        } else {
            self.on_module_path(name, &[""])?
        };
        let found = found.ok_or_else(|| self.missing(name))?;
        let bytes = self.read(&found)?;
        Ok(self.raw(found.name, kind.to_owned(), bytes)?)
    }

    fn missing(&self, name: &str) -> Refused {
        Refused::Why(format!("{}{name}: there is no such file", self.prefix))
    }

    fn raw(&mut self, name: String, kind: String, bytes: Vec<u8>) -> Result<(), FreeBsdError> {
        let len = bytes.len() as u64;
        let limit = self.limit;
        if self.next.checked_add(len).is_none_or(|end| end > limit) {
            let what = name;
            return Err(FreeBsdError::NoRoom { what, len, limit });
        }
        self.push(Preloaded::raw(name, kind, self.next, bytes));
        Ok(())
    }

    /// A kernel module by its file's path or by its name: by linker.hints, else NAME.ko on
    /// the module path.
    fn module_by_name(
        &mut self,
        name: &str,
        needs: Option<&Dependency>,
        flags: Option<&str>,
    ) -> Result<(), Refused> {
        if self.preloaded.iter().any(|f| f.provides(name, needs)) {
            return Ok(());
        }
        let found = if name.contains('/') {
            self.locate(name)?
        } else {
            self.by_hints(name, needs)?
        };
        let found = found.ok_or_else(|| self.missing(name))?;
        if self.preloaded.iter().any(|file| file.name == found.name) {
            return Ok(());
        }
        if self.preloaded.len() >= FILES_LIMIT {
            return Err(Refused::Why(format!(
                "{name}: more than {FILES_LIMIT} files"
            )));
        }
        let bytes = self.read(&found)?;
        let mut module = self.module_image(&found.name, &bytes)?;
        module.arguments = flags.map(str::to_owned);
        let (before, next) = (self.preloaded.len(), self.next);
        self.push(module);
        let result = self.dependencies(before);
        if result.is_err() {
            self.preloaded.truncate(before);
            self.next = next;
        }
        result
    }

    fn module_image(&self, name: &str, bytes: &[u8]) -> Result<Preloaded, FreeBsdError> {
        let loaded = match image::kind(bytes) {
            Ok((Kind::Object, _)) => object::load(name, bytes, self.next, self.limit),
            Ok((Kind::Shared, _)) => image::load_shared(name, bytes, self.next, self.limit),
            Ok((Kind::Kernel, _)) => Err(ElfError::Kind("a kernel, not a kernel module")),
            Err(error) => Err(error),
        };
        loaded.map_err(|error| self.elf(name, error))
    }

    /// Loads what the file of this number needs.
    fn dependencies(&mut self, number: usize) -> Result<(), Refused> {
        let (name, depends) = {
            let file = &self.preloaded[number];
            (file.name.clone(), file.depends.clone())
        };
        for needs in depends {
            let module = &needs.name;
            let result = self.module_by_name(module, Some(&needs), None);
            let is_there = self
                .preloaded
                .iter()
                .any(|file| file.provides(module, Some(&needs)));
            match result {
                Ok(()) if is_there => {}
                Ok(()) => {
                    return Err(Refused::Why(format!(
                        "{name} needs module {module} in version {} to {}, which is not there",
                        needs.minimum, needs.maximum
                    )));
                }
                Err(Refused::Error(error)) => return Err(Refused::Error(error)),
                Err(Refused::Why(why)) => {
                    return Err(Refused::Why(format!("{name} needs module {module}: {why}")));
                }
            }
        }
        Ok(())
    }

    /// vfs.root.mountfrom, unless it is set: $rootdev, or what the volume's fstab(5) says.
    fn root_file_system(&mut self, volume: &str) -> Result<(), FreeBsdError> {
        if self.environment.get("vfs.root.mountfrom").is_some() {
            return Ok(());
        }
        let rootdev = self.environment.get("rootdev").map(str::to_owned);
        match rootdev {
            Some(device) if device.contains(":/dev/") => {
                self.environment.set("vfs.root.mountfrom", &device);
                return Ok(());
            }
            Some(device) => {
                let text = format!(
                    "rootdev=\"{device}\" has no effect in this loader; \
                     vfs.root.mountfrom names the root file system"
                );
                self.console.warn(&text);
            }
            None => {}
        }
        let text = self.files.read("/etc/fstab", FSTAB_LIMIT)?;
        let text = text.unwrap_or_default();
        if let Some(root) = fstab::root(&String::from_utf8_lossy(&text)) {
            let env = &mut self.environment;
            env.set("vfs.root.mountfrom", &root.mount_from);
            if !root.options.is_empty() {
                env.set_default("vfs.root.mountfrom.options", &root.options);
            }
            return Ok(());
        }
        let is_memory_disk = |f: &Preloaded| f.kind == "mfs_root" || f.kind == "md_image";
        if !self.preloaded.iter().any(is_memory_disk) {
            let no_fstab = if self.prefix.is_empty() {
                "there is no volume with an /etc/fstab".to_owned()
            } else {
                format!("{volume}:/etc/fstab has no entry for /")
            };
            let text = format!(
                "{no_fstab}: unless the kernel knows its root file system it will ask for it \
                 (-e vfs.root.mountfrom=ufs:/dev/vtbd0p2 names one)"
            );
            self.console.warn(&text);
        }
        Ok(())
    }

    /// The environment and the list of files behind them, and the first instruction.
    fn finish(mut self, entry: u64, layout: &Layout) -> Result<Plan<'static>, FreeBsdError> {
        let arguments = self.preloaded.first().and_then(|k| k.arguments.clone());
        let howto = self.environment.boothowto(&arguments.unwrap_or_default());
        let environment = self.environment.block();
        let environment_at = self.next;
        let list_at = (environment_at + environment.len() as u64).next_multiple_of(PAGE);
        // Its length doesn't depend on the values.
        let records = |kernel_end: u64| {
            [
                (metadata::HOWTO, howto.to_le_bytes().to_vec()),
                (metadata::ENVP, environment_at.to_le_bytes().to_vec()),
                (metadata::KERNEND, kernel_end.to_le_bytes().to_vec()),
                (metadata::SMAP, smap(layout)),
            ]
        };
        let of_file = self.preloaded[0].metadata.len();
        self.preloaded[0].metadata.extend(records(0));
        let len = metadata_list(&self.preloaded).len() as u64;
        let kernel_end = (list_at + len).next_multiple_of(PAGE);
        if kernel_end > self.limit {
            return Err(FreeBsdError::NoRoom {
                what: "the kernel's environment and list of modules".to_owned(),
                len: environment.len() as u64 + len,
                limit: self.limit,
            });
        }
        self.preloaded[0].metadata.truncate(of_file);
        self.preloaded[0].metadata.extend(records(kernel_end));
        let list = metadata_list(&self.preloaded);
        let mut pieces = start::pieces(list_at, kernel_end);
        pieces.extend(self.preloaded.into_iter().flat_map(|file| file.pieces));
        for (gpa, bytes) in [(environment_at, environment), (list_at, list)] {
            let len = bytes.len() as u64;
            let data = bytes.into();
            pieces.push(Piece { gpa, data, len });
        }
        Ok(Plan {
            format: Format::FreeBsd,
            pieces,
            start: start::state(entry),
            entry,
        })
    }
}

fn unpacked(bytes: Vec<u8>, path: &str, limit: u64) -> Result<Vec<u8>, FsError> {
    match gzip::is_gzip(&bytes) {
        true => gzip::decompress(&bytes, path, limit),
        false => Ok(bytes),
    }
}

/// The memory map as the BIOS gives it: base, length and type of each range, 20 bytes.
fn smap(layout: &Layout) -> Vec<u8> {
    let mut bytes = Vec::new();
    for range in e820(layout.lowmem(), layout.highmem()) {
        bytes.extend(range.base.to_le_bytes());
        bytes.extend(range.len.to_le_bytes());
        bytes.extend((range.kind as u32).to_le_bytes());
    }
    bytes
}
