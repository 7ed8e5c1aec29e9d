//! A set of vcpus (`cpuset_t`, 1024 bits).

use crate::VcpuId;

/// Which vcpus are active, suspended, stopped for a debugger, or addressed by an IPI.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuSet(pub(crate) vmm_sys::cpuset_t);

impl CpuSet {
    /// Bytes of the kernel's set.
    pub(crate) const SIZE: usize = size_of::<vmm_sys::cpuset_t>();

    pub fn contains(&self, cpu: VcpuId) -> bool {
        let (word, bit) = (cpu.index() / 64, cpu.index() % 64);
        self.0.__bits.get(word).is_some_and(|w| w >> bit & 1 != 0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.__bits.iter().all(|w| *w == 0)
    }

    /// How many vcpus are in it.
    pub fn len(&self) -> usize {
        self.0.__bits.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Its vcpus in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = VcpuId> + '_ {
        (0..vmm_sys::CPU_SETSIZE as u16)
            .map(VcpuId)
            .filter(|cpu| self.contains(*cpu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_the_set_bits_of_all_words() {
        let mut set = CpuSet::default();
        assert!(set.is_empty());
        set.0.__bits[0] = 1 << 3;
        set.0.__bits[15] = 1 << 63;
        assert_eq!(set.iter().collect::<Vec<_>>(), [VcpuId(3), VcpuId(1023)]);
        assert_eq!(set.len(), 2);
        assert!(!set.contains(VcpuId(1024)));
    }
}
