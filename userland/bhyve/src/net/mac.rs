//! MAC addresses: as ethers(5) writes them, and the one that a guest gets without any.

#![forbid(unsafe_code)]

use std::fmt;

/// Of an Ethernet interface: unicast, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MacAddress([u8; 6]);

/// Text that is no such address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MacError(String);

impl fmt::Display for MacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mac={}: the address of one interface is wanted, six hexadecimal numbers with colons \
             between them, the first of them even, not all zero",
            self.0
        )
    }
}

impl MacAddress {
    pub fn parse(text: &str) -> Result<Self, MacError> {
        let error = || MacError(text.to_owned());
        let mut numbers = text.split(':');
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let digits = numbers.next().ok_or_else(error)?;
            if digits.is_empty() || digits.len() > 2 || digits.starts_with('+') {
                return Err(error());
            }
            *byte = u8::from_str_radix(digits, 16).map_err(|_| error())?;
        }
        let [first, ..] = bytes;
        if numbers.next().is_some() || first & 1 != 0 || bytes == [0; 6] {
            return Err(error());
        }
        Ok(Self(bytes))
    }

    /// bhyve's choice, so that a guest keeps its address when it moves between the two: a
    /// fixed OUI, and a hash of where the card is and of the VM's name.
    pub fn generate(slot: u8, function: u8, vm: &str) -> Self {
        let [a, b, c, ..] = md5::compute(format!("{slot}-{function}-{vm}")).0;
        Self([0x00, 0xa0, 0x98, a, b, c])
    }

    pub fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ethers_5_writes_is_read() {
        let mac = MacAddress::parse("58:9c:fc:0:A:ff").unwrap();
        assert_eq!(mac.bytes(), [0x58, 0x9c, 0xfc, 0, 10, 255]);
        assert_eq!(mac.to_string(), "58:9c:fc:00:0a:ff");
    }

    #[test]
    fn what_no_interface_can_have_is_refused() {
        for text in [
            "",
            "58:9c:fc:00:00",
            "58:9c:fc:00:00:00:00",
            "58-9c-fc-00-00-01",
            "58:9c:fc:00:00:100",
            "58:9c:fc:00::01",
            "58:9c:fc:00:00:+1",
            "58:9c:fc:00:00:0g",
            "00:00:00:00:00:00",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
        ] {
            let error = MacAddress::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("mac={text}:")), "{error}");
        }
    }

    /// With `printf '3-0-guest0' | md5sum`.
    #[test]
    fn the_address_without_any_is_that_of_bhyve() {
        let mac = MacAddress::generate(3, 0, "guest0");
        assert_eq!(mac.to_string(), "00:a0:98:0e:5c:94");
    }
}
