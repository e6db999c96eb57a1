//! The narrator's voice: titles, sentences, commands and their output.

use std::io::Write;

use anstyle::{AnsiColor, Style};

use crate::failure::Failure;
use crate::output::{self, BOLD, DIM, paint};

const TITLE: Style = AnsiColor::Cyan.on_default().bold();
/// Each nation has its colour throughout.
const COLOURS: [(&str, Style); 3] = [
    ("alba", AnsiColor::Blue.on_default().bold()),
    ("borea", AnsiColor::Green.on_default().bold()),
    ("cora", AnsiColor::Magenta.on_default().bold()),
];
/// What stands before each line of output.
const MARGIN: &str = "  │ ";
/// Longest word of a command that is printed whole; fingerprints are shortened.
const WORD: usize = 48;

pub(super) fn title(number: usize, text: &str) -> Result<(), Failure> {
    output::line(format!("\n{} {}", paint(TITLE, format!("{number}.")), paint(TITLE, text)))
}

pub(super) fn sentence(text: &str) -> Result<(), Failure> {
    output::line(format!("   {text}"))
}

pub(super) fn nation(name: &str) -> String {
    let style = COLOURS.iter().find(|(known, _)| *known == name).map_or(BOLD, |(_, style)| *style);
    paint(style, name)
}

/// `alba $ steelyard …`, as its operator types it.
pub(super) fn command(name: &str, words: &[String]) -> Result<(), Failure> {
    let shown: Vec<String> = words.iter().map(|word| quote(word)).collect();
    output::line(format!(
        "\n  {} {} {}",
        nation(name),
        paint(DIM, "$"),
        paint(BOLD, format!("steelyard {}", shown.join(" ")))
    ))
}

fn quote(word: &str) -> String {
    let short: String = match word.strip_prefix("b3:") {
        Some(hex) if word.len() > WORD => format!("b3:{}…", hex.get(..12).unwrap_or(hex)),
        _ => word.to_owned(),
    };
    let plain = |c: char| c.is_alphanumeric() || "-_./:@…=,".contains(c);
    if short.chars().all(plain) && !short.is_empty() { short } else { format!("'{short}'") }
}

/// Which lines of a command's output are worth showing.
#[derive(Clone, Copy)]
pub(super) enum Show {
    All,
    First(usize),
}

/// Prints output as it comes, each line behind a margin.
pub(super) struct Margin {
    show: Show,
    line: usize,
    fresh: bool,
}

impl Margin {
    pub(super) fn new(show: Show) -> Self {
        Self { show, line: 0, fresh: true }
    }

    pub(super) fn write(&mut self, text: &str) -> Result<(), Failure> {
        let mut out = anstream::stdout().lock();
        for piece in text.split_inclusive('\n') {
            let shown = match self.show {
                Show::All => true,
                Show::First(lines) => self.line < lines,
            };
            if shown {
                if self.fresh {
                    write!(out, "{}", paint(DIM, MARGIN))?;
                }
                write!(out, "{piece}")?;
            }
            self.fresh = piece.ends_with('\n');
            self.line += usize::from(self.fresh);
        }
        Ok(out.flush()?)
    }

    pub(super) fn end(&mut self) -> Result<(), Failure> {
        if self.fresh { Ok(()) } else { self.write("\n") }
    }
}
