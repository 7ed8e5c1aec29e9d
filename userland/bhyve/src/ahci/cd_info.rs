//! What a CD drive tells of itself and of its medium, one track of data: inquiry (SPC-3,
//! 6.4), table of contents, disc information, configuration, events and mode pages (MMC-5,
//! 6.26, 6.22, 6.6, 6.7, 7).

#![forbid(unsafe_code)]

use super::sense::Sense;

/// A device of type CD/DVD.
const TYPE: u8 = 5;
/// Blocks that a CD has at most, of 80 minutes; what is larger is a DVD.
const CD_BLOCKS: u64 = 80 * 60 * 75;
const PROFILE_CD: u16 = 0x0008;
const PROFILE_DVD: u16 = 0x0010;

/// A media event.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Event {
    #[default]
    None = 0,
    NewMedia = 2,
    Removal = 3,
}

/// INQUIRY: the standard data, or the list of the pages that there are, itself alone.
pub fn inquiry(flags: u8, page: u8) -> Result<Vec<u8>, Sense> {
    match (flags & 1 != 0, page) {
        (true, 0) => Ok(vec![TYPE, 0, 0, 1, 0]),
        (false, 0) => {
            // Removable, version unspecified, response in format 2, 31 more bytes.
            let mut bytes = vec![TYPE, 0x80, 0, 0x21, 31, 0, 0, 0];
            bytes.extend(b"BHYVE   BHYVE DVD-ROM   001 ");
            Ok(bytes)
        }
        _ => Err(Sense::INVALID_FIELD),
    }
}

/// An address as minutes, seconds and frames, or as the block that it is.
fn address(block: u64, msf: bool) -> [u8; 4] {
    if msf {
        // The first block is 2 seconds behind the beginning.
        let frames = block.saturating_add(150);
        let minutes = u8::try_from(frames / 75 / 60).unwrap_or(u8::MAX);
        [0, minutes, (frames / 75 % 60) as u8, (frames % 75) as u8]
    } else {
        u32::try_from(block).unwrap_or(u32::MAX).to_be_bytes()
    }
}

/// READ TOC: tracks, sessions, or all of it in raw form.
pub fn toc(format: u8, msf: bool, start: u8, blocks: u64) -> Result<Vec<u8>, Sense> {
    /// A data track, whose position the Q channel has.
    const DATA: u8 = 0x14;
    const LEAD_OUT: u8 = 0xaa;
    // First and last track, or first and last session.
    let mut bytes = vec![1, 1];
    let mut track = |number, at| {
        bytes.extend([0, DATA, number, 0]);
        bytes.extend(address(at, msf));
    };
    match format {
        0 if start <= 1 => {
            track(1, 0);
            track(LEAD_OUT, blocks);
        }
        0 if start == LEAD_OUT => track(LEAD_OUT, blocks),
        // The first track of the last session.
        1 => track(1, 0),
        2 => {
            let mut entry = |point, last: [u8; 4]| {
                bytes.extend([1, DATA, 0, point, 0, 0, 0]);
                bytes.extend(last);
            };
            entry(0xa0, [0, 1, 0, 0]);
            entry(0xa1, [0, 1, 0, 0]);
            entry(0xa2, address(blocks, msf));
            entry(1, address(0, msf));
        }
        _ => return Err(Sense::INVALID_FIELD),
    }
    let mut all = (bytes.len() as u16).to_be_bytes().to_vec();
    all.append(&mut bytes);
    Ok(all)
}

/// READ DISC INFORMATION, of a CD-ROM that is complete.
pub fn disc_information(flags: u8) -> Result<Vec<u8>, Sense> {
    if flags & 7 != 0 {
        return Err(Sense::INVALID_FIELD);
    }
    let mut bytes = vec![0; 34];
    bytes[1] = 32;
    // Last session complete, disc finalized.
    bytes[2] = 0x0e;
    // First track; sessions; first and last track of the last session.
    bytes[3..7].fill(1);
    // No use restrictions.
    bytes[7] = 0x20;
    // Nothing can be added: no lead-in and no lead-out of a next session.
    bytes[16..24].fill(0xff);
    Ok(bytes)
}

/// GET CONFIGURATION: features from `first` on; with `which` 1 the current ones only, with 2
/// `first` alone.
pub fn configuration(which: u8, first: u16, blocks: Option<u64>) -> Result<Vec<u8>, Sense> {
    let current = match blocks {
        None => 0,
        Some(blocks) if blocks > CD_BLOCKS => PROFILE_DVD,
        Some(_) => PROFILE_CD,
    };
    let [b0, b1, b2, b3] = 2048_u32.to_be_bytes();
    let profile = |profile: u16| {
        let [high, low] = profile.to_be_bytes();
        [high, low, u8::from(profile == current), 0]
    };
    let profiles = [profile(PROFILE_DVD), profile(PROFILE_CD)].concat();
    // Number, version, whether it is always there, whether it is now, and its data.
    let features: [(u16, u8, bool, bool, &[u8]); 7] = [
        (0x0000, 0, true, true, &profiles),
        // Core: the interface is Serial ATA; device busy events.
        (0x0001, 2, true, true, &[0, 0, 0, 7, 1, 0, 0, 0]),
        // Morphing: events of operational changes.
        (0x0002, 1, true, true, &[2, 0, 0, 0]),
        // Removable medium: a tray that ejects and can be locked.
        (0x0003, 0, true, true, &[0x29, 0, 0, 0]),
        // Random readable, in units of a block.
        (
            0x0010,
            0,
            false,
            current != 0,
            &[b0, b1, b2, b3, 0, 1, 0, 0],
        ),
        (0x001e, 2, false, current == PROFILE_CD, &[0, 0, 0, 0]),
        (0x001f, 0, false, current == PROFILE_DVD, &[]),
    ];
    if which == 3 {
        return Err(Sense::INVALID_FIELD);
    }
    let mut bytes = vec![0, 0];
    bytes.extend(current.to_be_bytes());
    for (number, version, always, now, data) in features {
        let wanted = match which {
            0 => number >= first,
            1 => number >= first && now,
            _ => number == first,
        };
        if wanted {
            bytes.extend(number.to_be_bytes());
            bytes.push(version << 2 | u8::from(always) << 1 | u8::from(now));
            bytes.push(data.len() as u8);
            bytes.extend(data);
        }
    }
    let mut all = (bytes.len() as u32).to_be_bytes().to_vec();
    all.append(&mut bytes);
    Ok(all)
}

