//! `make install` and what it brings that is no program: the port's list of files, the rc.d
//! script, completion. With stand-ins for the programs, so that it needs no FreeBSD and no
//! VT-x.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vmm_rs-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    /// The files in it, from its root.
    fn files(&self) -> BTreeSet<String> {
        fn walk(dir: &Path, root: &Path, found: &mut BTreeSet<String>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, root, found);
                } else {
                    found.insert(format!("/{}", path.strip_prefix(root).unwrap().display()));
                }
            }
        }
        let mut found = BTreeSet::new();
        walk(&self.0, &self.0, &mut found);
        found
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A copy of what install reads, with stand-ins for what is built.
fn source(dir: &Dir) -> PathBuf {
    let tree = dir.0.join("source");
    let listed = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard"])
        .current_dir(top())
        .output()
        .unwrap();
    for file in stdout(&listed).lines() {
        let wanted = [
            "Makefile",
            "README.md",
            "LICENSE",
            "docs/",
            "userland/",
            "kmod/vmm_rs.4",
        ];
        if wanted.iter().any(|part| file.starts_with(part)) && top().join(file).exists() {
            let to = tree.join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(top().join(file), to).unwrap();
        }
    }
    for built in ["build/freebsd", "target/release"] {
        for program in ["bhyve", "bhyveload", "bhyvectl"] {
            dir.write(&format!("source/{built}/{program}"), built);
        }
    }
    dir.write("source/build/vmm_rs.ko", "module");
    tree
}

fn make(tree: &Path, stage: &Path, program: &str, args: &[&str]) {
    let made = Command::new(program)
        .args(args)
        // Those of the make that runs this test, which may be another kind.
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .env_remove("MAKELEVEL")
        .arg(format!("DESTDIR={}", stage.display()))
        .current_dir(tree)
        .output()
        .unwrap();
    assert!(made.status.success(), "{program} {args:?}: {made:?}");
}

/// What pkg-plist says, as the paths of a stage. The ports tree packs the manual pages.
fn plist() -> BTreeSet<String> {
    let text = fs::read_to_string(top().join("userland/port/pkg-plist")).unwrap();
    text.lines()
        .map(|line| {
            line.trim_end_matches(".gz")
                .replace("%%KMODDIR%%", "boot/modules")
        })
        .map(|line| match line.strip_prefix('/') {
            Some(_) => line,
            None => format!("/usr/local/{line}"),
        })
        .collect()
}

#[test]
fn make_install_installs_what_the_port_lists_and_uninstall_removes_it() {
    let dir = Dir::new("install");
    let tree = source(&dir);
    for program in ["make", "bmake"] {
        if Command::new(program).arg("-V").output().is_err() {
            continue; // FreeBSD's make isn't everywhere.
        }
        let stage = Dir::new(&format!("stage-{program}"));
        make(&tree, &stage.0, program, &["install", "OPSYS=FreeBSD"]);
        assert_eq!(stage.files(), plist(), "{program}");
        let script = stage.read("usr/local/etc/rc.d/vmm_rs");
        assert!(script.contains("/usr/local/sbin") && !script.contains("@PREFIX@"));
        make(&tree, &stage.0, program, &["install", "OPSYS=FreeBSD"]); // over itself
        make(&tree, &stage.0, program, &["uninstall", "OPSYS=FreeBSD"]);
        assert_eq!(stage.files(), BTreeSet::new(), "{program}");
    }
}

#[test]
fn the_module_for_another_release_is_installed_under_the_same_name() {
    let dir = Dir::new("module");
    let tree = source(&dir);
    dir.write("source/build/vmm_rs-14.ko", "module for 14");
    let stage = Dir::new("stage-module");
    let module = "MODULE=build/vmm_rs-14.ko";
    make(
        &tree,
        &stage.0,
        "make",
        &["install", "OPSYS=FreeBSD", module],
    );
    assert_eq!(stage.read("boot/modules/vmm_rs.ko"), "module for 14");
}

