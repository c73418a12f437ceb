//! The terminal of `ringverb top`: raw mode, its size and keys, and the output of frames.
//!
//! Owns the modes of the terminal while it exists: no echo, keys at once, a second screen without a cursor. They are as
//! before when it is dropped, and when a signal ends the process, which Ctrl-C causes also while the command waits for
//! the server. Keys are read from standard input, or from /dev/tty where that is no terminal. Does not know what is
//! shown.
//! Limits: `KEYS_BYTES` are read at a time; a size of 0 columns or rows, which a serial line may have, counts as 80 by
//! 24. Cost: a few system calls for a frame (size, writes, poll); one thread that waits for signals.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

/// A key has a code of a few bytes. Further keys wait in the kernel until the next read.
const KEYS_BYTES: usize = 64;
const ESCAPE: u8 = 0x1b;
/// The second screen, without a cursor; long lines are cut and do not continue in the next one.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

const NO_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// In characters; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScreenSize {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// q, Esc, or the end of the input.
    End,
    Other,
}

pub(super) struct Terminal {
    input: File,
    modes_before: Termios,
}

impl Terminal {
    /// # Errors
    /// When there is no terminal for keys, or it refuses raw mode.
    pub(super) fn enter() -> io::Result<Self> {
        let input = if io::stdin().is_terminal() {
            File::from(io::stdin().as_fd().try_clone_to_owned()?)
        } else {
            File::open("/dev/tty").map_err(|error| {
                let text = format!(
                    "there is none for keys, because standard input is no terminal and /dev/tty cannot be opened \
                     ({error}): use --once for text"
                );
                io::Error::other(text)
            })?
        };
        let modes_before = tcgetattr(&input)?;
        let mut raw = modes_before.clone();
        raw.make_raw();
        // Ctrl-C is a signal, which is taken at any time. Ctrl-Z would stop the command on its second screen, which
        // hides the shell.
        raw.local_modes.insert(LocalModes::ISIG);
        raw.special_codes[SpecialCodeIndex::VSUSP] = 0;
        restore_at_signals(input.try_clone()?, modes_before.clone())?;
        tcsetattr(&input, OptionalActions::Flush, &raw)?;
        // From here on a failure restores the modes.
        let terminal = Self { input, modes_before };
        write_output(ENTER)?;
        Ok(terminal)
    }

    /// # Errors
    /// When standard output is no terminal any longer.
    pub(super) fn size(&self) -> io::Result<ScreenSize> {
        let size = tcgetwinsize(io::stdout())?;
        let or = |number: u16, otherwise| if number == 0 { otherwise } else { usize::from(number) };
        Ok(ScreenSize { columns: or(size.ws_col, 80), rows: or(size.ws_row, 24) })
    }

    /// # Errors
    /// When the terminal has been closed.
    pub(super) fn show(&self, frame: &str) -> io::Result<()> {
        write_output(frame)
    }

    /// `None`: no key within `patience`, or a signal came.
    pub(super) fn key(&mut self, patience: Duration) -> io::Result<Option<Key>> {
        let mut watched = [PollFd::new(&self.input, PollFlags::IN)];
        let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
        match poll(&mut watched, Some(&patience)) {
            Ok(0) | Err(Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut keys = [0; KEYS_BYTES];
        let count = self.input.read(&mut keys)?;
        Ok(Some(key_of(keys.get(..count).unwrap_or_default())))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore(&self.input, &self.modes_before, None);
    }
}

/// `patience`: how long to wait for room for the text; `None`: until the terminal has it. Errors are ignored: a
/// terminal that was closed needs nothing.
fn restore(terminal: &File, modes: &Termios, patience: Option<&Timespec>) {
    tcsetattr(terminal, OptionalActions::Flush, modes).ok();
    // Without the lock of standard output, which a write that waits for the terminal's reader may hold.
    if poll(&mut [PollFd::new(&io::stdout(), PollFlags::OUT)], patience) == Ok(1) {
        rustix::io::write(io::stdout(), LEAVE.as_bytes()).ok();
    }
}

/// The default action would leave the shell in raw mode, on the second screen.
fn restore_at_signals(terminal: File, modes: Termios) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            restore(&terminal, &modes, Some(&NO_WAIT));
            std::process::exit(if signal == SIGINT { 0 } else { 128 + signal });
        }
    })?;
    Ok(())
}

fn write_output(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// An Esc with nothing behind it is that key; with more behind it, it begins the code of another key (ECMA-48, 5.4).
fn key_of(bytes: &[u8]) -> Key {
    if matches!(bytes, [] | [.., ESCAPE]) {
        return Key::End;
    }
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        match (byte, rest.as_slice().first()) {
            (&ESCAPE, Some(b'[')) => {
                rest.next();
                rest.find(|byte| matches!(byte, 0x40..=0x7e));
            }
            (&ESCAPE, Some(b'O')) => drop(rest.nth(1)),
            (&ESCAPE, _) => drop(rest.next()),
            (b'q' | b'Q', _) => return Key::End,
            _ => {}
        }
    }
    Key::Other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_and_escape_end_and_the_codes_of_other_keys_do_not() {
        for end in [
            &b"q"[..],
            b"xq",
            b"\x1b",
            b"",
            b"\x1b\x1b",
            b"x\x1b",
            b"\x1b[Aq",
            b"\x1bOqq",
            b"\x1b[1;5Cq",
            b"\x1bxq",
        ] {
            assert_eq!(key_of(end), Key::End, "{end:?}");
        }
        for other in
            [&b"x"[..], b" ", b"\x1b[A", b"\x1bOq", b"\r", b"\x1b[1;5C", b"\x1b[", b"\x1bq"]
        {
            assert_eq!(key_of(other), Key::Other, "{other:?}");
        }
    }
}
