//! Tests of the command line.

use super::*;
use proptest::prelude::*;

fn parse_line(line: &str) -> Result<Answer, OptionError> {
    let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    parse(&args)
}

fn run(line: &str) -> Options {
    match parse_line(line) {
        Ok(Answer::Run(options)) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

fn refusal(line: &str) -> String {
    parse_line(line).unwrap_err().to_string()
}

#[test]
fn todays_command_line_is_understood() {
    let o = run("-c 2 -m 512M -HPDew -s 0,hostbridge -s 31,lpc -l com1,stdio guest0");
    assert_eq!((o.vm.as_str(), o.memory), ("guest0", Some(512 << 20)));
    assert_eq!(o.topology.resolve().unwrap().1, 2);
    assert!(o.exit_on_hlt && o.exit_on_pause && o.destroy_on_poweroff && o.strict_io);
    assert!(!o.strict_msr && !o.wired && !o.virtio_msi);
    assert!(run("-W guest0").virtio_msi);
    assert_eq!(o.slots.len(), 2);
    assert_eq!(
        o.com_ports,
        [ComPort {
            index: 0,
            backend: "stdio".into()
        }]
    );
}

#[test]
fn the_command_line_of_2013_is_understood() {
    let o = run("-A -I -m 1024 -s 0:0,virtio-blk,diskdev -S 31,uart,stdio guest0");
    assert_eq!(o.memory, Some(1 << 30));
    assert_eq!(
        o.com_ports,
        [ComPort {
            index: 0,
            backend: "stdio".into()
        }]
    );
    let [disk] = &o.slots[..] else {
        panic!("{:?}", o.slots);
    };
    assert_eq!(disk.device.name, "virtio-blk");
    assert_eq!(
        o.config.lines(),
        ["pci.0.0.0.device=virtio-blk", "pci.0.0.0.path=diskdev"]
    );
    assert!(!o.wired);
    assert!(o.mptable);
    assert!(!run("-AY guest0").mptable);
    assert!(!o.utc && run("-u guest0").utc);
    let uuid = "00112233-4455-6677-8899-aabbccddeeff";
    let o = run(&format!("-U {uuid} guest0"));
    assert_eq!(o.uuid, Uuid::parse(uuid).ok());
    assert!(refusal("-U 1 guest0").starts_with("-U: '1': a UUID is wanted"));
}

#[test]
fn capital_s_is_told_by_its_form() {
    assert!(run("-S guest0").wired);
    assert!(run("-SH guest0").wired);
    let o = run("-S 30,uart,stdio -S31,uart,/dev/nmdm0A -S guest0");
    assert!(o.wired);
    assert_eq!(
        o.com_ports[1],
        ComPort {
            index: 1,
            backend: "/dev/nmdm0A".into()
        }
    );
}

#[test]
fn pinning_has_two_forms() {
    assert_eq!(run("-p 0:3 -p 1:4 g").pinning.of(1), [4]);
    assert_eq!(run("-p 2 g").pinning.of(1), [3]);
    assert!(refusal("-p x g").starts_with("invalid vcpu pinning"));
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    for (line, what) in [
        ("-G 1234 g", "-G: the GDB stub"),
        ("-k file g", "-k: a configuration file"),
        ("-g 1 g", "-g: 2013's debug port"),
        ("-s 3,e1000,tap0 g", "-s 3,e1000,tap0: e1000"),
        ("-l bootrom,/x.fd g", "-l bootrom,/x.fd: bootrom"),
        ("-M 1024 g", "-M: 2013's memory"),
    ] {
        let message = refusal(line);
        assert!(message.starts_with(what), "{message}");
        assert!(message.ends_with("not part of this version"), "{message}");
        assert_eq!(parse_line(line).unwrap_err().exit_code(), 4);
    }
    assert!(refusal("-s 3,floppy g").contains("unknown device \"floppy\""));
}

#[test]
fn mistakes_are_named_with_bhyves_exit_codes() {
    let code = |line: &str| parse_line(line).unwrap_err().exit_code();
    assert_eq!(
        (refusal("-q g"), code("-q g")),
        ("illegal option -- q".into(), 1)
    );
    assert_eq!(code(""), 1);
    assert_eq!(code("a b"), 1);
    assert_eq!(code("-m 1Q g"), 64);
    assert_eq!(code("-c 0 g"), 64);
    for slot in [
        "32,hostbridge",
        "0:8,hostbridge",
        "256:0:0,hostbridge",
        "a,lpc",
        "1:2:3:4,lpc",
        "3",
    ] {
        assert_eq!(code(&format!("-s {slot} g")), 4, "{slot}");
    }
    assert!(refusal("-s 1,lpc -s 0:1:0,hostbridge g").contains("0:1:0 is occupied"));
    assert!(refusal("-l com1,stdio -l com1,stdio g").contains("com1 is configured twice"));
}

#[test]
fn help_comes_in_three_forms() {
    assert_eq!(parse_line("-h"), Ok(Answer::Help));
    assert_eq!(parse_line("-s help"), Ok(Answer::PciDevices));
    assert_eq!(parse_line("-l help"), Ok(Answer::LpcDevices));
}

proptest! {
    #[test]
    fn any_command_line_is_understood_or_refused(
        args in proptest::collection::vec("(-[a-zA-Z]{1,3})?[0-9:,a-z=]{0,12}", 0..6),
    ) {
        if let Err(error) = parse(&args) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
