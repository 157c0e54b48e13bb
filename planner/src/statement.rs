//! What a text is before it is planned: how many statements it has, and whether they change something. Next: `parameters.rs`.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use windrow_core::error::Span;
use windrow_core::{Error, ErrorKind};

use crate::budget;

/// One statement of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptStatement {
    /// Its text, without the semicolon.
    pub text: String,
    /// The line of the script on which it begins, from 1.
    pub line: u32,
    /// The column of that line, from 1.
    pub column: u32,
}

impl ScriptStatement {
    /// `error` of this statement with its position in the script.
    #[must_use]
    pub fn place(&self, mut error: Error) -> Error {
        let shift = |line: u32, column: u32| {
            let column = if line == 1 { column + self.column.saturating_sub(1) } else { column };
            (line + self.line.saturating_sub(1), column)
        };
        if let Some(span) = &mut error.context.span {
            (span.start_line, span.start_column) = shift(span.start_line, span.start_column);
            (span.end_line, span.end_column) = shift(span.end_line, span.end_column);
        }
        error
    }
}

/// The statements of a script, each as a text of its own: divided at semicolons outside of strings and comments.
///
/// # Errors
/// `InvalidQuery` with the position if the text has no tokens, as after an open quote, or if it is too long.
pub fn split(text: &str) -> Result<Vec<ScriptStatement>, Error> {
    if text.len() > budget::TEXT_BYTES_MAX {
        let what = format!("the script has {} bytes, at most {} are allowed", text.len(), budget::TEXT_BYTES_MAX);
        return Err(Error::new(ErrorKind::InvalidQuery, what).with_help("send its statements one at a time"));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().map_err(|error| {
        let (line, column) = place(error.location);
        let at = Span { start_line: line, start_column: column, end_line: line, end_column: column + 1 };
        Error::new(ErrorKind::InvalidQuery, error.message).with_span(Some(at))
    })?;
    let bytes = Offsets::of(text);
    let mut statements = Vec::new();
    for statement in tokens.split(|token| token.token == Token::SemiColon) {
        let mut words = statement.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
        let Some(first) = words.next() else { continue };
        let end = words.next_back().unwrap_or(first).span.end;
        let (line, column) = place(first.span.start);
        let text = text.get(bytes.at(first.span.start)..bytes.at(end)).unwrap_or_default().to_owned();
        statements.push(ScriptStatement { text, line, column });
    }
    Ok(statements)
}

fn place(location: Location) -> (u32, u32) {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    (narrow(location.line), narrow(location.column))
}

/// From lines and columns, which count characters, to bytes.
struct Offsets<'a> {
    text: &'a str,
    lines: Vec<usize>,
}

impl<'a> Offsets<'a> {
    fn of(text: &'a str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, lines: std::iter::once(0).chain(after).collect() }
    }

    fn at(&self, location: Location) -> usize {
        let index = |number: u64| usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(start) = self.lines.get(index(location.line)) else { return self.text.len() };
        let line = self.text.get(*start..).unwrap_or_default();
        start + line.char_indices().nth(index(location.column)).map_or(line.len(), |(at, _)| at)
    }
}

/// Where the second statement among `tokens` begins.
pub(crate) fn second(tokens: &[TokenWithSpan]) -> Option<Span> {
    let is_word = |token: &&TokenWithSpan| !matches!(token.token, Token::Whitespace(_) | Token::SemiColon);
    let first = tokens.iter().position(|token| is_word(&token))?;
    let end = tokens.iter().skip(first).position(|token| token.token == Token::SemiColon)?;
    let begin = tokens.iter().skip(first + end).find(is_word)?;
    Some(crate::parameters::span(begin.span))
}

/// Words with which statements begin that have rows of their own.
const WITH_ROWS: [&str; 9] = ["SELECT", "VALUES", "TABLE", "FROM", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXECUTE"];

/// Whether `text` changes something, data or session, rather than having rows of its own: what drivers call an update. Its first word
/// says so, or what comes after the queries of a WITH; nothing is parsed, so that this may be asked of any text, on any stack.
#[must_use]
pub fn changes_something(text: &str) -> bool {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().unwrap_or_default();
    let (mut depth, mut is_after_with) = (0_usize, false);
    for token in tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_) | Token::SemiColon)) {
        let word = match token {
            Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
            _ => String::new(),
        };
        match token {
            // A query in parentheses.
            Token::LParen if !is_after_with => return false,
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ if !is_after_with && word == "WITH" => is_after_with = true,
            _ if !is_after_with => return !WITH_ROWS.contains(&word.as_str()),
            _ if depth > 0 => {}
            _ if WITH_ROWS.contains(&word.as_str()) => return false,
            _ if ["INSERT", "UPDATE", "DELETE", "MERGE"].contains(&word.as_str()) => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_divided_outside_of_strings_and_comments() {
        let script = "SELECT ';' -- ; no end\n;\n\n  /* ; */ INSERT INTO \"a;b\" VALUES ('ä;');;  SELECT 2";
        let statements = split(script).unwrap();
        let texts: Vec<&str> = statements.iter().map(|statement| statement.text.as_str()).collect();
        assert_eq!(texts, ["SELECT ';'", "INSERT INTO \"a;b\" VALUES ('ä;')", "SELECT 2"]);
        assert_eq!(statements.iter().map(|s| (s.line, s.column)).collect::<Vec<_>>(), [(1, 1), (4, 11), (4, 46)]);
        assert!(split(" ; -- nothing").unwrap().is_empty());
        let open = split("SELECT 'x").unwrap_err();
        assert_eq!((open.kind, open.context.span.unwrap().start_column), (ErrorKind::InvalidQuery, 8));
    }

    #[test]
    fn a_position_in_a_statement_becomes_one_in_the_script() {
        let statement = ScriptStatement { text: String::new(), line: 4, column: 11 };
        let span = Span { start_line: 1, start_column: 3, end_line: 2, end_column: 5 };
        let error = statement.place(Error::new(ErrorKind::InvalidQuery, "no").with_span(Some(span)));
        assert_eq!(error.context.span, Some(Span { start_line: 4, start_column: 13, end_line: 5, end_column: 5 }));
    }

    #[test]
    fn statements_with_rows_are_told_from_those_that_change_something() {
        for text in [
            "SELECT 1",
            "VALUES (1)",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a), \"insert\" AS (SELECT 2) SELECT * FROM a",
            "/* INSERT */ -- DROP\n SELECT 'DELETE'",
            "(SELECT 1)",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT 1",
            "SHOW TABLES",
            "SHOW windrow.query.partitions",
            "SHOW COLUMNS FROM t",
            "DESCRIBE t",
            "EXECUTE p(1)",
        ] {
            assert!(!changes_something(text), "{text}");
        }
        for text in [
            "CREATE TABLE t AS SELECT 1",
            "CREATE VIEW v AS SELECT 1",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'x'",
            "DROP TABLE t",
            "CREATE SCHEMA s",
            "INSERT INTO t VALUES (1)",
            "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
            "UPDATE t SET a = 1",
            "DELETE FROM t",
            "COPY t TO 'x.csv'",
            "SET windrow.query.partitions = 3",
            "RESET windrow.query.partitions",
            "PREPARE p AS SELECT 1",
            "DEALLOCATE p",
        ] {
            assert!(changes_something(text), "{text}");
        }
    }
}
