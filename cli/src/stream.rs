//! Statements out of text that arrives in pieces: a pipe's statement runs as soon as its `;` is there, not at the end of the input.

use windrow::{StatementText, is_complete, split_statements};

/// Collects text and gives back each statement once.
#[derive(Debug)]
pub(crate) struct StatementStream {
    pending: String,
    /// The line of the input, from 1, on which `pending` begins.
    line: u32,
}

impl StatementStream {
    /// Nothing has arrived yet.
    pub(crate) fn new() -> Self {
        Self { pending: String::new(), line: 1 }
    }

    /// Takes one more line, with its line end, and returns the statements that it completes.
    pub(crate) fn push_line(&mut self, line: &str) -> Vec<StatementText> {
        let start = self.pending.len();
        self.pending.push_str(line);
        // Only a `;` completes anything, unless it is within a text or a comment: then the one before it may.
        let last = line.rmatch_indices(';').map(|(at, _)| start + at + 1).find(|&end| is_complete(&self.pending[..end]));
        last.map_or_else(Vec::new, |end| self.take(end))
    }

    /// The end of the input: what is left runs without its `;`.
    pub(crate) fn finish(&mut self) -> Vec<StatementText> {
        self.take(self.pending.len())
    }

    fn take(&mut self, end: usize) -> Vec<StatementText> {
        let rest = self.pending.split_off(end);
        let text = std::mem::replace(&mut self.pending, rest);
        let before = self.line - 1;
        self.line += u32::try_from(text.matches('\n').count()).unwrap_or(0);
        split_statements(&text)
            .into_iter()
            .map(|statement| StatementText { line: statement.line + before, ..statement })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After each line, the statements it gave as `line:text`; the last entry is the end of the input.
    fn check(input: &str, expected: &[&[&str]]) {
        let mut stream = StatementStream::new();
        let mut seen: Vec<Vec<StatementText>> = input.split_inclusive('\n').map(|line| stream.push_line(line)).collect();
        seen.push(stream.finish());
        let seen: Vec<Vec<String>> =
            seen.into_iter().map(|all| all.into_iter().map(|one| format!("{}:{}", one.line, one.text)).collect()).collect();
        assert_eq!(seen, expected, "{input:?}");
    }

    #[test]
    fn a_statement_is_there_with_its_semicolon() {
        check("SELECT 1;\nSELECT\n 2;\n", &[&["1:SELECT 1"], &[], &["2:SELECT\n 2"], &[]]);
    }

    #[test]
    fn several_statements_of_a_line_keep_their_line() {
        check("\n\nSELECT 1; SELECT 2;\n", &[&[], &[], &["3:SELECT 1", "3:SELECT 2"], &[]]);
    }

    #[test]
    fn the_last_one_needs_no_semicolon() {
        check("SELECT 1", &[&[], &["1:SELECT 1"]]);
        check("SELECT 1; SELECT\n2", &[&["1:SELECT 1"], &[], &["1:SELECT\n2"]]);
    }

    #[test]
    fn a_semicolon_in_a_text_or_comment_ends_nothing() {
        check("SELECT ';\n';\n-- ;\n/* ;\n*/ SELECT 2;\n", &[&[], &["1:SELECT ';\n'"], &[], &[], &["5:SELECT 2"], &[]]);
    }

    #[test]
    fn blank_input_has_no_statement() {
        check("\n  \n;\n", &[&[], &[], &[], &[]]);
        check("SELECT 1; -- ;\n", &[&["1:SELECT 1"], &[]]);
    }
}
