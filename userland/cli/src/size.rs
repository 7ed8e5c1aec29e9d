//! Sizes as bhyve's programs read and print them: `-m` (vm_parse_memsize of libvmmapi,
//! expand_number(3)) and the columns of bhyvectl (humanize_number(3)).

use std::fmt;

const MB: u64 = 1 << 20;

/// Why a size was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SizeError {
    NotASize,
    TooLarge,
    Zero,
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotASize => "not a number with an optional suffix K, M, G or T",
            Self::TooLarge => "does not fit into 64 bits",
            Self::Zero => "a guest needs memory",
        })
    }
}

/// A memory size in bytes: `512M`, `2g`, `1024` (megabytes: a plain number below 2^20 is
/// one of MB, a larger one of bytes).
pub fn parse_memsize(text: &str) -> Result<u64, SizeError> {
    let size = match crate::number::parse_digits(text) {
        Some(plain) if plain < MB => plain * MB,
        Some(plain) => plain,
        None => expand_number(text)?,
    };
    if size == 0 {
        Err(SizeError::Zero)
    } else {
        Ok(size)
    }
}

/// A number with a binary suffix (K, M, G, T, P, E in either case, and an optional B).
pub fn expand_number(text: &str) -> Result<u64, SizeError> {
    let text = text
        .strip_suffix(['b', 'B'])
        .filter(|_| !text.starts_with("0x"))
        .unwrap_or(text);
    let shift = match text.bytes().last() {
        Some(b'e' | b'E') if !text.starts_with("0x") => 60,
        Some(b'p' | b'P') => 50,
        Some(b't' | b'T') => 40,
        Some(b'g' | b'G') => 30,
        Some(b'm' | b'M') => 20,
        Some(b'k' | b'K') => 10,
        Some(_) => 0,
        None => return Err(SizeError::NotASize),
    };
    let digits = if shift == 0 {
        text
    } else {
        &text[..text.len() - 1]
    };
    let digits_only = digits.strip_prefix("0x").unwrap_or(digits);
    let number = match crate::number::parse_digits(digits) {
        Some(number) => number,
        None if !digits_only.is_empty() && digits_only.bytes().all(|b| b.is_ascii_digit()) => {
            return Err(SizeError::TooLarge);
        }
        None => return Err(SizeError::NotASize),
    };
    number.checked_mul(1 << shift).ok_or(SizeError::TooLarge)
}

/// `bytes` in at most seven columns, without a space before the unit: `256MB`, `4096B`.
pub fn humanize(bytes: u64) -> String {
    // A buffer of eight: four digits of room beside one digit, the prefix, "B" and NUL.
    const COLUMNS_FULL: u64 = 100_000;
    const PREFIXES: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];
    let (mut quotient, mut remainder, mut scale) = (bytes, 0, 0);
    while (quotient >= COLUMNS_FULL || (quotient == COLUMNS_FULL - 1 && remainder >= 512))
        && scale < 6
    {
        remainder = quotient % 1024;
        quotient /= 1024;
        scale += 1;
    }
    format!(
        "{}{}B",
        quotient + (remainder + 512) / 1024,
        PREFIXES[scale]
    )
}

/// A memory size as one would type it: `64M`, `5G`, `1536M`.
pub fn memsize(bytes: u64) -> String {
    let units = [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')];
    match units
        .into_iter()
        .find(|(shift, _)| bytes != 0 && bytes % (1 << shift) == 0)
    {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plain_small_number_is_megabytes() {
        assert_eq!(parse_memsize("1024"), Ok(1024 * MB));
        assert_eq!(parse_memsize("1048576"), Ok(MB));
        assert_eq!(parse_memsize("268435456"), Ok(256 * MB));
        assert_eq!(parse_memsize("0x100"), Ok(256 * MB));
    }

    #[test]
    fn suffixes_are_binary_and_of_either_case() {
        assert_eq!(parse_memsize("512M"), Ok(512 * MB));
        assert_eq!(parse_memsize("512mb"), Ok(512 * MB));
        assert_eq!(parse_memsize("2g"), Ok(2048 * MB));
        assert_eq!(parse_memsize("1T"), Ok(1 << 40));
        assert_eq!(parse_memsize("8192k"), Ok(8 * MB));
        assert_eq!(parse_memsize("0x10M"), Ok(16 * MB));
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for bad in ["", "M", "12Q", "1.5G", "-1M", "1 M", "b", "0x", "MB"] {
            assert_eq!(parse_memsize(bad), Err(SizeError::NotASize), "{bad:?}");
        }
        assert_eq!(parse_memsize("0"), Err(SizeError::Zero));
        assert_eq!(parse_memsize("0G"), Err(SizeError::Zero));
        assert_eq!(parse_memsize("99999999999999G"), Err(SizeError::TooLarge));
        assert_eq!(
            parse_memsize("99999999999999999999M"),
            Err(SizeError::TooLarge)
        );
    }

    #[test]
    fn humanize_fills_the_columns_of_bhyvectl() {
        assert_eq!(humanize(4096), "4096B");
        assert_eq!(humanize(99_999), "99999B");
        assert_eq!(humanize(128 << 10), "128KB");
        assert_eq!(humanize(256 * MB), "256MB");
        assert_eq!(humanize(5 << 30), "5120MB");
        assert_eq!(humanize(1 << 40), "1024GB");
    }

    #[test]
    fn memsize_reads_back_as_the_same_size() {
        assert_eq!(memsize(64 * MB), "64M");
        assert_eq!(memsize(1536 * MB), "1536M");
        assert_eq!(memsize(5 << 30), "5G");
        assert_eq!(parse_memsize(&memsize(1536 * MB)), Ok(1536 * MB));
        assert_eq!(memsize(1025), "1025 bytes");
    }

    proptest! {
        #[test]
        fn sizes_never_panic(text in "[0-9a-zA-Z.+-]{0,24}") {
            let _ = parse_memsize(&text);
        }

        #[test]
        fn humanized_numbers_fit_their_column(bytes: u64) {
            prop_assert!(humanize(bytes).len() <= 7);
        }
    }
}
