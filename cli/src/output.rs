//! What goes to standard output and standard error: tables, colours only on terminals, JSON, errors with what to do.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::failure::{Exit, Failure};

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
pub(crate) const NAME: Style = AnsiColor::Cyan.on_default();

/// `text` in `style`.
pub(crate) fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Prints to standard output. A closed pipe ends the command quietly.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Prints one line to standard output.
pub(crate) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    print(&format!("{}\n", text.as_ref()))
}

/// Prints a JSON document, indented for people when they look at it.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = if io::stdout().is_terminal() {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    print(&(text.map_err(anyhow::Error::from)? + "\n"))
}

/// Prints one line of a stream of JSON documents.
pub(crate) fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    print(&(serde_json::to_string(value).map_err(anyhow::Error::from)? + "\n"))
}

/// Says something beside the output: to standard error, for people. Whoever closed it does not want to hear it.
pub(crate) fn note(text: impl AsRef<str>) {
    let _ = writeln!(anstream::stderr().lock(), "{}", text.as_ref());
}

/// Something that is not an error but that should be seen.
pub(crate) fn warn(text: impl AsRef<str>) {
    note(format!("{} {}", paint(WARN.bold(), "warning:"), text.as_ref()));
}

/// Reports a failure and yields its exit code.
pub(crate) fn fail(failure: &Failure, as_json: bool) -> ExitCode {
    if failure.closed {
        return ExitCode::SUCCESS;
    }
    if failure.exit == Exit::Interrupted && !as_json {
        note(paint(DIM, "interrupted"));
        return ExitCode::from(failure.exit as u8);
    }
    if as_json && !failure.reported {
        let _ = json_line(&failure.problem);
    }
    let mut text = String::new();
    // With the whole decision below, its refusals need not stand in the first line too.
    let detail = if failure.decision().is_some() { "refused by policy" } else { &failure.problem.detail };
    let _ = write!(text, "{} {detail}", paint(BAD.bold(), "error:"));
    if let Some(decision) = failure.decision() {
        for check in &decision.checks {
            let _ = write!(text, "\n  {} {:<18} {}", mark(check.passed), check.rule, check.detail);
        }
    }
    if let Some(hint) = &failure.problem.hint {
        let _ = write!(text, "\n{} {hint}", paint(NAME.bold(), "help:"));
    }
    note(text);
    ExitCode::from(failure.exit as u8)
}

/// A wrong command line, or help that was asked for. Help on a closed pipe is no failure.
pub(crate) fn usage(error: &clap::Error, as_json: bool) -> ExitCode {
    if as_json && error.use_stderr() {
        let text = error.render().to_string();
        let said = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        let said: Vec<&str> = said.lines().map(str::trim).collect();
        let _ = json_line(&Failure::usage(said.join(" ")).problem);
    }
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8))
}

/// A tick or a cross.
pub(crate) fn mark(good: bool) -> String {
    if good { paint(GOOD, "✓") } else { paint(BAD, "✗") }
}

/// One cell of a table.
pub(crate) struct Cell {
    text: String,
    style: Style,
    right: bool,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), style: Style::new(), right: false }
    }
}

impl Cell {
    pub(crate) fn style(mut self, style: Style) -> Self {
        self.style = style;
        self
    }

    /// Aligned to the right, for numbers.
    pub(crate) fn right(mut self) -> Self {
        self.right = true;
        self
    }
}

/// Shorthand for a styled cell.
pub(crate) fn cell(style: Style, text: impl Into<String>) -> Cell {
    Cell::from(text).style(style)
}

/// A table with aligned columns and a dim head; nothing at all without rows.
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// Blanks between two columns.
const GAP: usize = 2;

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn render(&self) -> String {
        let width = |text: &str| text.chars().count();
        let mut widths: Vec<usize> = self.head.iter().map(|name| width(name)).collect();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                match widths.get_mut(column) {
                    Some(w) => *w = (*w).max(width(&cell.text)),
                    None => widths.push(width(&cell.text)),
                }
            }
        }
        let mut out = String::new();
        let right: Vec<bool> = (0..widths.len())
            .map(|c| self.rows.iter().any(|row| row.get(c).is_some_and(|cell| cell.right)))
            .collect();
        let mut put = |cells: Vec<(&str, Style, bool)>| {
            let last = cells.len().saturating_sub(1);
            for (column, (text, style, to_right)) in cells.into_iter().enumerate() {
                let pad = " ".repeat(widths[column].saturating_sub(width(text)));
                let gap = " ".repeat(if column == last { 0 } else { GAP });
                let _ = match (to_right, column == last) {
                    (true, _) => write!(out, "{pad}{}{gap}", paint(style, text)),
                    (false, false) => write!(out, "{}{pad}{gap}", paint(style, text)),
                    (false, true) => write!(out, "{}", paint(style, text)),
                };
            }
            out.push('\n');
        };
        if self.head.iter().any(|name| !name.is_empty()) {
            put(self.head.iter().enumerate().map(|(c, name)| (*name, DIM, right[c])).collect());
        }
        for row in &self.rows {
            put(row.iter().map(|cell| (cell.text.as_str(), cell.style, cell.right)).collect());
        }
        out
    }
}

/// Facts under each other: `name  value`.
pub(crate) fn facts(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in pairs {
        let pad = " ".repeat(width - name.chars().count());
        let mut lines = value.lines();
        let _ = writeln!(out, "{}{pad}  {}", paint(DIM, name), lines.next().unwrap_or(""));
        for more in lines {
            let _ = writeln!(out, "{}  {more}", " ".repeat(width));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_whatever_their_colour() {
        let mut table = Table::new(&["model", "size"]);
        table.row([cell(NAME, "alba/m"), Cell::from("1 B").right()]);
        table.row(["borea/longer".into(), Cell::from("10 KiB").right()]);
        let plain = anstream::adapter::strip_str(&table.render()).to_string();
        assert_eq!(plain, "model           size\nalba/m           1 B\nborea/longer  10 KiB\n");
    }
}
