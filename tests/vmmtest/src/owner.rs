//! Whose a VM is: the owner of its nodes, who may destroy it, how many a user may have, and
//! VMs that go with the descriptor that created them. What another user or another process
//! does is done by this program, run again as [`Other`].

use std::fs::{File, Permissions, metadata, set_permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};

use vmmapi::{Error, Exit, OpenFlags, SuspendHow, Vm};

use crate::abi::refused;
use crate::lifecycle::{SPIN, ended, in_background};
use crate::machine::{Machine, fresh_name};

crate::tests! {
    vmmctl_is_for_writing,
    nodes_belong_to_who_creates_them,
    only_its_user_and_root_destroy_a_vm,
    a_user_has_so_many_vms,
    a_vm_goes_with_its_last_handle,
    a_vm_that_was_there_stays,
    a_name_taken_again_is_another_vm,
    a_vm_goes_with_a_killed_process,
}

/// The first argument of this program when it is the other process.
pub const AS_OTHER: &str = "--as-other";

const CONTROL: &str = "/dev/vmmctl";
/// No user of the host's has this id.
const USER: u32 = 54321;

/// VMMCTL_CREATE_DESTROY_ON_CLOSE.
const GOES_WITH_HANDLE: OpenFlags = OpenFlags {
    create: true,
    reinit: false,
    destroy_on_close: true,
};

/// The other process. It does what it is told, line by line: "create NAME", "hold NAME" (a
/// VM that goes with it) and "destroy NAME", and answers each with an errno, 0 for none.
struct Other {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Other {
    fn new(user: u32) -> Self {
        let program = std::env::current_exe().expect("the path of this program");
        let mut process = Command::new(program)
            .arg(AS_OTHER)
            .uid(user)
            .gid(user)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program, as another user");
        let answers = BufReader::new(process.stdout.take().expect("its output"));
        Self { process, answers }
    }

    fn asked(&mut self, request: &str, name: &str) -> i32 {
        let input = self.process.stdin.as_mut().expect("its input");
        writeln!(input, "{request} {name}").expect("a request");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("an answer");
        answer.trim().parse().expect("an errno")
    }

    /// It ends by itself when there are no more requests.
    fn end(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().expect("its end").success());
    }

    fn kill(mut self) {
        self.process.kill().expect("SIGKILL");
        // Its descriptors are closed before its parent can wait for it.
        self.process.wait().expect("its end");
    }
}

/// What [`Other`] does.
pub fn as_other() -> ExitCode {
    let mut held = Vec::new();
    for request in std::io::stdin().lines() {
        let request = request.expect("a request");
        let result = match request.split_once(' ') {
            Some(("create", name)) => Vm::create(name).map(drop),
            Some(("hold", name)) => Vm::open_with(name, GOES_WITH_HANDLE).map(|vm| held.push(vm)),
            Some(("destroy", name)) => vmmapi::vm::destroy(name),
            _ => panic!("no request: {request:?}"),
        };
        let errno = result.err().map_or(0, |e: Error| e.errno().unwrap_or(-1));
        println!("{errno}");
    }
    ExitCode::SUCCESS
}

/// /dev/vmmctl as an administrator would open it to all users, for a while.
struct Opened(Permissions);

impl Opened {
    fn new() -> Self {
        let before = metadata(CONTROL).expect(CONTROL).permissions();
        set_permissions(CONTROL, Permissions::from_mode(0o666)).expect(CONTROL);
        Self(before)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // A test that failed before has the say.
        let _ = set_permissions(CONTROL, self.0.clone());
    }
}

