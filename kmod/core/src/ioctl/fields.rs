//! Reading and writing the fields of a C structure that is there as bytes, at the places
//! and with the types that `vmm_sys` says. A wrong type does not compile.

/// The field of a structure at the start of `data`: `get!(data, sys::vm_register, regval: u64)`.
macro_rules! get {
    ($data:expr, $ty:ty, $($field:ident).+ : $int:ty) => {{
        const _: fn(&$ty) -> &$int = |s| &s.$($field).+;
        <$int>::from_ne_bytes($crate::ioctl::fields::array(
            $data,
            core::mem::offset_of!($ty, $($field).+),
        ))
    }};
}

/// A field that is a pointer, as the caller's address.
macro_rules! get_ptr {
    ($data:expr, $ty:ty, $field:ident) => {
        $crate::ioctl::UserPtr(u64::from_ne_bytes($crate::ioctl::fields::array(
            $data,
            core::mem::offset_of!($ty, $field),
        )))
    };
}

/// A field that is an array of char.
macro_rules! get_chars {
    ($data:expr, $ty:ty, $field:ident : $len:expr) => {{
        const _: fn(&$ty) -> &[core::ffi::c_char; $len] = |s| &s.$field;
        $crate::ioctl::fields::array::<{ $len }>($data, core::mem::offset_of!($ty, $field))
    }};
}

/// Stores into a field: `put!(data, sys::vm_register, regval: u64 = 1)`.
macro_rules! put {
    ($data:expr, $ty:ty, $($field:ident).+ : $int:ty = $value:expr) => {{
        const _: fn(&$ty) -> &$int = |s| &s.$($field).+;
        let value: $int = $value;
        $crate::ioctl::fields::store(
            $data,
            core::mem::offset_of!($ty, $($field).+),
            &value.to_ne_bytes(),
        )
    }};
}

pub(super) use {get, get_chars, get_ptr, put};

/// `N` bytes of `data` at `at`. The callers have checked that the structure is there whole.
pub(super) fn array<const N: usize>(data: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&data[at..at + N]);
    bytes
}

/// Stores `bytes` at `at`.
#[inline(always)]
pub(super) fn store(data: &mut [u8], at: usize, bytes: &[u8]) {
    data[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Stores `text` and a terminator into an array of `len` char at `at`, cutting it if need
/// be (strlcpy).
pub(super) fn store_str(data: &mut [u8], at: usize, len: usize, text: &str) {
    let kept = text.len().min(len - 1);
    let field = &mut data[at..at + len];
    field[..kept].copy_from_slice(&text.as_bytes()[..kept]);
    field[kept] = 0;
}
