//! Tests of the command line. What variables each line gives is in [`table`].

use super::*;
use crate::settings::Settings;
use proptest::prelude::*;

mod table;

fn parse_line(line: &str) -> Result<Answer, OptionError> {
    let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    parse(&args, None)
}

fn run(line: &str) -> Options {
    match parse_line(line) {
        Ok(Answer::Run(options)) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

fn get(line: &str, variable: &str) -> Option<String> {
    run(line).config.get(variable)
}

/// What is wrong with a line, when it is taken apart or when its variables are read.
fn refusal(line: &str) -> (String, u8) {
    match parse_line(line) {
        Err(error) => (error.to_string(), error.exit_code()),
        Ok(Answer::Run(options)) => {
            let error = Settings::read(&options.config).unwrap_err();
            (error.to_string(), error.exit_code())
        }
        Ok(other) => panic!("{line}: {other:?}"),
    }
}

/// A file of the test's own, gone with this.
struct TempFile(std::path::PathBuf);

impl TempFile {
    fn new(name: &str, contents: &[u8]) -> Self {
        let name = format!("bhyve-options-{}-{name}", std::process::id());
        let path = std::env::current_exe().unwrap().with_file_name(name);
        std::fs::write(&path, contents).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn capital_s_is_told_by_its_form() {
    for line in ["-S guest0", "-SH guest0"] {
        assert_eq!(get(line, "memory.wired").as_deref(), Some("true"));
    }
    let o = run("-S 30,uart,stdio -S31,uart,/dev/nmdm0A -S guest0");
    assert_eq!(o.config.get("memory.wired").as_deref(), Some("true"));
    assert_eq!(o.config.get("lpc.com1.path").as_deref(), Some("stdio"));
    assert_eq!(
        o.config.get("lpc.com2.path").as_deref(),
        Some("/dev/nmdm0A")
    );
}

#[test]
fn the_year_decides_what_x_means() {
    let x = |line: &str, environment| {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let Ok(Answer::Run(options)) = parse(&args, environment) else {
            panic!("{line}");
        };
        let get = |name| options.config.get(name).is_some();
        (get("compat.mux"), get("x86.x2apic"))
    };
    let (mux, x2apic) = ((true, false), (false, true));
    assert_eq!(x("-x g", None), x2apic);
    assert_eq!(x("-x g", Some("2013")), mux);
    assert_eq!(x("-x g", Some("")), x2apic);
    assert_eq!(x("-o compat.year=2013 -x g", None), mux);
    // Any option that only 2013 had makes the line one of 2013.
    for option in ["-S 31,uart,stdio", "-p 2", "-b", "-g 0", "-z 100"] {
        assert_eq!(x(&format!("-x {option} g"), None), mux, "{option}");
        let line = format!("-o compat.year=2025 -x {option} g");
        assert_eq!(x(&line, None), x2apic, "{option}");
        assert_eq!(x(&format!("-x {option} g"), Some("2025")), x2apic);
    }
    assert_eq!(x("-x -p 0:1 -S g", None), x2apic);
    assert_eq!(refusal("-o compat.year=2014 -x g").1, 64);
}

#[test]
fn in_2013_the_apic_began_in_x2apic_mode() {
    let x2apic = |line| Settings::read(&run(line).config).unwrap().x2apic;
    assert!(!x2apic("g") && x2apic("-x g") && !x2apic("-x -a g"));
    assert!(x2apic("-b g") && !x2apic("-b -a g"));
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    for (line, what) in [
        ("-G 1234 g", "gdb.port=1234: the debug server for GDB"),
        ("-B g", "compat.breakpoint=true: -B, 2013's breakpoint"),
        ("-l bootrom,/x.fd g", "bootrom=/x.fd: a boot ROM"),
        ("-l tpm,passthru,/dev/tpm0 g", "tpm.type=passthru: a TPM"),
        ("-n id=0,size=1G g", "domains.0.size=1G: NUMA"),
        ("-r file g", "-r: restoring a snapshot"),
    ] {
        let (message, code) = refusal(line);
        assert!(message.starts_with(what), "{message}");
        assert!(message.contains("not part of this version"), "{message}");
        assert_eq!(code, 4);
    }
    Settings::read(&run("-g 0 -z 100 -G 0 -K uk g").config).unwrap();
}

#[test]
fn mistakes_are_named_with_bhyves_exit_codes() {
    for (line, code, part) in [
        ("-q g", 1, "illegal option -- q"),
        ("-m", 1, "option requires an argument -- m"),
        ("", 1, "one VM name is wanted"),
        ("a b", 1, "one VM name is wanted"),
        ("-m 1Q g", 64, "invalid memsize '1Q'"),
        ("-c 0 g", 4, "Invalid value for cpus: '0'"),
        ("-c 4,dies=2 g", 64, "invalid cpu topology '4,dies=2'"),
        ("-p x g", 64, "invalid vcpu pinning configuration 'x'"),
        ("-p 0:1024 g", 64, "hostcpu '1024' outside valid range"),
        ("-n size=1G g", 64, "invalid NUMA configuration 'size=1G'"),
        ("-n id=256 g", 4, "Invalid value for id: '256'"),
        (
            "-o acpi_tables=off -n id=0 g",
            64,
            "NUMA emulation requires ACPI",
        ),
        ("-o a g", 64, "invalid configuration option 'a'"),
        ("-o a= g", 64, "invalid configuration option 'a='"),
        ("-o a..b=1 g", 64, "'a..b' is no name"),
        ("-f a g", 64, "invalid fwcfg item 'a'"),
        (
            "-l floppy g",
            64,
            "invalid lpc device configuration 'floppy'",
        ),
        ("-l com1 g", 64, "invalid lpc device configuration 'com1'"),
        ("-l bootrom g", 4, "invalid bootrom option"),
        ("-l tpm,passthru g", 4, "invalid tpm type or path"),
        ("-s 3 g", 4, "Invalid PCI slot info field \"3\""),
        ("-s 32,hostbridge g", 4, "Invalid PCI slot info field"),
        ("-s 0:8,hostbridge g", 4, "Invalid PCI slot info field"),
        ("-s 256:0:0,lpc g", 4, "Invalid PCI slot info field"),
        ("-s 1:2:3:4,lpc g", 4, "Invalid PCI slot info field"),
        ("-s a,lpc g", 4, "Invalid PCI slot info field"),
        (
            "-s 3,floppy g",
            4,
            "pci slot 0:3:0: unknown device \"floppy\"",
        ),
        (
            "-s 1,lpc -s 0:1:0,uart g",
            4,
            "pci slot 0:1:0 already occupied!",
        ),
        (
            "-o pci.0.1.0.device=lpc -s 1,lpc g",
            4,
            "pci slot 0:1:0 already occupied!",
        ),
        (
            "-k /nonexistent g",
            4,
            "Failed to open configuration file /nonexistent: No such",
        ),
        ("-U 1 g", 4, "Invalid UUID '1'"),
        ("-o x86.strictmsr=perhaps g", 4, "x86.strictmsr=perhaps"),
        ("-o config.dump=x g", 4, "config.dump=x"),
    ] {
        let (message, exit) = refusal(line);
        assert!(message.contains(part), "{line}: {message}");
        assert_eq!(exit, code, "{line}: {message}");
    }
}

#[test]
fn help_comes_in_three_forms() {
    for (line, answer) in [
        ("-h", Answer::Help),
        ("-s help", Answer::PciDevices),
        ("-l he", Answer::LpcDevices),
        ("-H -h -q", Answer::Help),
    ] {
        assert_eq!(parse_line(line).unwrap(), answer, "{line}");
    }
}

#[test]
fn a_file_has_a_variable_in_each_line() {
    let file = TempFile::new(
        "good",
        b"# A VM\n\nname=vm1\ncpus=2\ndisk=/vm/%(name)\na.b= x = y \nlast=1",
    );
    let line = format!("-c 4 -k {} -m 1G", file.0.display());
    let o = run(&line);
    for (name, value) in [
        ("name", "vm1"),
        ("cpus", "2"),
        ("disk", "/vm/vm1"),
        ("a.b", " x = y "),
        ("last", "1"),
        ("memory.size", "1G"),
    ] {
        assert_eq!(o.config.get(name).as_deref(), Some(value), "{name}");
    }
    // The operand comes last.
    assert_eq!(
        get(&format!("{line} vm2"), "disk").as_deref(),
        Some("/vm/vm2")
    );
}

#[test]
fn a_line_of_a_file_that_makes_no_sense_is_named() {
    for (name, contents, part) in [
        (
            "name",
            &b"a=1\n\nb\n"[..],
            "line 3: invalid config option 'b'",
        ),
        ("value", b"a=\n", "line 1: invalid config option 'a='"),
        ("blank", b"a=1\n  \n", "line 2: invalid config option '  '"),
        ("comment", b" # no\n", "line 1: "),
        (
            "node",
            b"a.b=1\na=2\n",
            "line 2: invalid config option 'a=2': a can't have a value",
        ),
        ("text", b"a=1\nb=\xff\n", "line 2: "),
    ] {
        let file = TempFile::new(name, contents);
        let (message, code) = refusal(&format!("-k {} g", file.0.display()));
        assert!(message.contains(part), "{name}: {message}");
        assert_eq!(code, 4);
    }
}

#[test]
fn the_dump_has_references_as_they_are_in_stock_order() {
    let line = "-o config.dump=1 -m 1G -w -s 0,hostbridge -s 2,virtio-blk,/vm/%(name)/disk vm1";
    let Answer::Dump(lines) = parse_line(line).unwrap() else {
        panic!("{line}");
    };
    let stock = [
        "acpi_tables=true",
        "acpi_tables_in_memory=true",
        "memory.size=1G",
        "x86.verbosemsr=false",
        "x86.strictmsr=false",
        "lpc.fwcfg=bhyve",
        "config.dump=1",
        "pci.0.0.0.device=hostbridge",
        "pci.0.2.0.device=virtio-blk",
        "pci.0.2.0.path=/vm/%(name)/disk",
        "name=vm1",
    ];
    assert_eq!(lines, stock);
}

#[test]
fn names_of_2021_are_told_to_be_old() {
    let o = run("-o lpc.bootrom=/x.fd -o lpc.bootvars=/y.fd -o bootvars=/z.fd g");
    assert_eq!(
        o.notes,
        ["lpc.bootrom is deprecated, use '-o bootrom' instead"]
    );
    assert_eq!(o.config.get("bootrom").as_deref(), Some("/x.fd"));
}

proptest! {
    #[test]
    fn any_command_line_is_understood_or_refused(
        args in proptest::collection::vec("(-[a-jl-zA-Z]{1,3})?[0-9:,a-z=.%()]{0,12}", 0..6),
    ) {
        match parse(&args, None) {
            Err(error) => prop_assert!(!error.to_string().is_empty()),
            Ok(Answer::Run(options)) => {
                let _ = Settings::read(&options.config);
            }
            Ok(_) => {}
        }
    }
}