/// User and permissions of a node.
fn owner(path: &str) -> (u32, u32) {
    let node = metadata(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    (node.uid(), node.mode() & 0o7777)
}

fn vmmctl_is_for_writing() {
    assert_eq!(owner(CONTROL), (0, 0o600));
    let error = File::open(CONTROL).expect_err("opened to be read");
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
}

fn nodes_belong_to_who_creates_them() {
    let _opened = Opened::new();
    let name = fresh_name();
    let mut user = Other::new(USER);
    // create opens the VM as well: its user may.
    assert_eq!(user.asked("create", &name), 0);
    assert_eq!(owner(&format!("/dev/vmm/{name}")), (USER, 0o600));
    let vm = Vm::open(&name).expect("root opens a user's VM");
    vm.alloc_memseg(7, 0x1000, Some("seg"), None)
        .expect("a segment with a node");
    // Whoever makes the segment: it is the VM's.
    assert_eq!(owner(&format!("/dev/vmm.io/{name}.seg")), (USER, 0o600));
    assert_eq!(user.asked("destroy", &name), 0);
    user.end();
    let m = Machine::new();
    assert_eq!(owner(&format!("/dev/vmm/{}", m.vm.name())), (0, 0o600));
}

fn only_its_user_and_root_destroy_a_vm() {
    let _opened = Opened::new();
    let (users, roots) = (fresh_name(), Machine::new());
    let (mut user, mut another) = (Other::new(USER), Other::new(USER + 1));
    assert_eq!(user.asked("create", &users), 0);
    assert_eq!(user.asked("destroy", roots.vm.name()), libc::EPERM);
    assert_eq!(another.asked("destroy", &users), libc::EPERM);
    assert_eq!(another.asked("create", &users), libc::EEXIST);
    vmmapi::vm::destroy(&users).expect("root destroys a user's VM");
    assert_eq!(user.asked("destroy", &users), libc::EINVAL);
    roots.cpu.register(vmmapi::Reg::Rip).expect("it is there");
    user.end();
    another.end();
}

fn a_user_has_so_many_vms() {
    let _opened = Opened::new();
    let (mut user, mut another) = (Other::new(USER), Other::new(USER + 1));
    let mut names = Vec::new();
    let error = loop {
        let name = fresh_name();
        match user.asked("hold", &name) {
            0 => names.push(name),
            errno => break errno,
        }
        assert!(names.len() < 10_000, "no limit");
    };
    assert_eq!(error, libc::ENOMEM, "after {} VMs", names.len());
    assert_eq!(names.len(), limit());
    // Another user has as many, and the host's root has no such limit.
    assert_eq!(another.asked("hold", &fresh_name()), 0);
    let machines: Vec<Machine> = (0..=limit()).map(|_| Machine::new()).collect();
    drop(machines);
    // One that is gone makes room for one.
    assert_eq!(user.asked("destroy", &names[0]), 0);
    assert_eq!(user.asked("hold", &fresh_name()), 0);
    assert_eq!(user.asked("hold", &fresh_name()), libc::ENOMEM);
    user.end();
    another.end();
    refused(Vm::open(&names[1]), libc::ENOENT, "its user has ended");
}

/// hw.vmm.maxvmms
fn limit() -> usize {
    let sysctl = Command::new("sysctl")
        .args(["-n", "hw.vmm.maxvmms"])
        .output()
        .expect("sysctl");
    let text = String::from_utf8_lossy(&sysctl.stdout);
    text.trim().parse().expect("hw.vmm.maxvmms")
}

fn a_vm_goes_with_its_last_handle() {
    let name = fresh_name();
    let vm = Vm::open_with(&name, GOES_WITH_HANDLE).unwrap();
    let clone = vm.clone();
    let opened = Vm::open(&name).unwrap();
    drop(vm);
    clone.topology().expect("a handle is left");
    drop(clone);
    refused(Vm::open(&name), libc::ENOENT, "the last handle is gone");
    assert!(opened.topology().is_err(), "one who opened it has no VM");
}

fn a_vm_that_was_there_stays() {
    let m = Machine::new();
    drop(Vm::open_with(m.vm.name(), GOES_WITH_HANDLE).unwrap());
    m.vm.topology().expect("it is there");
}

fn a_name_taken_again_is_another_vm() {
    let name = fresh_name();
    let first = Vm::open_with(&name, GOES_WITH_HANDLE).unwrap();
    vmmapi::vm::destroy(&name).unwrap();
    let second = Vm::create(&name).unwrap();
    drop(first);
    second.topology().expect("it is there");
    second.destroy().unwrap();
}

/// Also while its vcpu runs in a process that lives on.
fn a_vm_goes_with_a_killed_process() {
    let name = fresh_name();
    let mut other = Other::new(0);
    assert_eq!(other.asked("hold", &name), 0);
    let m = Machine::on(Vm::open(&name).unwrap()).in_real_mode(&SPIN);
    let background = in_background(&m);
    other.kill();
    refused(Vm::open(&name), libc::ENOENT, "its process was killed");
    let last = ended(&background);
    assert!(
        matches!(&last, Ok(Exit::Suspended(SuspendHow::Destroy)))
            || matches!(&last, Err(e) if e.is(libc::ENXIO)),
        "{last:?}"
    );
    std::mem::forget(m); // nothing is left to destroy
}
