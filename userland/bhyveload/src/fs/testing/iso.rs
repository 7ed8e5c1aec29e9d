//! A small ISO 9660 volume, with Rock Ridge or without.

pub const SECTOR: usize = 2048;
const ROOT: usize = 18;
const SECTORS: usize = 64;

/// A volume that is being made. Every directory has one sector.
pub struct Image {
    pub bytes: Vec<u8>,
    rock_ridge: bool,
    next: usize,
}

/// A directory record.
pub struct Record<'a> {
    /// Of ISO 9660.
    pub name: &'a [u8],
    pub sector: usize,
    pub size: usize,
    pub flags: u8,
    /// What follows the name.
    pub fields: Vec<u8>,
}

impl Image {
    pub fn new(rock_ridge: bool) -> Self {
        let mut image = Self {
            bytes: vec![0; SECTORS * SECTOR],
            rock_ridge,
            next: ROOT + 1,
        };
        let mut primary = vec![1];
        primary.extend(b"CD001\x01");
        primary.resize(128, 0);
        primary.extend((SECTOR as u16).to_le_bytes());
        primary.resize(156, 0);
        primary.extend(record(&Record::directory(b"\0", ROOT)));
        image.put(16, &primary);
        image.put(17, b"\xffCD001\x01");
        image
    }

    pub fn put(&mut self, sector: usize, bytes: &[u8]) {
        self.bytes[sector * SECTOR..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Contents in sectors of their own; returns the first one's number.
    pub fn contents(&mut self, bytes: &[u8]) -> usize {
        let sector = self.next;
        self.next += bytes.len().div_ceil(SECTOR).max(1);
        self.put(sector, bytes);
        sector
    }

    /// Fills a directory's sector.
    pub fn directory(&mut self, sector: usize, records: &[Record]) {
        let mut own = Record::directory(b"\0", sector);
        if self.rock_ridge && sector == ROOT {
            own.fields.extend(b"SP\x07\x01\xbe\xef\x00");
        }
        let mut bytes = record(&own);
        bytes.extend(record(&Record::directory(b"\x01", ROOT)));
        for each in records {
            bytes.extend(record(each));
        }
        self.put(sector, &bytes);
    }

    pub fn root(&mut self, records: &[Record]) {
        self.directory(ROOT, records);
    }
}

impl<'a> Record<'a> {
    pub fn directory(name: &'a [u8], sector: usize) -> Self {
        Self {
            name,
            sector,
            size: SECTOR,
            flags: 2,
            fields: Vec::new(),
        }
    }

    pub fn file(name: &'a [u8], sector: usize, size: usize) -> Self {
        Self {
            name,
            sector,
            size,
            flags: 0,
            fields: Vec::new(),
        }
    }

    /// With Rock Ridge's fields.
    pub fn with(mut self, fields: &[&[u8]]) -> Self {
        self.fields = fields.concat();
        self
    }
}

fn record(from: &Record) -> Vec<u8> {
    let both = |value: usize| {
        let value = value as u32;
        [value.to_le_bytes(), value.to_be_bytes()].concat()
    };
    let mut bytes = vec![0, 0];
    bytes.extend(both(from.sector));
    bytes.extend(both(from.size));
    bytes.resize(25, 0);
    bytes.push(from.flags);
    bytes.resize(32, 0);
    bytes.push(from.name.len() as u8);
    bytes.extend(from.name);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes.extend(&from.fields);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes[0] = bytes.len() as u8;
    bytes
}

/// A field of SUSP.
pub fn field(kind: &[u8; 2], contents: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_vec();
    bytes.extend([contents.len() as u8 + 4, 1]);
    bytes.extend(contents);
    bytes
}

/// Rock Ridge's name.
pub fn name(name: &str) -> Vec<u8> {
    field(b"NM", &[b"\0", name.as_bytes()].concat())
}

/// Rock Ridge's mode; what else it has isn't looked at.
pub fn mode(mode: u32) -> Vec<u8> {
    let mut contents = mode.to_le_bytes().to_vec();
    contents.resize(32, 0);
    field(b"PX", &contents)
}

/// A symbolic link of plain components.
pub fn target(components: &[&str]) -> Vec<u8> {
    let mut contents = vec![0];
    for component in components {
        contents.extend([0, component.len() as u8]);
        contents.extend(component.as_bytes());
    }
    field(b"SL", &contents)
}

/// Where the fields go on.
pub fn continuation(sector: usize, offset: usize, len: usize) -> Vec<u8> {
    let mut contents = Vec::new();
    for value in [sector, offset, len] {
        contents.extend((value as u32).to_le_bytes());
        contents.extend((value as u32).to_be_bytes());
    }
    field(b"CE", &contents)
}