/// GET EVENT STATUS NOTIFICATION, polled: the drive has media events only.
pub fn events(
    flags: u8,
    classes: u8,
    event: &mut Event,
    present: bool,
    open: bool,
) -> Result<Vec<u8>, Sense> {
    const POLLED: u8 = 1;
    const MEDIA: u8 = 4;
    const NO_EVENT: u8 = 1 << 7;
    if flags & POLLED == 0 {
        return Err(Sense::INVALID_FIELD);
    }
    if classes & 1 << MEDIA == 0 {
        return Ok(vec![0, 2, NO_EVENT, 1 << MEDIA]);
    }
    let status = u8::from(open) | u8::from(present) << 1;
    let code = std::mem::take(event) as u8;
    Ok(vec![0, 6, MEDIA, 1 << MEDIA, code, status, 0, 0])
}

/// MODE SENSE (10): the page for that control and code.
pub fn mode_pages(page: u8, locked: bool) -> Result<Vec<u8>, Sense> {
    const CURRENT: u8 = 0;
    const SAVED: u8 = 3;
    const ERROR_RECOVERY: u8 = 0x01;
    const CAPABILITIES: u8 = 0x2a;
    const ALL: u8 = 0x3f;
    // Five read retries.
    let recovery = [ERROR_RECOVERY, 6, 0, 5, 0, 0, 0, 0];
    let mut capabilities = [0; 22];
    capabilities[0] = CAPABILITIES;
    capabilities[1] = 20;
    // Reads DVD-ROM.
    capabilities[2] = 0x08;
    // Audio, mode 2 forms 1 and 2, several sessions.
    capabilities[4] = 0x71;
    // A tray that ejects and can be locked.
    capabilities[6] = 0x29 | u8::from(locked) << 1;
    // Volume levels; the buffer's KiB.
    capabilities[11] = 2;
    capabilities[12..14].copy_from_slice(&512_u16.to_be_bytes());
    let mut pages = Vec::new();
    match (page >> 6, page & 0x3f) {
        (SAVED, _) => return Err(Sense::NO_SAVED_PARAMETERS),
        (CURRENT, ERROR_RECOVERY) => pages.extend(recovery),
        (CURRENT, CAPABILITIES) => pages.extend(capabilities),
        (CURRENT, ALL) => {
            pages.extend(recovery);
            pages.extend(capabilities);
        }
        _ => return Err(Sense::INVALID_FIELD),
    }
    // The header: length behind itself, medium type 70h as in bhyve(8), no descriptors.
    let [high, low] = (pages.len() as u16 + 6).to_be_bytes();
    let mut bytes = vec![high, low, 0x70, 0, 0, 0, 0, 0];
    bytes.append(&mut pages);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_says_how_long_it_is() {
        for format in 0..3 {
            let toc = toc(format, true, 0, 1000).unwrap();
            assert_eq!(usize::from(toc[1]) + 2, toc.len(), "{format}");
        }
        assert_eq!(
            toc(0, false, 0xaa, 5).unwrap(),
            [0, 10, 1, 1, 0, 0x14, 0xaa, 0, 0, 0, 0, 5]
        );
        assert!(toc(0, false, 2, 5).is_err() && toc(3, false, 0, 5).is_err());
        let all = configuration(0, 0, Some(5)).unwrap();
        assert_eq!(all.len(), 4 + all[3] as usize);
        let one = configuration(2, 3, None).unwrap();
        assert_eq!(one, [0, 0, 0, 12, 0, 0, 0, 0, 0, 3, 3, 4, 0x29, 0, 0, 0]);
        let pages = mode_pages(0x3f, false).unwrap();
        assert_eq!(pages.len(), 2 + pages[1] as usize);
        assert_eq!(inquiry(0, 0).unwrap().len(), 36);
    }

    #[test]
    fn minutes_and_seconds_count_from_two_seconds_before_the_data() {
        assert_eq!(address(0, true), [0, 0, 2, 0]);
        assert_eq!(address(75 * 60 - 150, true), [0, 1, 0, 0]);
        assert_eq!(address(u64::MAX, true)[1], u8::MAX);
        assert_eq!(address(0x0102_0304, false), [1, 2, 3, 4]);
    }
}
