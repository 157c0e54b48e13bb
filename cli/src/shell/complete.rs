//! What Tab offers: dot commands, tables after FROM, the columns of the tables of the statement (after `alias.` only that
//! table's), functions, settings after SET, keywords. Works on names kept from the last look at the catalog, so that no key press
//! waits for a cluster.

use std::sync::Arc;

use parking_lot::Mutex;
use reedline::{Completer, CompletionResult, Span, Suggestion};
use tokio::task::JoinHandle;
use windrow::{Names, Session};

use super::commands::{COMMANDS, MODES};

const KEYWORDS: [&str; 96] = [
    "ALL",
    "ANALYZE",
    "AND",
    "ANTI",
    "ANY",
    "ARRAY",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COLUMNS",
    "COPY",
    "CREATE",
    "CROSS",
    "CSV",
    "CUBE",
    "CURRENT",
    "DATE",
    "DECIMAL",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DOUBLE",
    "DROP",
    "ELSE",
    "END",
    "ESCAPE",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXTERNAL",
    "EXTRACT",
    "FALSE",
    "FETCH",
    "FILTER",
    "FIRST",
    "FOLLOWING",
    "FROM",
    "FULL",
    "FUNCTIONS",
    "GROUP",
    "GROUPING",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "LAST",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LOCATION",
    "NATURAL",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OPTIONS",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARQUET",
    "PARTITION",
    "PARTITIONED",
    "PRECEDING",
    "QUALIFY",
    "RECURSIVE",
    "REPLACE",
    "RIGHT",
    "ROLLUP",
    "ROWS",
    "SELECT",
    "SEMI",
    "SET",
    "SHOW",
    "STORED",
    "TABLE",
    "TABLES",
    "THEN",
    "TIMESTAMP",
    "TRUE",
    "UNBOUNDED",
    "UNION",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
];
/// Further keywords, which nobody completes but which are coloured.
const SHORT_KEYWORDS: [&str; 5] = ["IF", "NO", "TO", "VIEW", "WITH"];

/// Whether `word` is a keyword of SQL, in any case.
pub(super) fn is_keyword(word: &str) -> bool {
    let upper = word.to_ascii_uppercase();
    KEYWORDS.contains(&upper.as_str()) || SHORT_KEYWORDS.contains(&upper.as_str())
}

/// The names of the session as of its last statement. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownNames(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    names: Arc<Names>,
    /// The last look at the catalog, which may still be under way.
    look: Option<JoinHandle<()>>,
}

impl KnownNames {
    /// Asks the session for its names in the background, instead of an earlier look that is still under way.
    pub(super) fn refresh(&self, session: &Session) {
        let (session, known) = (session.clone(), self.clone());
        let look = tokio::spawn(async move {
            match session.names().await {
                Ok(fresh) => known.0.lock().names = Arc::new(fresh),
                // The next statement meets the same trouble and tells of it.
                Err(error) => tracing::debug!(%error, "no names for completion"),
            }
        });
        let earlier = self.0.lock().look.replace(look);
        earlier.iter().for_each(JoinHandle::abort);
    }

    /// Ends a look that is still under way: it holds the session.
    pub(super) async fn stop(&self) {
        let look = self.0.lock().look.take();
        if let Some(look) = look {
            look.abort();
            drop(look.await);
        }
    }

    /// The names.
    fn get(&self) -> Arc<Names> {
        Arc::clone(&self.0.lock().names)
    }
}

/// The line editor's view of [`candidates`].
pub(super) struct NameCompleter {
    names: KnownNames,
}

impl NameCompleter {
    pub(super) fn new(names: KnownNames) -> Self {
        Self { names }
    }
}

impl Completer for NameCompleter {
    fn complete(&mut self, line: &str, pos: usize) -> CompletionResult {
        let (start, found) = candidates(&self.names.get(), line, pos);
        let suggestions: Vec<Suggestion> = found
            .into_iter()
            .map(|candidate| Suggestion {
                append_whitespace: candidate.ends_word,
                value: candidate.text,
                description: None,
                span: Span::new(start, pos.max(start)),
                ..Suggestion::default()
            })
            .collect();
        CompletionResult::fresh(suggestions)
    }
}

