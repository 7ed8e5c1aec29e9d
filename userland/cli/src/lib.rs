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

/// An I/O error in the C library's words, without the number that std appends.
pub fn io_error(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progname_is_the_last_component() {
        assert_eq!(progname(Some(&"/usr/sbin/bhyve".to_owned())), "bhyve");
        assert_eq!(progname(Some(&"bhyve".to_owned())), "bhyve");
        assert_eq!(progname(None), "?");
    }

    #[test]
    fn io_errors_have_no_number() {
        let error = std::fs::read("/nonexistent").unwrap_err();
        assert_eq!(io_error(&error), "No such file or directory");
    }
}
