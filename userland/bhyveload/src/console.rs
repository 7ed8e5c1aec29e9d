//! Where messages go: progress to the console (-c), warnings to stderr. On a terminal a
//! file's line is rewritten while it is read; elsewhere each file is one line.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};

/// Shown no more often than for this many bytes.
const STEP: u64 = 1 << 20;

pub struct Console {
    out: Box<dyn Write>,
    errors: Box<dyn Write>,
    is_terminal: bool,
    progname: String,
}

impl Console {
    /// Standard output and standard error.
    pub fn stdio(progname: &str) -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        Self::new(Box::new(stdout), is_terminal, progname)
    }

    /// Another output than standard output.
    pub fn new(out: Box<dyn Write>, is_terminal: bool, progname: &str) -> Self {
        Self {
            out,
            errors: Box::new(io::stderr()),
            is_terminal,
            progname: progname.to_owned(),
        }
    }

    /// Other outputs than the standard ones.
    pub fn recording(out: Box<dyn Write>, errors: Box<dyn Write>, is_terminal: bool) -> Self {
        Self {
            out,
            errors,
            is_terminal,
            progname: "bhyveload".to_owned(),
        }
    }

    /// A line. That nobody can see it is no reason not to load.
    pub fn line(&mut self, text: &str) {
        // A console in raw mode needs the carriage return as well.
        let end = if self.is_terminal { "\r\n" } else { "\n" };
        let _ = write!(self.out, "{text}{end}");
        let _ = self.out.flush();
    }

    /// A warning.
    pub fn warn(&mut self, text: &str) {
        let _ = writeln!(self.errors, "{}: warning: {text}", self.progname);
    }

    /// A file of `size` bytes is about to be read.
    pub fn reading(&mut self, name: &str, size: u64) -> Reading<'_> {
        let mut reading = Reading {
            console: self,
            name: name.to_owned(),
            size,
            shown: 0,
        };
        reading.show(0);
        reading
    }
}

/// A file that is being read.
pub struct Reading<'a> {
    console: &'a mut Console,
    name: String,
    size: u64,
    shown: u64,
}

impl Reading<'_> {
    /// So many bytes are there.
    pub fn at(&mut self, bytes: u64) {
        if bytes >= self.shown.saturating_add(STEP) {
            self.show(bytes);
        }
    }

    fn show(&mut self, bytes: u64) {
        self.shown = bytes;
        if self.console.is_terminal {
            let percent = (bytes * 100).checked_div(self.size).unwrap_or(100);
            let _ = write!(self.console.out, "\r{} {percent:3}%", self.name);
            let _ = self.console.out.flush();
        }
    }

    /// All is there; `note` says what it is or where it lies.
    pub fn done(self, note: &str) {
        let text = format!("{}, {} bytes{note}", self.name, self.size);
        if self.console.is_terminal {
            let _ = write!(self.console.out, "\r");
        }
        self.console.line(&text);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// What was written.
    #[derive(Clone, Default)]
    pub struct Record(Rc<RefCell<Vec<u8>>>);

    impl Record {
        pub fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).unwrap()
        }
    }

    impl Write for Record {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A console, what it printed, what it warned about.
    pub fn recording(is_terminal: bool) -> (Console, Record, Record) {
        let (out, errors) = (Record::default(), Record::default());
        let console =
            Console::recording(Box::new(out.clone()), Box::new(errors.clone()), is_terminal);
        (console, out, errors)
    }

    fn read(is_terminal: bool) -> String {
        let (mut console, out, errors) = recording(is_terminal);
        let mut reading = console.reading("/boot/kernel/kernel", 4 << 20);
        for bytes in [4096, 1 << 20, 3 << 20, 4 << 20] {
            reading.at(bytes);
        }
        reading.done("");
        console.warn("x is not honoured");
        assert_eq!(errors.text(), "bhyveload: warning: x is not honoured\n");
        out.text()
    }

    #[test]
    fn a_line_is_rewritten_on_a_terminal_only() {
        assert_eq!(read(false), "/boot/kernel/kernel, 4194304 bytes\n");
        let kernel = "/boot/kernel/kernel";
        assert_eq!(
            read(true),
            format!(
                "\r{kernel}   0%\r{kernel}  25%\r{kernel}  75%\r{kernel} 100%\
                 \r{kernel}, 4194304 bytes\r\n"
            )
        );
    }
}
