//! Memory sizes as people type them.

use crate::Error;

/// A memory size of a command line: a number with an optional k, m, g or t; a plain
/// number below a mebibyte counts mebibytes (vm_parse_memsize).
pub fn parse_memsize(text: &str) -> Result<u64, Error> {
    let bad = || Error::BadName {
        name: text.to_owned(),
        why: "a memory size is a number with k, m, g or t",
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (digits, suffix) = match text.strip_prefix("0x") {
        Some(hex) if hex.bytes().all(|c| c.is_ascii_hexdigit()) => (text, ""),
        _ => (digits, &text[digits.len()..]),
    };
    let number = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    }
    .map_err(|_| bad())?;
    let shift = match suffix.to_ascii_lowercase().trim_end_matches('b') {
        "" if number < 1 << 20 && suffix.is_empty() => 20,
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(bad()),
    };
    number.checked_mul(1 << shift).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes_read_as_on_bhyves_command_line() {
        for (text, size) in [
            ("1024", 1024 << 20),
            ("1048576", 1 << 20),
            ("0x40", 64 << 20),
            ("512m", 512 << 20),
            ("512M", 512 << 20),
            ("2g", 2 << 30),
            ("2GB", 2 << 30),
            ("64k", 64 << 10),
            ("1t", 1 << 40),
        ] {
            assert_eq!(parse_memsize(text), Ok(size), "{text}");
        }
        for text in [
            "",
            "m",
            "-1",
            "1x",
            "1mm",
            "99999999999999999999",
            "18446744073709551615t",
            "0x",
        ] {
            assert!(parse_memsize(text).is_err(), "{text}");
        }
    }
}
