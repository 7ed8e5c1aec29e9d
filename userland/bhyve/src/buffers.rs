//! A request's data: pieces of guest memory, each checked when it was added, as one run of
//! bytes. The disks and the virtio queues use them.

#![forbid(unsafe_code)]

use vmmapi::{Error, GuestRange};

/// Guest memory in several pieces, as one run of bytes.
#[derive(Clone, Debug, Default)]
pub struct Buffers(Vec<GuestRange>);

impl Buffers {
    pub fn ranges(&self) -> &[GuestRange] {
        &self.0
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|range| range.len() as u64).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first `at` bytes and the rest; `None` if there are fewer.
    pub fn split_at(mut self, at: u64) -> Option<(Self, Self)> {
        let mut left = at;
        for n in 0..self.0.len() {
            let len = self.0[n].len() as u64;
            if left < len {
                let mut rest = self.0.split_off(n);
                // Smaller than the length of a range, which is a usize.
                let left = left as usize;
                if left > 0 {
                    self.0.push(rest[0].slice(0, left).ok()?);
                    rest[0] = rest[0].slice(left, rest[0].len() - left).ok()?;
                }
                return Some((self, Self(rest)));
            }
            left -= len;
        }
        (left == 0).then(|| (self, Self::default()))
    }

    /// Copies bytes of the guest to `to`, from the beginning on; as many as both have.
    pub fn copy_from(&self, mut to: &mut [u8]) -> Result<usize, Error> {
        let wanted = to.len();
        for range in &self.0 {
            let (now, later) = to.split_at_mut(range.len().min(to.len()));
            range.copy_from(0, now)?;
            to = later;
        }
        Ok(wanted - to.len())
    }

    /// Copies bytes to the guest, from the beginning on; as many as both have.
    pub fn copy_to(&self, mut from: &[u8]) -> Result<usize, Error> {
        let given = from.len();
        for range in &self.0 {
            let (now, later) = from.split_at(range.len().min(from.len()));
            range.copy_to(0, now)?;
            from = later;
        }
        Ok(given - from.len())
    }

    /// Adds a piece at the end.
    pub fn push(&mut self, range: GuestRange) {
        self.0.push(range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmmapi::{Gpa, GuestMemory};

    #[test]
    fn buffers_are_split_anywhere() {
        let memory = GuestMemory::anonymous(&[(Gpa(0), 4096)]).unwrap();
        memory.copy_to(Gpa(0), b"abcdefgh").unwrap();
        let pieces = [(4, 1), (0, 3), (5, 2)];
        let buffers = || {
            Buffers(
                pieces
                    .map(|(at, len)| memory.slice(Gpa(at), len).unwrap())
                    .into(),
            )
        };
        let text = |buffers: Buffers| {
            let mut bytes = vec![0; buffers.len() as usize + 1];
            let copied = buffers.copy_from(&mut bytes).unwrap();
            bytes.truncate(copied);
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(text(buffers()), "eabcfg");
        for at in 0..=6 {
            let (left, right) = buffers().split_at(at).unwrap();
            let expected = "eabcfg".split_at(at as usize);
            assert_eq!((text(left).as_str(), text(right).as_str()), expected);
        }
        assert!(buffers().split_at(7).is_none());
        assert_eq!(buffers().copy_to(b"12345678").unwrap(), 6);
        let mut bytes = [0; 8];
        memory.copy_from(Gpa(0), &mut bytes).unwrap();
        assert_eq!(&bytes, b"234d156h");
    }
}