#[test]
fn on_linux_the_programs_of_this_machine_are_installed_below_the_prefix() {
    let dir = Dir::new("linux");
    let tree = source(&dir);
    let stage = Dir::new("stage-linux");
    make(
        &tree,
        &stage.0,
        "make",
        &["install", "OPSYS=Linux", "PREFIX=/opt/vmm"],
    );
    assert_eq!(stage.read("opt/vmm/sbin/bhyve"), "target/release");
    let files = stage.files();
    assert!(
        files.iter().all(|file| file.starts_with("/opt/vmm/")),
        "{files:?}"
    );
    assert!(files.contains("/opt/vmm/share/man/man8/bhyve.8"));
    assert!(
        !files
            .iter()
            .any(|file| file.ends_with(".ko") || file.contains("rc.d"))
    );
}

#[test]
fn what_was_not_built_is_named() {
    let dir = Dir::new("unbuilt");
    let tree = source(&dir);
    fs::remove_file(tree.join("target/release/bhyvectl")).unwrap();
    let stage = Dir::new("stage-unbuilt");
    let made = Command::new("make")
        .args(["install", "OPSYS=Linux"])
        .arg(format!("DESTDIR={}", stage.0.display()))
        .current_dir(&tree)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(!made.status.success());
    assert!(
        said.contains("target/release/bhyvectl is missing: run make first"),
        "{said}"
    );
    assert_eq!(
        stage.files(),
        BTreeSet::new(),
        "nothing is installed by halves"
    );
}

/// The part of rc.subr(8) and of FreeBSD's programs that the rc.d script uses.
struct RcD {
    dir: Dir,
}

const RC_SUBR: &str = r#"
load_rc_config() { . "$RC/rc.conf"; }
warn() { echo "$name: WARNING: $*" >&2; }
run_rc_command() {
	verb=${1#one}
	eval "\"\$${verb}_cmd\""
}
"#;
/// daemon -c -f -p pidfile -o log command…
const DAEMON: &str = r#"#!/bin/sh
while getopts cfp:o: option; do
	case $option in
	p) pidfile=$OPTARG ;;
	o) log=$OPTARG ;;
	esac
done
shift $((OPTIND - 1))
"$@" >>"$log" 2>&1 </dev/null &
echo $! >"$pidfile"
"#;

impl RcD {
    fn new(name: &str, bhyve: &str, conf: &str) -> Self {
        let dir = Dir::new(name);
        let rc = dir.0.display().to_string();
        let script = fs::read_to_string(top().join("userland/rc.d/vmm_rs")).unwrap();
        let script = script
            .replace("/etc/rc.subr", &format!("{rc}/rc.subr"))
            .replace("@PREFIX@/etc/rc.d/vmm_rs", &format!("{rc}/vmm_rs"))
            .replace("@PREFIX@/sbin", &format!("{rc}/bin"))
            .replace("/var/run/vmm_rs", &format!("{rc}/run"))
            .replace("/var/log", &rc);
        dir.write("vmm_rs", &script);
        dir.write("rc.subr", RC_SUBR);
        dir.write("rc.conf", conf);
        dir.write("bin/daemon", DAEMON);
        for program in ["bhyveload", "bhyvectl"] {
            dir.write(
                &format!("bin/{program}"),
                &format!("#!/bin/sh\necho {program} \"$@\" >>\"$RC/calls\"\n"),
            );
        }
        dir.write(
            "bin/bhyve",
            &format!("#!/bin/sh\necho bhyve \"$@\" >>\"$RC/calls\"\n{bhyve}"),
        );
        Self { dir }
    }

