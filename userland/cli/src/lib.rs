//! What the command lines of bhyve, bhyveload and bhyvectl share, with the habits of
//! FreeBSD's libc and libutil: getopt(3), getopt_long(3), expand_number(3),
//! humanize_number(3), strtoul(3). Pure functions over strings; nothing here prints.

#![forbid(unsafe_code)]

pub mod getopt;
pub mod getopt_long;
pub mod number;
pub mod size;

/// The process's arguments as text. bhyve's options are comma-separated text, so that an
/// argument that isn't UTF-8 can't be taken apart reliably: it is named and refused.
pub fn args() -> Result<Vec<String>, String> {
    std::env::args_os()
        .enumerate()
        .map(|(n, arg)| {
            arg.into_string().map_err(|arg| {
                format!("argument {n} is not valid UTF-8: {}", arg.to_string_lossy())
            })
        })
        .collect()
}

/// The last component of the path in `argv[0]`, as getprogname(3) gives it.
pub fn progname(argv0: Option<&String>) -> &str {
    argv0
        .and_then(|path| path.rsplit('/').find(|part| !part.is_empty()))
        .unwrap_or("?")
}
