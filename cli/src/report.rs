//! Errors as people read them: the sentence, the place in the query with a caret, what was probably meant, what to do.

use std::io::Write;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use windrow::{Error, ErrorKind, Span, StatementText};

use crate::terminal;

/// The query that an error's position is in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    /// What the text came from: a file's name, or `query`.
    pub(crate) name: &'a str,
    /// The text that was sent, which positions count from, and the line it begins on.
    pub(crate) statement: &'a StatementText,
}

/// Writes `error` to stderr. A closed stderr is not worth a word.
pub(crate) fn print(error: &Error, source: Option<Source<'_>>) {
    drop(writeln!(std::io::stderr().lock(), "{}", render(error, source, terminal::colour())));
}

/// The text of `error`, without a line end.
pub(crate) fn render(error: &Error, source: Option<Source<'_>>, colour: bool) -> String {
    let place = source.and_then(|source| error.context.span.and_then(|span| place(source, span)));
    let title = Level::ERROR.primary_title(error.message.as_str());
    let meant = error.context.suggestion.as_ref().map(|name| format!("did you mean '{name}'?"));
    let mut group = Group::with_title(title);
    let mut help: Vec<String> = error.context.help.iter().cloned().collect();
    match (source, place) {
        (Some(source), Some(range)) => {
            let line = usize::try_from(source.statement.line).unwrap_or(1);
            let mark = AnnotationKind::Primary.span(range).label(meant);
            group = group.element(
                Snippet::source(source.statement.text.as_str()).path(source.name).line_start(line).fold(true).annotation(mark),
            );
        }
        _ => help.splice(0..0, meant).for_each(drop),
    }
    group = group.elements(notes(error).into_iter().map(|note| Level::NOTE.message(note)));
    group = group.elements(help.into_iter().map(|line| Level::HELP.message(line)));
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group])
}

/// The causes that the sentence does not already contain, and what to do with a bug of ours.
fn notes(error: &Error) -> Vec<String> {
    let mut said = error.message.clone();
    let mut notes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        let text = source.to_string();
        if !text.is_empty() && !said.contains(&text) {
            notes.push(format!("because: {text}"));
            said.push_str(&text);
        }
        cause = source.source();
    }
    if error.kind == ErrorKind::Internal {
        notes.push("this is a bug of Windrow, not of the query".to_owned());
    }
    notes
}

/// The bytes of the statement that `span` marks; `None` if it is not within the text.
fn place(source: Source<'_>, span: Span) -> Option<Range<usize>> {
    let text = source.statement.text.as_str();
    let start = offset(text, span.start_line, span.start_column)?;
    let end = offset(text, span.end_line, span.end_column).unwrap_or(text.len()).max(start);
    // An empty range, such as the end of the text, still gets one caret.
    let end = if end == start { text[start..].chars().next().map_or(start, |c| start + c.len_utf8()) } else { end };
    Some(start..end)
}

/// The byte at a line and column, both from 1, columns in characters. A column past its line is the line's end.
fn offset(text: &str, line: u32, column: u32) -> Option<usize> {
    let mut start = 0;
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let skip = usize::try_from(column).ok()?.checked_sub(1)?;
    for (number, content) in text.split('\n').enumerate() {
        if number == index {
            return Some(start + content.char_indices().nth(skip).map_or(content.len(), |(at, _)| at));
        }
        start += content.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(line: u32, start: u32, end: u32) -> Option<Span> {
        Some(Span { start_line: line, start_column: start, end_line: line, end_column: end })
    }

    fn check(name: &str, error: &Error, text: &str, line: u32) {
        let statement = StatementText { text: text.to_owned(), line, column: 1 };
        insta::assert_snapshot!(name, render(error, Some(Source { name: "query", statement: &statement }), false));
    }

    #[test]
    fn an_unknown_table_is_marked_in_its_line() {
        let error = Error::new(ErrorKind::NotFound, "no table named 'lineitm'")
            .with_span(span(2, 6, 13))
            .with_suggestion(Some("lineitem".to_owned()))
            .with_help("SHOW TABLES lists 8 tables; to read a file write FROM 'lineitem.parquet'");
        check("error_unknown_table", &error, "SELECT count(*)\nFROM lineitm l JOIN orders o ON l.l_orderkey = o.o_orderkey", 2);
    }

    #[test]
    fn columns_count_characters_and_not_bytes() {
        let error = Error::new(ErrorKind::InvalidQuery, "no column named 'größ'").with_span(span(1, 21, 25));
        check("error_wide_characters", &error, "SELECT 'ööö', '表格', größ FROM t", 1);
    }

    #[test]
    fn a_place_after_the_text_is_its_end() {
        let error = Error::new(ErrorKind::InvalidQuery, "expected an expression, found the end").with_span(span(1, 90, 90));
        check("error_end_of_text", &error, "SELECT 1 +", 1);
        let error = error.with_span(span(7, 1, 2));
        check("error_place_unknown", &error, "SELECT 1 +", 1);
    }

    #[test]
    fn without_a_place_the_suggestion_is_help() {
        let error = Error::new(ErrorKind::NotFound, "no file 'ordres.csv'")
            .with_suggestion(Some("orders.csv".to_owned()))
            .with_help("paths begin at the current folder")
            .with_source(std::io::Error::new(std::io::ErrorKind::NotFound, "entity not found"));
        check("error_without_place", &error, "SELECT * FROM 'ordres.csv'", 1);
    }

    #[test]
    fn a_bug_says_that_it_is_one() {
        check("error_internal", &Error::internal("stage 3: no partitions"), "SELECT 1", 1);
    }

    #[test]
    fn colour_is_only_there_when_asked_for() {
        let error = Error::internal("x");
        assert!(!render(&error, None, false).contains('\u{1b}'));
        assert!(render(&error, None, true).contains('\u{1b}'));
    }
}
