//! What a benchmark prints: Markdown tables whose columns line up, and its bars.

use std::fmt;

/// A Markdown table.
#[derive(Debug, Clone)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// Adds a row; what is missing at its end stays empty.
    pub fn row(&mut self, cells: &[&dyn fmt::Display]) {
        let mut row: Vec<String> = cells.iter().map(ToString::to_string).collect();
        row.resize(self.head.len(), String::new());
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&self.head]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |f: &mut fmt::Formatter<'_>, row: &[String]| {
            for (cell, width) in row.iter().zip(&widths) {
                write!(f, "| {cell:<width$} ")?;
            }
            writeln!(f, "|")
        };
        line(f, &self.head)?;
        for width in &widths {
            write!(f, "|{}", "-".repeat(width + 2))?;
        }
        writeln!(f, "|")?;
        self.rows.iter().try_for_each(|row| line(f, row))
    }
}

/// On which side of its limit a value must lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// At most the limit.
    AtMost,
    /// At least the limit.
    AtLeast,
    /// Under the limit, which is therefore no value that passes.
    Under,
}

/// A promise with its measured value.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    name: String,
    value: f64,
    side: Side,
    limit: f64,
}

impl Bar {
    /// `name`, as measured, beside its limit.
    pub fn new(name: impl Into<String>, value: f64, side: Side, limit: f64) -> Self {
        Self { name: name.into(), value, side, limit }
    }

    /// Whether the promise is kept. What could not be measured (not a number) is not kept.
    pub fn is_kept(&self) -> bool {
        match self.side {
            Side::AtMost => self.value <= self.limit,
            Side::AtLeast => self.value >= self.limit,
            Side::Under => self.value < self.limit,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, limit, .. } = self;
        // Enough digits that a value short of its limit does not look equal to it.
        let digits = if value.fract() == 0.0 { 0 } else { 3 };
        write!(f, "bar {name} {value:.digits$} {limit} {}", if self.is_kept() { "ok" } else { "short" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_every_row_has_all() {
        let mut table = Table::new(&["how", "MB/s"]);
        table.row(&[&"plain TCP", &7]);
        table.row(&[&"x"]);
        assert_eq!(
            table.to_string(),
            "| how       | MB/s |\n|-----------|------|\n| plain TCP | 7    |\n| x         |      |\n"
        );
    }

    #[test]
    fn bars_know_their_side_and_what_was_not_measured_is_short() {
        assert_eq!(Bar::new("a", 1.1, Side::AtMost, 1.1).to_string(), "bar a 1.100 1.1 ok");
        assert_eq!(Bar::new("a", 3.5994, Side::AtLeast, 3.6).to_string(), "bar a 3.599 3.6 short");
        assert_eq!(Bar::new("a", 1.0, Side::Under, 1.0).to_string(), "bar a 1 1 short");
        assert!(!Bar::new("a", f64::NAN, Side::AtMost, 1.0).is_kept());
        assert!(!Bar::new("a", f64::NAN, Side::AtLeast, 1.0).is_kept());
    }
}
