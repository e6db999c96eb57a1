//! Passphrases and PINs: typed at the terminal without an echo, or read from a file that a setting names. Never an argument,
//! never in the environment itself.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use registry::key::read_passphrase;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Longest passphrase, in bytes: a paragraph.
const MAX_PASSPHRASE: usize = 1024;

/// Asks for a secret: `what` is its name for people. `twice` where a mistake would lose something.
pub(crate) fn ask(context: &Context, what: &str, twice: bool) -> Result<Zeroizing<String>, Failure> {
    let help = "put it into a file that only you may read, and name that with --passphrase-file";
    ask_or_read(context.passphrase_file.as_deref(), what, twice, help)
}

/// The same for the passphrase that takes the place of another one; `file` is where it is read from, if anywhere.
pub(crate) fn ask_new(file: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
    let help = "put it into a file that only you may read, and name that with --new-passphrase-file";
    ask_or_read(file, "New passphrase", true, help)
}

fn ask_or_read(
    file: Option<&Path>,
    what: &str,
    twice: bool,
    help: &'static str,
) -> Result<Zeroizing<String>, Failure> {
    if let Some(path) = file {
        return Ok(read_passphrase(path)?);
    }
    let Ok(mut terminal) = File::options().read(true).write(true).open("/dev/tty") else {
        let message = format!("{what} is needed, and there is no terminal to ask at");
        return Err(Failure::usage(message).help(help));
    };
    let first = quietly(&mut terminal, &format!("{what}: "))?;
    if twice && quietly(&mut terminal, "The same once more: ")? != first {
        return Err(Failure::usage("the two are not the same; nothing was changed"));
    }
    Ok(first)
}

/// Turns the echo on again, whatever happens.
struct Quiet<'a>(&'a File, Termios);

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(self.0, OptionalActions::Flush, &self.1);
    }
}

fn quietly(terminal: &mut File, prompt: &str) -> Result<Zeroizing<String>, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Other, format!("the terminal: {error}"));
    let before = tcgetattr(&*terminal).map_err(|error| failed(error.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ICANON | LocalModes::ECHONL);
    terminal.write_all(prompt.as_bytes()).map_err(failed)?;
    let reader = terminal.try_clone().map_err(failed)?;
    let quiet = Quiet(terminal, before);
    tcsetattr(quiet.0, OptionalActions::Flush, &silent).map_err(|error| failed(error.into()))?;
    let mut line = Zeroizing::new(String::with_capacity(MAX_PASSPHRASE));
    // Byte by byte, so that no buffer keeps what was typed.
    let mut typed = Zeroizing::new(Vec::with_capacity(MAX_PASSPHRASE));
    let (mut reader, mut byte) = (reader, [0]);
    while typed.len() < MAX_PASSPHRASE && reader.read(&mut byte).map_err(failed)? == 1 && byte != *b"\n" {
        typed.extend_from_slice(&byte);
    }
    line.push_str(std::str::from_utf8(&typed).map_err(|_| Failure::usage("that is not UTF-8"))?);
    Ok(line)
}
