//! Numbers as the command lines take them: strtoul(3) with base 0 (decimal, 0x…, 0…), but
//! with an error for what isn't a number at all or doesn't fit, where C would take a prefix.

/// An unsigned number: decimal, hexadecimal after `0x`, or octal after `0`. A leading minus
/// negates modulo 2^64, as strtoul(3) does (`--set-rax=-1`).
pub fn parse_u64(text: &str) -> Option<u64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = parse_digits(digits)?;
    Some(if negative {
        value.wrapping_neg()
    } else {
        value
    })
}

/// The same without a sign.
pub fn parse_digits(digits: &str) -> Option<u64> {
    let (digits, radix) = if let Some(hex) = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        (hex, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (&digits[1..], 8)
    } else {
        (digits, 10)
    };
    // from_str_radix takes a sign of its own.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// A number of any integer type that must lie within `min..=max`.
pub fn parse_within(text: &str, min: u64, max: u64) -> Option<u64> {
    parse_digits(text).filter(|n| (min..=max).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_told_by_prefix() {
        assert_eq!(parse_u64("31"), Some(31));
        assert_eq!(parse_u64("0x1F"), Some(31));
        assert_eq!(parse_u64("037"), Some(31));
        assert_eq!(parse_u64("0"), Some(0));
        assert_eq!(parse_u64("0xffffffffffffffff"), Some(u64::MAX));
        assert_eq!(parse_u64("-1"), Some(u64::MAX));
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        for bad in [
            "",
            "-",
            "0x",
            "0x+1",
            "--1",
            "12q",
            " 1",
            "08",
            "0x10000000000000000",
            "1e3",
            "ü",
        ] {
            assert_eq!(parse_u64(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn bounds_are_inclusive() {
        assert_eq!(parse_within("16", 1, 16), Some(16));
        assert_eq!(parse_within("17", 1, 16), None);
        assert_eq!(parse_within("-1", 0, u64::MAX), None);
    }
}