    fn service(&self, args: &[&str]) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        Command::new("sh")
            .arg(self.dir.0.join("vmm_rs"))
            .args(args)
            .env("RC", &self.dir.0)
            .env(
                "PATH",
                format!("{}:{path}", self.dir.0.join("bin").display()),
            )
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Waits for something to come true; a guest's life is another process's work.
    fn wait_for(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let patience = std::time::Duration::from_secs(60);
        let start = std::time::Instant::now();
        while !done(self) {
            assert!(start.elapsed() < patience, "{what}: {}", self.calls());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn calls(&self) -> String {
        self.dir.read("calls")
    }
}

#[test]
fn a_guest_that_resets_is_started_again_and_one_that_powers_off_is_not() {
    let rc = RcD::new(
        "rc-reset",
        "if [ -e \"$RC/once\" ]; then exit 1; fi\n: >\"$RC/once\"\n",
        "vmm_rs_list=web-1\nvmm_rs_web_1_load=\"-m 1G -d '/vm/web disk'\"\nvmm_rs_web_1_flags='-H -m 1G'\n",
    );
    stdout(&rc.service(&["start"]));
    rc.wait_for("the guest's end", |rc| {
        rc.dir.read("vmm_rs-web-1.log").contains("status 1") && rc.calls().ends_with("--destroy\n")
    });
    let calls = rc.calls();
    let loads = "bhyvectl --vm=web-1 --destroy\nbhyveload -m 1G -d /vm/web disk web-1\nbhyve -H -m 1G web-1\n";
    assert_eq!(
        calls,
        format!("{loads}{loads}bhyvectl --vm=web-1 --destroy\n")
    );
}

#[test]
fn a_guest_runs_until_stop_presses_its_power_button() {
    // A guest that turns itself off at the button.
    let guest = "trap 'exit 1' TERM\n: >\"$RC/up\"\nwhile :; do sleep 0.05; done\n";
    let conf = "vmm_rs_list='a b'\nvmm_rs_a_flags=-A\n";
    let rc = RcD::new("rc-stop", guest, conf);
    let started = rc.service(&["start"]);
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(
        !started.status.success() && said.contains("b: vmm_rs_*_flags"),
        "{said}"
    );
    rc.wait_for("the guest's start", |rc| rc.dir.0.join("up").exists());
    rc.wait_for("its pid", |rc| !rc.dir.read("run/a.pid").is_empty());
    assert!(stdout(&rc.service(&["start", "a"])).contains("a is running already."));
    assert!(stdout(&rc.service(&["status", "a"])).starts_with("a is running as pid "));
    assert!(stdout(&rc.service(&["stop"])).contains("Stopping a."));
    let status = rc.service(&["status", "a"]);
    assert_eq!(status.status.code(), Some(1), "{status:?}");
    assert_eq!(status.stdout, b"a is not running.\n");
    // No bhyveload without vmm_rs_a_load.
    let calls = rc.calls();
    assert!(
        calls.contains("bhyve -A a\n") && !calls.contains("bhyveload"),
        "{calls}"
    );
}

#[test]
fn a_guest_that_ignores_its_power_button_is_destroyed() {
    // bhyve ends when its VM is destroyed.
    let guest =
        "trap '' TERM\n: >\"$RC/up\"\nwhile [ ! -e \"$RC/end\" ]; do sleep 0.05; done\nexit 4\n";
    let rc = RcD::new(
        "rc-plug",
        guest,
        "vmm_rs_list=a\nvmm_rs_a_flags=-A\nvmm_rs_stop_timeout=0\n",
    );
    rc.dir.write(
        "bin/bhyvectl",
        "#!/bin/sh\n[ ! -e \"$RC/up\" ] || : >\"$RC/end\"\necho bhyvectl \"$@\" >>\"$RC/calls\"\n",
    );
    stdout(&rc.service(&["start"]));
    rc.wait_for("the guest's start", |rc| rc.dir.0.join("up").exists());
    rc.wait_for("its pid", |rc| !rc.dir.read("run/a.pid").is_empty());
    let stopped = rc.service(&["stop"]);
    let said = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert!(said.contains("its power is cut"), "{said}");
    rc.wait_for("the end", |rc| {
        rc.service(&["status"]).status.code() == Some(1)
    });
}

/// What bash offers for a line with the cursor at its end.
fn bash(line: &str) -> Vec<String> {
    let dev = Dir::new(&format!("bash-{}", line.len()));
    dev.write("guest0", "");
    dev.write("web", "");
    let files = Dir::new(&format!("bash-files-{}", line.len()));
    files.write("disk.img", "");
    let script = format!(
        ". {}/userland/completions/bhyve.bash\n\
         COMP_LINE='{line}' COMP_POINT={} COMP_WORDBREAKS=$' \\t\\n\"><=;|&(:'\n\
         _{} && printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        top().display(),
        line.len(),
        line.split(' ').next().unwrap()
    );
    let output = Command::new("bash")
        .args(["--norc", "-c", &script])
        .env("VMM_DEV", &dev.0)
        .current_dir(&files.0)
        .output()
        .unwrap();
    stdout(&output)
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn bash_completes_options_devices_machines_and_files() {
    for (line, offers) in [
        ("bhyve -", "-H"),
        ("bhyve gu", "guest0"),
        ("bhyve -s 2,virtio-b", "2,virtio-blk"),
        // Bash has split the word at the colon.
        ("bhyve -s 2:0,virtio-b", "0,virtio-blk"),
        ("bhyve -s 2,virtio-blk,di", "2,virtio-blk,disk.img"),
        ("bhyve -l com", "com1"),
        ("bhyveload -d di", "disk.img"),
        ("bhyveload --format=mul", "multiboot"),
        ("bhyveload -m 1G w", "web"),
        ("bhyvectl --des", "--destroy"),
        ("bhyvectl --vm=w", "web"),
        ("bhyvectl --vm w", "web"),
        ("bhyvectl --vm=web --capname=hlt", "hlt_exit"),
    ] {
        let found = bash(line);
        assert!(found.iter().any(|word| word == offers), "{line}: {found:?}");
    }
    assert_eq!(bash("bhyvectl --vm=web --force-p"), ["--force-poweroff"]);
    assert_eq!(bash("bhyve -m 1"), [""; 0]);
}

/// The other shells are asked only where they are: none is needed to build or test.
fn shell(program: &str, args: &[&str], input: &str) -> Option<String> {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(top())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(input.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    Some(stdout(&output))
}

#[test]
fn fish_completes_the_same_where_there_is_a_fish() {
    let ask = |line: &str| {
        let program = line.split(' ').next().unwrap();
        let script = format!(
            "source userland/completions/{program}.fish; complete -C '{line}' | string split -f 1 \\t"
        );
        shell("fish", &["--no-config", "-c", &script], "")
    };
    for (line, offers) in [
        ("bhyvectl --des", "--destroy"),
        ("bhyvectl --capname=hlt", "--capname=hlt_exit"),
        ("bhyve -s 2,virtio-b", "2,virtio-blk"),
        ("bhyveload --format=mul", "--format=multiboot"),
    ] {
        let Some(found) = ask(line) else { return };
        assert!(found.lines().any(|word| word == offers), "{line}: {found}");
    }
}

#[test]
fn the_shells_that_are_here_read_their_files() {
    shell("bash", &["-n", "userland/completions/bhyve.bash"], "").unwrap();
    shell("zsh", &["-n", "userland/completions/_bhyve"], "");
    for program in ["bhyve", "bhyveload", "bhyvectl"] {
        shell(
            "fish",
            &["-n", &format!("userland/completions/{program}.fish")],
            "",
        );
    }
    let tcsh = "source userland/completions/bhyve.tcsh\ncomplete bhyvectl\n";
    if let Some(read) = shell("tcsh", &["-f"], tcsh) {
        assert!(read.contains("destroy"), "{read}");
    }
}

#[test]
fn the_functions_for_sh_find_machines_by_their_beginning() {
    let dev = Dir::new("sh");
    dev.write("guest0", "");
    dev.write("web", "");
    dev.write("web2", "");
    let ask = |line: &str| {
        let script = format!(
            "bhyvectl() {{ echo bhyvectl \"$@\"; }}\npgrep() {{ :; }}\n\
             . userland/completions/bhyve.sh\n{line}"
        );
        let output = Command::new("sh")
            .args(["-c", &script])
            .env("VMM_DEV", &dev.0)
            .current_dir(top())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8(text).unwrap()
    };
    assert_eq!(
        ask("vmm"),
        "guest0 does not run\nweb does not run\nweb2 does not run\n"
    );
    assert_eq!(ask("vmm destroy g"), "bhyvectl --vm=guest0 --destroy\n");
    assert_eq!(ask("vmm kill web"), "bhyvectl --vm=web --force-poweroff\n");
    assert_eq!(
        ask("vmm bhyvectl web2 --get-rip"),
        "bhyvectl --vm=web2 --get-rip\n"
    );
    assert!(ask("vmm stop we").contains("may be: web web2"));
    assert!(ask("vmm stats nobody").contains("no machine begins with \"nobody\""));
}
