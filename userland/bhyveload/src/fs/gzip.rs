//! Files that gzip(1) compressed: the kernel and modules may lie on the disk so.

use std::io::Read;

use flate2::read::MultiGzDecoder;

use super::FsError;

const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// Whether the bytes are gzip's (RFC 1952 §2.3.1, deflate).
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// What was compressed, at most `limit` bytes of it; `path` is for errors.
pub fn decompress(bytes: &[u8], path: &str, limit: u64) -> Result<Vec<u8>, FsError> {
    let mut out = Vec::new();
    let mut decoder = MultiGzDecoder::new(bytes).take(limit.saturating_add(1));
    decoder
        .read_to_end(&mut out)
        .map_err(|error| FsError::damaged(path, format!("gzip: {error}")))?;
    if out.len() as u64 > limit {
        return Err(FsError::damaged(
            path,
            format!("it decompresses to more than the {limit} bytes that fit"),
        ));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_gzipped_file_is_its_contents_up_to_the_limit() {
        let plain = vec![7; 100_000];
        let packed = gzip(&plain);
        assert!(is_gzip(&packed) && !is_gzip(&plain));
        assert_eq!(decompress(&packed, "k.gz", 100_000).unwrap(), plain);
        let error = decompress(&packed, "k.gz", 99_999).unwrap_err();
        assert!(error.to_string().contains("more than the 99999 bytes"));
    }

    #[test]
    fn a_cut_or_changed_file_is_damaged() {
        let mut packed = gzip(b"some text that is long enough to be worth it");
        let cut = decompress(&packed[..packed.len() - 9], "k.gz", 1 << 20).unwrap_err();
        assert!(cut.to_string().starts_with("k.gz is damaged: gzip"));
        let at = packed.len() - 6;
        packed[at] ^= 1;
        assert!(decompress(&packed, "k.gz", 1 << 20).is_err());
        assert!(decompress(b"", "k.gz", 1 << 20).is_err());
    }
}
