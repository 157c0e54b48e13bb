//! What is known about the terminal: whether there is one, its width, and whether it takes colour.

use std::io::{self, IsTerminal, Write};

/// Whether text for people (on stderr) may be coloured. Follows <https://no-color.org>.
pub(crate) fn colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stderr().is_terminal() && !is_dumb && !set("NO_COLOR")
}

/// The width of the terminal behind stdout in columns; `None` if it is none.
pub(crate) fn width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    reedline_size().filter(|columns| *columns > 0)
}

fn reedline_size() -> Option<usize> {
    crossterm::terminal::size().ok().map(|(columns, _)| usize::from(columns))
}

/// Writes a line for people to stderr. A closed stderr is not worth a word.
pub(crate) fn note(line: &str) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// `1.4 GB`, `210 MB`, `12 kB`, `312 B`: three digits at most, powers of a thousand.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    scaled(bytes, &units)
}

/// `950`, `12 k`, `1.2 M`, `3.4 bn`: counts on a line that changes.
pub(crate) fn count(rows: u64) -> String {
    let units = ["", "k", "M", "bn", "tn"];
    scaled(rows, &units).trim_end().to_owned()
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn scaled(value: u64, units: &[&str]) -> String {
    let mut scaled = value as f64;
    let mut index = 0;
    while scaled >= 999.5 && index + 1 < units.len() {
        scaled /= 1000.0;
        index += 1;
    }
    let unit = units.get(index).copied().unwrap_or_default();
    if index == 0 || scaled >= 9.95 { format!("{scaled:.0} {unit}") } else { format!("{scaled:.1} {unit}") }
}

/// `1,234,567`.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `4 rows`, `1 row`.
pub(crate) fn plural(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_for_people() {
        assert_eq!(size(312), "312 B");
        assert_eq!(size(1_400_000_000), "1.4 GB");
        assert_eq!(size(210_000_000), "210 MB");
        assert_eq!(size(999_600), "1.0 MB");
        assert_eq!(count(950), "950");
        assert_eq!(count(1_200_000_000), "1.2 bn");
        assert_eq!(grouped(1), "1");
        assert_eq!(grouped(123), "123");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(plural(1, "row"), "1 row");
        assert_eq!(plural(0, "row"), "0 rows");
    }
}