/// One thing that Tab offers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    text: String,
    /// Whether a blank follows: not after a function's `(` or a column, which a comma may follow.
    ends_word: bool,
}

fn candidate(text: impl Into<String>, ends_word: bool) -> Candidate {
    Candidate { text: text.into(), ends_word }
}

/// What may stand in `line` up to byte `pos`, and the byte at which it begins.
fn candidates(names: &Names, line: &str, pos: usize) -> (usize, Vec<Candidate>) {
    let before = line.get(..pos).unwrap_or(line);
    let begin = before.trim_start();
    if begin.starts_with('.') {
        return dot_candidates(names, before, begin);
    }
    if in_quotes(before) {
        return (before.len(), Vec::new());
    }
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let is_path = |c: char| is_part(c) || c == '.';
    let previous = before.trim_end_matches(is_path).trim_end().rsplit(|c: char| !is_part(c)).next().unwrap_or_default();
    let path = &before[before.trim_end_matches(is_path).len()..];
    if previous.eq_ignore_ascii_case("set") {
        return matching(before.len() - path.len(), path, names.settings.iter().map(|name| candidate(name, true)));
    }
    if let Some((qualifier, prefix)) = path.rsplit_once('.') {
        let columns = columns_of(names, line, qualifier);
        return matching(before.len() - prefix.len(), prefix, columns.iter().map(|name| candidate(name, false)));
    }
    let start = before.len() - path.len();
    let tables = names.tables.iter().map(|(name, _)| candidate(name, true));
    if ["from", "join", "into", "table", "describe", "update"].iter().any(|word| previous.eq_ignore_ascii_case(word)) {
        return matching(start, path, tables);
    }
    if path.is_empty() {
        return (start, Vec::new());
    }
    let is_lower = path.chars().any(char::is_lowercase);
    let cased = |word: &str| if is_lower { word.to_lowercase() } else { word.to_owned() };
    let columns = columns_in(names, line).into_iter().map(|name| candidate(name, false));
    let keywords = KEYWORDS.iter().map(|word| candidate(cased(word), true));
    let functions = names.functions.iter().map(|name| candidate(format!("{name}("), false));
    matching(start, path, columns.chain(tables).chain(keywords).chain(functions))
}

fn dot_candidates(names: &Names, before: &str, begin: &str) -> (usize, Vec<Candidate>) {
    match begin.split_once(char::is_whitespace) {
        None => matching(before.len() - begin.len(), begin, COMMANDS.iter().map(|command| candidate(command.name, true))),
        Some((command, argument)) => {
            let argument = argument.trim_start();
            let start = before.len() - argument.len();
            match command {
                ".mode" => matching(start, argument, MODES.iter().map(|mode| candidate(*mode, false))),
                ".timer" => matching(start, argument, ["on", "off"].into_iter().map(|word| candidate(word, false))),
                ".schema" | ".tables" => matching(start, argument, names.tables.iter().map(|(name, _)| candidate(name, false))),
                _ => (before.len(), Vec::new()),
            }
        }
    }
}

/// Those that begin with `prefix` in any case, once each, in order.
fn matching(start: usize, prefix: &str, all: impl Iterator<Item = Candidate>) -> (usize, Vec<Candidate>) {
    let lower = prefix.to_lowercase();
    let mut found: Vec<Candidate> = Vec::new();
    for candidate in all {
        if candidate.text.to_lowercase().starts_with(&lower) && !found.iter().any(|other| other.text == candidate.text) {
            found.push(candidate);
        }
    }
    (start, found)
}

/// Whether the end of `text` is within a quoted text or name.
fn in_quotes(text: &str) -> bool {
    matches!(windrow::open_at_end(text), windrow::Open::Quote(_) | windrow::Open::Comment)
}

/// The columns of the table that `qualifier` names in `line`, by its name or its alias.
fn columns_of<'a>(names: &'a Names, line: &str, qualifier: &str) -> &'a [String] {
    let named = tables_in(names, line).into_iter().find(|(alias, _)| alias.eq_ignore_ascii_case(qualifier));
    let known = || names.tables.iter().find(|(name, _)| name.eq_ignore_ascii_case(qualifier));
    named.map(|(_, columns)| columns).or_else(|| known().map(|(_, columns)| columns.as_slice())).unwrap_or_default()
}

