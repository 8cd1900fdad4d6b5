use std::{fmt, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::statistics::Figure;

/// A table that the README can quote.
pub(crate) struct Table {
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(title: &str, columns: [&'static str; N]) -> Self {
        Self { title: title.into(), columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "title": self.title, "columns": self.columns, "rows": self.rows })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain(self.columns.get(column).map(|name| name.chars().count())).max().unwrap_or(0)
        };
        let line = |f: &mut fmt::Formatter<'_>, cells: &mut dyn Iterator<Item = &str>| {
            for (column, cell) in cells.enumerate() {
                write!(f, "| {cell:<width$} ", width = width(column))?;
            }
            writeln!(f, "|")
        };
        writeln!(f, "### {}\n", self.title)?;
        line(f, &mut self.columns.iter().copied())?;
        (0..self.columns.len()).try_for_each(|column| write!(f, "|{}", "-".repeat(width(column) + 2)))?;
        writeln!(f, "|")?;
        self.rows.iter().try_for_each(|row| line(f, &mut row.iter().map(String::as_str)))
    }
}

/// What a reader must know to judge the numbers, by name.
pub(crate) fn facts(facts: Vec<(String, String)>) -> Map<String, Value> {
    facts.into_iter().map(|(name, value)| (name, value.into())).collect()
}

/// Writes what was found to a file, for programs to read.
pub(crate) fn write(path: &Path, found: &Value) -> Result<()> {
    fs::write(path, format!("{found:#}\n")).with_context(|| format!("cannot write {}", path.display()))
}

/// The median, and least and most of the rounds where there were several.
pub(crate) fn spread(figure: Figure, digits: usize) -> String {
    let Figure { median, least, most } = figure;
    if least == most {
        return format!("{median:.digits$}");
    }
    format!("{median:.digits$} ({least:.digits$}..{most:.digits$})")
}

/// The same of microseconds, in a unit that suits the median.
pub(crate) fn time(figure: Figure) -> String {
    let (unit, scale, digits) = match figure.median.abs() {
        ..100.0 => ("µs", 1.0, 1),
        ..1000.0 => ("µs", 1.0, 0),
        ..100_000.0 => ("ms", 1e-3, 2),
        _ => ("ms", 1e-3, 0),
    };
    format!("{} {unit}", spread(figure.scaled(scale), digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_show_their_spread() {
        let figure = |median, least, most| Figure { median, least, most };
        assert_eq!(spread(figure(0.25, 0.2, 0.31), 2), "0.25 (0.20..0.31)");
        assert_eq!(spread(figure(7.0, 7.0, 7.0), 0), "7");
        assert_eq!(time(figure(12.34, 10.0, 20.0)), "12.3 (10.0..20.0) µs");
        assert_eq!(time(figure(1234.0, 1000.0, 2000.0)), "1.23 (1.00..2.00) ms");
        assert_eq!(time(figure(-3.0, -3.0, -3.0)), "-3.0 µs");
    }

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new("Title", ["a", "b"]);
        table.row(["long".into(), "µ".into()]);
        assert_eq!(table.to_string(), "### Title\n\n| a    | b |\n|------|---|\n| long | µ |\n");
    }
}
