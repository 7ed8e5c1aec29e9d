//! Disks with partition tables.

/// The type of a GPT partition: freebsd-ufs, freebsd-zfs, freebsd.
pub const UFS: [u8; 16] = *b"\xb6\x7c\x6e\x51\xcf\x6e\xd6\x11\x8f\xf8\x00\x02\x2d\x09\x71\x2b";
pub const ZFS: [u8; 16] = *b"\xba\x7c\x6e\x51\xcf\x6e\xd6\x11\x8f\xf8\x00\x02\x2d\x09\x71\x2b";
pub const FREEBSD: [u8; 16] = *b"\xb4\x7c\x6e\x51\xcf\x6e\xd6\x11\x8f\xf8\x00\x02\x2d\x09\x71\x2b";
pub const EFI: [u8; 16] = *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    disk[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A disk with a GPT and its backup; each partition has a type and contents.
pub fn gpt(sector: usize, partitions: &[([u8; 16], &[u8])]) -> Vec<u8> {
    let table_sectors = (16_384_usize).div_ceil(sector);
    let first = 2 + table_sectors;
    let mut entries = vec![0; 16_384];
    let mut disk = vec![0; first * sector];
    for (n, (kind, contents)) in partitions.iter().enumerate() {
        let start = disk.len() / sector;
        disk.extend(*contents);
        disk.resize(disk.len().next_multiple_of(sector), 0);
        let entry = &mut entries[n * 128..(n + 1) * 128];
        put(entry, 0, kind);
        put(entry, 16, &[n as u8 + 1; 16]);
        put(entry, 32, &(start as u64).to_le_bytes());
        put(
            entry,
            40,
            &(disk.len() as u64 / sector as u64 - 1).to_le_bytes(),
        );
    }
    let last = disk.len() / sector - 1;
    let backup = last + 1 + table_sectors;
    disk.resize((backup + 1) * sector, 0);
    protect(&mut disk);
    let mut header = |own: usize, other: usize, table: usize| {
        let mut header = vec![0; 92];
        put(&mut header, 0, b"EFI PART\0\0\x01\0");
        put(&mut header, 12, &92_u32.to_le_bytes());
        let numbers = [(24, own), (32, other), (40, first), (48, last), (72, table)];
        for (at, value) in numbers {
            put(&mut header, at, &(value as u64).to_le_bytes());
        }
        put(&mut header, 80, &128_u32.to_le_bytes());
        put(&mut header, 84, &128_u32.to_le_bytes());
        put(&mut header, 88, &crc32fast::hash(&entries).to_le_bytes());
        let crc = crc32fast::hash(&header);
        put(&mut header, 16, &crc.to_le_bytes());
        put(&mut disk, own * sector, &header);
        put(&mut disk, table * sector, &entries);
    };
    header(1, backup, 2);
    header(backup, 1, last + 1);
    disk
}

fn protect(disk: &mut [u8]) {
    entry(disk, 0, 0, 0xee, 1, 0xffff_ffff);
}

/// Writes an entry of the MBR in `sector`, and the MBR's end.
pub fn entry(disk: &mut [u8], sector: usize, n: usize, kind: u8, start: u32, size: u32) {
    let at = sector * 512 + 446 + n * 16;
    disk[at + 4] = kind;
    put(disk, at + 8, &start.to_le_bytes());
    put(disk, at + 12, &size.to_le_bytes());
    put(disk, sector * 512 + 510, &[0x55, 0xaa]);
}

/// Writes a disklabel in sector 1: type, first sector and sectors of each partition, whose
/// third one is the disk itself.
pub fn disklabel(disk: &mut [u8], partitions: &[(u8, u32, u32)]) {
    let mut label = vec![0; 148 + 8 * 16];
    put(&mut label, 0, &0x8256_4557_u32.to_le_bytes());
    put(&mut label, 132, &0x8256_4557_u32.to_le_bytes());
    put(&mut label, 40, &512_u32.to_le_bytes());
    put(&mut label, 138, &8_u16.to_le_bytes());
    for (n, (kind, start, size)) in partitions.iter().enumerate() {
        let at = 148 + n * 16;
        put(&mut label, at, &size.to_le_bytes());
        put(&mut label, at + 4, &start.to_le_bytes());
        label[at + 12] = *kind;
    }
    let sum = label
        .chunks_exact(2)
        .fold(0, |sum, pair| sum ^ u16::from_le_bytes([pair[0], pair[1]]));
    put(&mut label, 136, &sum.to_le_bytes());
    put(disk, 512, &label);
}