/// The columns of all tables that `line` names.
fn columns_in<'a>(names: &'a Names, line: &str) -> Vec<&'a String> {
    tables_in(names, line).into_iter().flat_map(|(_, columns)| columns).collect()
}

/// The known tables that `line` names, each by its name and by its alias, with their columns.
fn tables_in<'a>(names: &'a Names, line: &str) -> Vec<(String, &'a [String])> {
    let words: Vec<&str> =
        line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).filter(|w| !w.is_empty()).collect();
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let Some((name, columns)) = names.tables.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) else { continue };
        found.push((name.clone(), columns.as_slice()));
        let next = words.get(index + 1).copied().unwrap_or_default();
        let alias = if next.eq_ignore_ascii_case("as") { words.get(index + 2).copied().unwrap_or_default() } else { next };
        if !alias.is_empty() && !is_keyword(alias) {
            found.push((alias.to_owned(), columns.as_slice()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let table = |name: &str, columns: &[&str]| (name.to_owned(), columns.iter().map(|c| (*c).to_owned()).collect());
        Names {
            tables: vec![table("orders", &["o_orderkey", "o_custkey"]), table("lineitem", &["l_orderkey", "l_quantity"])],
            functions: vec!["sum".to_owned(), "substr".to_owned(), "date_part".to_owned()],
            settings: vec!["windrow.query.partitions".to_owned(), "windrow.query.directory".to_owned()],
        }
    }

    /// `|` is the cursor; the expected candidates are joined by blanks.
    fn check(line: &str, replaced: &str, expected: &str) {
        let pos = line.find('|').expect("a cursor");
        let line = line.replacen('|', "", 1);
        let (start, found) = candidates(&names(), &line, pos);
        assert_eq!(&line[start..pos], replaced, "{line}");
        let found: Vec<String> = found.into_iter().map(|candidate| candidate.text).collect();
        assert_eq!(found.join(" "), expected, "{line}");
    }

    #[test]
    fn tables_come_after_from() {
        check("SELECT * FROM |", "", "orders lineitem");
        check("select * from Li|", "Li", "lineitem");
        check("SELECT * FROM orders JOIN |", "", "orders lineitem");
    }

    #[test]
    fn columns_are_those_of_the_statements_tables() {
        check("SELECT o_| FROM orders", "o_", "o_orderkey o_custkey");
        check("SELECT l_| FROM orders", "l_", "");
    }

    #[test]
    fn after_a_qualifier_there_are_only_its_columns() {
        check("SELECT l.| FROM orders o JOIN lineitem AS l", "", "l_orderkey l_quantity");
        check("SELECT o.o_c| FROM orders o", "o_c", "o_custkey");
        check("SELECT lineitem.l_q|", "l_q", "l_quantity");
        check("SELECT x.|", "", "");
    }

    #[test]
    fn keywords_follow_the_case_and_functions_open_their_parenthesis() {
        check("SEL|", "SEL", "SELECT");
        check("sel|", "sel", "select");
        check("SELECT su|", "su", "sum( substr(");
        check("SELECT date|", "date", "date date_part(");
    }

    #[test]
    fn settings_come_after_set() {
        check("SET windrow.query.p|", "windrow.query.p", "windrow.query.partitions");
    }

    #[test]
    fn dot_commands_and_their_arguments() {
        check(".he|", ".he", ".help");
        check(".mode js|", "js", "json jsonl");
        check("  .schema ord|", "ord", "orders");
    }

    #[test]
    fn nothing_is_offered_within_quotes_or_out_of_nowhere() {
        check("SELECT * FROM 'or|", "", "");
        check("SELECT |", "", "");
        check("|", "", "");
    }

    #[test]
    fn the_keywords_are_sorted_and_upper_case() {
        assert!(KEYWORDS.is_sorted());
        assert!(KEYWORDS.iter().all(|word| *word == word.to_uppercase()));
    }
}
