//! Tests of the tree.

use proptest::prelude::*;

use super::*;

fn config(lines: &[&str]) -> Config {
    let mut config = Config::default();
    for line in lines {
        let (path, value) = line.split_once('=').unwrap();
        config.set(path, value).unwrap();
    }
    config
}

#[test]
fn variables_are_found_by_path_and_by_node() {
    let config = config(&["a.b.c=1", "a.d=2", "e=3"]);
    assert_eq!(config.get("a.b.c").as_deref(), Some("1"));
    assert_eq!(config.get("e").as_deref(), Some("3"));
    for nothing in ["a", "a.b", "a.b.c.d", "x", "", ".", "a..b"] {
        assert_eq!(config.get(nothing), None, "{nothing}");
    }
    let a = config.node("a").unwrap();
    assert_eq!(a.get("d").as_deref(), Some("2"));
    assert_eq!(a.get("b"), None);
    let names: Vec<_> = a.children().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["b"]);
    assert_eq!(a.node("b").unwrap().path(), "a.b");
    assert!(config.node("e").is_none() && config.node("a.d").is_none());
}

#[test]
fn a_new_value_replaces_the_old_one_and_is_the_last() {
    let mut config = config(&["a=1", "b=2"]);
    config.set("a", "3").unwrap();
    assert_eq!(config.lines(), ["b=2", "a=3"]);
}

#[test]
fn a_name_is_a_node_or_a_variable() {
    let mut config = config(&["a.b=1"]);
    assert_eq!(
        config.set("a", "2"),
        Err(ConfigError::ValueForNode("a".into()))
    );
    let error = config.set("a.b.c", "2").unwrap_err();
    assert_eq!(
        error.to_string(),
        "a.b.c is beneath a.b, which has a value itself"
    );
    for name in ["", ".", "a.", ".a", "a..b"] {
        let error = config.set(name, "1").unwrap_err();
        assert!(matches!(error, ConfigError::Name(_)), "{name}: {error}");
    }
    assert_eq!(config.lines(), ["a.b=1"]);
}

#[test]
fn references_are_resolved_when_a_value_is_read() {
    let mut config = config(&[
        "path=%(dir)/%(name).img",
        "dir=/vm/%(name)",
        "plain=a\\b",
        "escaped=100\\% of %(name)\\\\",
    ]);
    config.set("name", "guest").unwrap();
    assert_eq!(config.get("path").as_deref(), Some("/vm/guest/guest.img"));
    assert_eq!(config.get("plain").as_deref(), Some("a\\b"));
    assert_eq!(config.get("escaped").as_deref(), Some("100% of guest\\"));
    assert_eq!(config.warnings(), Vec::<String>::new());
    assert_eq!(config.lines()[0], "path=%(dir)/%(name).img");
}

#[test]
fn references_that_lead_nowhere_are_told_once_and_stand_for_nothing() {
    let config = config(&["a=<%(nobody)>", "b=50%", "c=%(c)", "d=%(e", "f=%()x\\"]);
    assert_eq!(config.get("a").as_deref(), Some("<>"));
    assert_eq!(config.get("a").as_deref(), Some("<>"));
    assert_eq!(
        config.warnings(),
        ["%(nobody) in \"<%(nobody)>\" is not set"]
    );
    assert_eq!(config.get("b").as_deref(), Some("50%"));
    assert_eq!(config.get("c").as_deref(), Some("%(c)"));
    assert_eq!(config.get("d").as_deref(), Some("%(e"));
    assert_eq!(config.get("f").as_deref(), Some("x"));
    assert_eq!(config.warnings().len(), 6);
}

#[test]
fn values_that_double_themselves_end() {
    let mut config = config(&["v0=0123456789"]);
    for n in 1..40 {
        let half = format!("%(v{})", n - 1);
        config.set(&format!("v{n}"), &half.repeat(2)).unwrap();
    }
    assert!(config.get("v39").unwrap().len() < 2 << 20);
}

#[test]
fn what_nobody_has_read_is_known() {
    let config = config(&["a.b=1", "a.c=%(d)", "d=2", "e=3"]);
    assert_eq!(config.unread().len(), 4);
    config.node("a").unwrap().get("c");
    assert_eq!(config.unread(), ["a.b", "e"]);
}

#[test]
fn booleans_and_numbers_are_checked() {
    let config = config(&["n.t=YES", "n.f=0", "n.x=maybe", "n.n=0x10", "n.o=17"]);
    let node = config.node("n").unwrap();
    assert_eq!(node.bool("t", false), Ok(true));
    assert_eq!(node.bool("f", true), Ok(false));
    assert_eq!(node.bool("none", true), Ok(true));
    let error = node.bool("x", true).unwrap_err().to_string();
    assert!(error.starts_with("n.x=maybe: "), "{error}");
    assert_eq!(node.number("n", 0, 16), Ok(Some(16)));
    let error = node.number("o", 0, 16).unwrap_err().to_string();
    assert!(
        error.starts_with("n.o=17: a number from 0 to 16"),
        "{error}"
    );
    assert_eq!(
        node.required("none").unwrap_err().to_string(),
        "n.none is not set"
    );
}

#[test]
fn options_become_variables() {
    let mut config = Config::default();
    let mut node = config.node_mut("pci.0.3.0").unwrap();
    node.set_options("ro,mac=1:2,mtu=").unwrap();
    assert_eq!(node.set_options("=b"), Err(ConfigError::EmptyOption));
    let dotted = node.set_options("a.b=c").unwrap_err();
    assert_eq!(dotted, ConfigError::DottedOption("a.b".into()));
    assert_eq!(
        config.lines()[..3],
        ["pci.0.3.0.ro=true", "pci.0.3.0.mac=1:2", "pci.0.3.0.mtu="]
    );
}

proptest! {
    #[test]
    fn whatever_is_set_can_be_read(
        sets in proptest::collection::vec(("[a-c.]{0,5}", "[a-c%()\\\\.]{0,12}"), 0..20)
    ) {
        let mut config = Config::default();
        let mut known = std::collections::BTreeMap::new();
        for (path, value) in &sets {
            if config.set(path, value).is_ok() {
                known.insert(path.clone(), value.clone());
            }
        }
        for (path, value) in &known {
            let read = config.get(path);
            prop_assert!(read.is_some());
            if !value.contains('%') {
                prop_assert_eq!(read.as_ref(), Some(value));
            }
        }
        prop_assert_eq!(config.lines().len(), known.len());
    }
}
