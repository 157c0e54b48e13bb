//! When Enter runs what was typed: a dot command at once, SQL when its last statement has its `;`.

use reedline::{ValidationResult, Validator};

/// Decides it for the line editor.
pub(super) struct StatementValidator;

impl Validator for StatementValidator {
    fn validate(&self, line: &str) -> ValidationResult {
        if runs(line) { ValidationResult::Complete } else { ValidationResult::Incomplete }
    }
}

/// Whether `line` is one of the words by which people leave.
pub(super) fn leaves(line: &str) -> bool {
    matches!(line.trim_end_matches(';').trim().to_lowercase().as_str(), "exit" | "quit")
}

fn runs(text: &str) -> bool {
    let line = text.trim();
    line.starts_with('.') || leaves(line) || windrow::is_complete(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enter_runs_what_is_complete() {
        for text in ["", "  ", ".help", " .mode csv", "exit", "QUIT;", "SELECT 1;", "SELECT 1; -- done", "SELECT ';';\n"] {
            assert!(runs(text), "{text:?}");
        }
    }

    #[test]
    fn enter_goes_on_with_what_is_not() {
        for text in ["SELECT 1", "SELECT ';", "SELECT (1;", "SELECT 1; SELECT", "/* ;", "exit now"] {
            // An open parenthesis before `;` is the planner's to complain about.
            assert_eq!(runs(text), text == "SELECT (1;", "{text:?}");
        }
    }
}
