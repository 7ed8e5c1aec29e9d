//! The same guest programs on CPU models that differ in what their VT-x has: each sees the
//! same.

use vmm_rs_e2e::lab::{CpuModel, LabConfig};

use crate::host::on_host_for_kernels;

#[test]
#[cfg_attr(native_host, ignore = "needs other CPUs than this one")]
fn the_same_bytes_give_the_same_result_on_every_cpu_model() {
    let mut results = Vec::new();
    for cpu_model in [
        CpuModel::SkylakeX,
        CpuModel::Haswell4770,
        CpuModel::SandyBridge2600k,
        CpuModel::ArrandaleM520,
    ] {
        let config = LabConfig {
            cpu_model,
            ..LabConfig::default()
        };
        on_host_for_kernels(config, |host| {
            let outputs = ["demo", "modes", "exits", "apic"].map(|guest| {
                let text = host.run_guest(guest, 64);
                format!("{guest}:\n{}", comparable(&text))
            });
            results.push((cpu_model, outputs.concat()));
        });
    }
    let (first_model, first) = &results[0];
    for (model, result) in &results[1..] {
        assert_eq!(
            first, result,
            "{first_model:?} and {model:?} differ in what the guest sees"
        );
    }
}

/// Masks what may differ: the number in "N ticks", and whether there is XSAVE.
fn comparable(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("xsetbv: "));
    let lines = lines.map(|line| match line.strip_suffix(" ticks") {
        Some(rest) => {
            let end = rest.trim_end_matches(|c: char| c.is_ascii_digit()).len();
            format!("{}N ticks\n", &rest[..end])
        }
        None => format!("{line}\n"),
    });
    lines.collect()
}
