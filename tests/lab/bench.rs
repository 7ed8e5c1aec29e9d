//! `make bench`: what exits cost under our module and under Linux's KVM, in the same lab by
//! the same guest program; what the boot of Debian's kernel costs, and its exits by reason.
//! A table on stdout, and the same as JSON in build/bench.json.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// What the lab host runs.
pub const SCRIPT: &str = include_str!("bench.sh");

/// What the rows mean, in the order of the table.
const ROWS: [(&str, &str); 16] = [
    ("empty", "nothing: two RDTSC"),
    ("cpuid", "CPUID leaf 1"),
    ("rdmsr", "RDMSR emulated in the kernel (0x1a0)"),
    ("out_userland", "OUT, 32 bits, to userland and back"),
    ("in_userland", "IN, 32 bits, to userland and back"),
    ("in_kernel_8259", "IN from the 8259 in the kernel"),
    ("mmio_read_userland", "MMIO read, to userland and back"),
    ("mmio_write_userland", "MMIO write, to userland and back"),
    ("x2apic_id", "x2APIC ID"),
    ("x2apic_tpr", "x2APIC TPR"),
    ("x2apic_eoi", "x2APIC EOI"),
    ("first_touch_4k", "first touch of a 4 KiB page"),
    ("next_touch_4k", "next touch"),
    ("first_touch_2m", "first touch of 2 MiB"),
    ("kernel_to_init", "loading Debian's kernel, to its init"),
    ("kernel_to_script", "… to the first program on its disk"),
];

/// One row of one hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cost {
    min: u64,
    median: u64,
    mean: u64,
}

/// What a run of the script said.
pub struct Results {
    vmm_rs: Vec<(String, Cost)>,
    kvm: Vec<(String, Cost)>,
    /// Statistics of the VM that booted Debian's kernel, those that are not 0.
    exits: Vec<(String, u64)>,
}

impl Results {
    /// Reads the script's output.
    pub fn parse(text: &str) -> Results {
        let mut results = Results {
            vmm_rs: Vec::new(),
            kvm: Vec::new(),
            exits: Vec::new(),
        };
        let mut section = "";
        for line in text.lines().map(str::trim_end) {
            if let Some(name) = line.strip_prefix("== ") {
                section = name;
            } else if section == "exits" {
                results.exits.extend(statistic(line));
            } else if let Some(row) = row(line) {
                match section {
                    "kvm" => results.kvm.push(row),
                    _ => results.vmm_rs.push(row),
                }
            }
        }
        results
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut out = String::from(
            "ticks of the lab's TSC, one per instruction; minimum / median / mean of 1000 (2 MiB: of 24)\n\n",
        );
        let _ = writeln!(out, "{:<48} {:>26} {:>26}", "", "vmm_rs", "Linux KVM");
        for (key, what) in ROWS {
            let (ours, theirs) = (cost(&self.vmm_rs, key), cost(&self.kvm, key));
            if ours.is_none() && theirs.is_none() {
                continue;
            }
            let _ = writeln!(out, "{what:<48} {:>26} {:>26}", show(ours), show(theirs));
        }
        let _ = writeln!(out, "\nDebian's kernel, first instruction to power-off:");
        for (what, number) in &self.exits {
            let _ = writeln!(out, "{what:<60} {number:>14}");
        }
        out
    }

    /// For programs.
    pub fn json(&self) -> String {
        let side = |rows: &[(String, Cost)]| {
            let rows = rows.iter().map(|(key, Cost { min, median, mean })| {
                format!(
                    "    {}: {{ \"min\": {min}, \"median\": {median}, \"mean\": {mean} }}",
                    quoted(key)
                )
            });
            rows.collect::<Vec<_>>().join(",\n")
        };
        let exits = self.exits.iter();
        let exits: Vec<String> = exits
            .map(|(what, number)| format!("    {}: {number}", quoted(what)))
            .collect();
        format!(
            "{{\n  \"unit\": \"ticks\",\n  \"vmm_rs\": {{\n{}\n  }},\n  \"kvm\": {{\n{}\n  }},\n  \"boot_statistics\": {{\n{}\n  }}\n}}\n",
            side(&self.vmm_rs),
            side(&self.kvm),
            exits.join(",\n")
        )
    }

    /// Writes the JSON.
    pub fn save(&self, path: &Path) -> Result<(), String> {
        fs::write(path, self.json()).map_err(|e| format!("{}: {e}", path.display()))
    }
}

fn cost(rows: &[(String, Cost)], key: &str) -> Option<Cost> {
    rows.iter()
        .find(|(name, _)| name == key)
        .map(|(_, cost)| *cost)
}

fn show(cost: Option<Cost>) -> String {
    match cost {
        None => "-".to_owned(),
        Some(Cost { min, median, mean }) if min == median && median == mean => min.to_string(),
        Some(Cost { min, median, mean }) => format!("{min} / {median} / {mean}"),
    }
}

/// `bench: cpuid min 1 median 2 mean 3`, or `bench: kernel_to_init ticks 4`.
fn row(line: &str) -> Option<(String, Cost)> {
    let words: Vec<&str> = line.strip_prefix("bench: ")?.split(' ').collect();
    let number = |text: &str| text.parse::<u64>().ok();
    let (name, cost) = match words[..] {
        [name, "min", min, "median", median, "mean", mean] => (
            name,
            Cost {
                min: number(min)?,
                median: number(median)?,
                mean: number(mean)?,
            },
        ),
        [name, "ticks", ticks] => {
            let ticks = number(ticks)?;
            (
                name,
                Cost {
                    min: ticks,
                    median: ticks,
                    mean: ticks,
                },
            )
        }
        _ => return None,
    };
    Some((name.to_owned(), cost))
}

/// A line of `bhyvectl --get-stats` whose number is not 0.
fn statistic(line: &str) -> Option<(String, u64)> {
    let (what, number) = line.rsplit_once(['\t', ' '])?;
    let number = number.parse().ok().filter(|number| *number != 0)?;
    Some((what.trim().to_owned(), number))
}

/// Descriptions of statistics have nothing to escape but, one day, quotes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "== kvm\r\nbench: cpuid min 985 median 985 mean 990\r\nGUEST-OK\r\n== vmm_rs\n\
        bench: cpuid min 250 median 251 mean 252\n== boot\nbench: kernel_to_init ticks 1500000000\n\
        == exits\nvcpu0\nnumber of NMIs\t\t0\nvm exits due to HLT   \t12\n";

    #[test]
    fn the_scripts_output_becomes_a_table_and_json() {
        let results = Results::parse(TEXT);
        let table = results.table();
        let row = table
            .lines()
            .find(|line| line.starts_with("CPUID"))
            .unwrap();
        assert!(
            row.contains("250 / 251 / 252") && row.ends_with("985 / 985 / 990"),
            "{row}"
        );
        let boot = table
            .lines()
            .find(|line| line.contains("to its init"))
            .unwrap();
        assert!(
            boot.contains(" 1500000000 ") && boot.ends_with('-'),
            "{boot}"
        );
        assert!(
            table.contains("vm exits due to HLT") && !table.contains("NMIs"),
            "{table}"
        );
        let json = results.json();
        assert!(
            json.contains("\"cpuid\": { \"min\": 250, \"median\": 251, \"mean\": 252 }"),
            "{json}"
        );
        assert!(json.contains("\"vm exits due to HLT\": 12\n"), "{json}");
    }
}
