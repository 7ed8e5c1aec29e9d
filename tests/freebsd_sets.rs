//! tests/lab/freebsd/sets: where `make freebsd-test` has its release from. A folder here stands
//! for download.freebsd.org.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const TOP: &str = env!("CARGO_MANIFEST_DIR");
const SETS: [&str; 2] = ["kernel.txz", "base.txz"];

/// A folder of this test's own, without what an earlier run left.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A release in a folder, with a MANIFEST that is right.
fn release(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for set in SETS {
        fs::write(folder.join(set), format!("the {set} of a release")).unwrap();
    }
    let manifest = "for set in kernel.txz base.txz; do
            sum=$(sha256sum <$set 2>/dev/null || sha256 -q $set)
            printf '%s\\t%s\\t1\\t%s\\t\"a set\"\\ton\\n' $set ${sum%% *} ${set%.txz}
        done >MANIFEST";
    let made = Command::new("sh")
        .args(["-c", manifest])
        .current_dir(folder)
        .status();
    assert!(made.unwrap().success());
}

/// The script as it is found below `top`, where its downloads go, too.
fn script_in(top: &Path) -> Command {
    let place = top.join("tests/lab/freebsd");
    fs::create_dir_all(&place).unwrap();
    fs::copy(
        Path::new(TOP).join("tests/lab/freebsd/sets"),
        place.join("sets"),
    )
    .unwrap();
    let mut command = Command::new("sh");
    command.arg(place.join("sets"));
    command
}

fn says(output: &Output, status: i32, text: &str) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(status) && errors.contains(text),
        "status {status} and '{text}' were expected: {output:?}"
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_folder_with_sets_is_taken_and_what_is_missing_or_wrong_is_named() {
    let top = folder("given-sets");
    let given = top.join("given");
    let run = || script_in(&top).arg(&given).output().unwrap();

    says(&run(), 1, "no such folder");
    release(&given);
    assert_eq!(says(&run(), 0, ""), given.display().to_string());

    fs::write(given.join("base.txz"), "another one").unwrap();
    says(&run(), 1, "base.txz is not what");
    fs::remove_file(given.join("MANIFEST")).unwrap();
    says(&run(), 0, "taken as they are");
    fs::remove_file(given.join("base.txz")).unwrap();
    says(&run(), 1, "no base.txz there");
}

#[test]
fn the_official_sets_are_fetched_once_and_checked() {
    let top = folder("fetched-sets");
    let mirror = top.join("mirror");
    let run = || {
        script_in(&top)
            .env("FREEBSD_MIRROR", format!("file://{}", mirror.display()))
            .env("FREEBSD_RELEASE", "99.1-RELEASE")
            .output()
            .unwrap()
    };
    // Nobody there: one line, and a status of its own.
    let skipped = run();
    says(&skipped, 75, "==> skipped: 99.1-RELEASE can't be fetched");
    assert_eq!(String::from_utf8_lossy(&skipped.stderr).lines().count(), 1);

    let official = mirror.join("99.1-RELEASE");
    release(&official);
    let fetched = top.join("build/freebsd-sets/99.1-RELEASE");
    assert_eq!(says(&run(), 0, "fetching"), fetched.display().to_string());
    for set in SETS {
        assert_eq!(
            fs::read(fetched.join(set)).unwrap(),
            fs::read(official.join(set)).unwrap()
        );
    }
    // What is there is not fetched again, and what broke off goes on.
    fs::remove_file(official.join("base.txz")).unwrap();
    assert!(run().stderr.is_empty());
    release(&official);
    fs::remove_file(fetched.join("base.txz")).unwrap();
    fs::write(fetched.join("base.txz.part"), "the base").unwrap();
    says(&run(), 0, "fetching");

    fs::write(official.join("kernel.txz"), "another one").unwrap();
    fs::remove_file(fetched.join("kernel.txz")).unwrap();
    says(&run(), 1, "kernel.txz from file://");
    assert!(!fetched.join("kernel.txz").exists());
}
