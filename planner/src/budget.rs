//! Bounds of one statement, so that hostile text costs an error and not a process. Each error names its budget and the figure.
//!
//! DataFusion and the parser recurse by the depth of what was written, and a stack that overflows ends the process; a chain of n
//! operators is a tree of depth n. So text and tokens are counted before parsing, and the parsed statement before it is planned.

use std::ops::ControlFlow;

use datafusion::sql::parser::{CopyToSource, Statement};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, Query, Select, TableFactor,
    UnaryOperator, Value, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use windrow_core::{Error, ErrorKind, Result};

/// Bytes of one statement, its text or its plan.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Tokens of one statement, about what `TEXT_BYTES_MAX` of short words holds.
pub(crate) const TOKENS_MAX: usize = 1 << 19;
/// Bytes of one name. Paths are names too.
pub(crate) const NAME_BYTES_MAX: usize = 4_096;
/// Operators chained in one expression between two commas, parentheses or keywords.
pub(crate) const CHAIN_MAX: usize = 1_000;
/// Operators over each other in one expression, those of the parentheses around it included.
pub(crate) const DEPTH_MAX: usize = 1_100;
/// Expressions, tables and queries of one statement.
pub(crate) const NODES_MAX: usize = 50_000;
/// Values of one `IN (...)`.
pub(crate) const LIST_MAX: usize = 20_000;
/// Tables joined in one FROM.
pub(crate) const JOINS_MAX: usize = 128;
/// Common table expressions of one statement.
pub(crate) const CTES_MAX: usize = 256;
/// Queries in each other.
pub(crate) const QUERIES_MAX: usize = 32;
/// Bytes of one regular expression: its compiled form may be a thousand times as large.
pub(crate) const PATTERN_BYTES_MAX: usize = 16 << 10;
/// Elements or characters that one call with literal arguments may make while the statement is planned.
pub(crate) const MADE_MAX: f64 = 10_000_000.0;
/// Levels of nesting that the parser takes.
pub(crate) const NESTING_MAX: usize = 50;

/// Checks a text before it is parsed.
///
/// # Errors
/// [`ErrorKind::InvalidQuery`].
pub(crate) fn check_text(text: &str) -> Result<()> {
    within("bytes of text", text.len(), TEXT_BYTES_MAX)?;
    // A text that does not tokenize is refused by the parser, with the position.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).tokenize() else { return Ok(()) };
    within("tokens", tokens.len(), TOKENS_MAX)?;
    let longest_name = tokens.iter().map(|token| if let Token::Word(word) = token { word.value.len() } else { 0 }).max();
    within("bytes in one name", longest_name.unwrap_or(0), NAME_BYTES_MAX)?;
    let chains = Chains::of(&tokens);
    if chains.nesting > NESTING_MAX {
        return Err(nests_too_deeply());
    }
    within("operators in one chain", chains.longest, CHAIN_MAX)?;
    within("operators over each other", chains.deepest, DEPTH_MAX)
}

/// Checks a parsed statement before it is planned.
///
/// # Errors
/// [`ErrorKind::InvalidQuery`].
pub(crate) fn check_statement(statement: &Statement) -> Result<()> {
    let mut size = Size::default();
    let over = match statement {
        Statement::Statement(sql) => sql.visit(&mut size),
        Statement::CopyTo(copy) => match &copy.source {
            CopyToSource::Query(query) => query.visit(&mut size),
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        Statement::Explain(explain) => return check_statement(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::Reset(_) => ControlFlow::Continue(()),
    };
    over.break_value().map_or(Ok(()), Err)
}

/// Why a statement that nests too deeply for the parser is refused.
pub(crate) fn nests_too_deeply() -> Error {
    Error::new(ErrorKind::InvalidQuery, format!("the statement nests too deeply, at most {NESTING_MAX} levels are allowed"))
        .with_help("use fewer parentheses or a CTE")
}

/// Checks the size of a plan before it is decoded.
///
/// # Errors
/// [`ErrorKind::InvalidQuery`].
pub(crate) fn check_plan_bytes(bytes: usize) -> Result<()> {
    within("bytes of a plan", bytes, TEXT_BYTES_MAX)
}

pub(crate) fn within(what: &str, count: usize, most: usize) -> Result<()> {
    if count <= most {
        return Ok(());
    }
    let message = format!("the statement has {count} {what}, at most {most} are allowed");
    Err(Error::new(ErrorKind::InvalidQuery, message).with_help("put values into a file and join it, or divide the statement"))
}

/// Binary operators between separators: commas, parentheses, semicolons.
#[derive(Default)]
struct Chains {
    longest: usize,
    /// The most operators in a chain and in the chains around it.
    deepest: usize,
    /// The most parentheses and CASEs in each other. The parser counts them too, but takes some for something else then.
    nesting: usize,
}

impl Chains {
    fn of(tokens: &[Token]) -> Self {
        let mut found = Self::default();
        // One count per open parenthesis: a group in parentheses is one operand of the chain around it.
        let mut open = vec![0_usize];
        let (mut depth, mut cases) = (0_usize, 0_usize);
        for token in tokens {
            match token {
                Token::Word(word) if word.keyword == Keyword::CASE => cases += 1,
                Token::Word(word) if word.keyword == Keyword::END => cases = cases.saturating_sub(1),
                Token::LParen => open.push(0),
                Token::RParen if open.len() > 1 => depth -= open.pop().unwrap_or(0),
                Token::Comma | Token::SemiColon => depth -= open.last_mut().map_or(0, std::mem::take),
                token if is_operator(token) => {
                    let Some(count) = open.last_mut() else { continue };
                    *count += 1;
                    depth += 1;
                    found.longest = found.longest.max(*count);
                    found.deepest = found.deepest.max(depth);
                }
                _ => {}
            }
            found.nesting = found.nesting.max(open.len() - 1 + cases);
        }
        found
    }
}

fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => ["AND", "OR", "UNION", "JOIN", "NOT"].iter().any(|known| word.value.eq_ignore_ascii_case(known)),
        Token::Whitespace(_) | Token::RParen | Token::Number(..) | Token::SingleQuotedString(_) | Token::Period => false,
        _ => true,
    }
}

/// What has been counted of a statement.
#[derive(Default)]
struct Size {
    nodes: usize,
    depth: usize,
    ctes: usize,
    queries: usize,
}

impl Size {
    fn count(&mut self) -> Result<()> {
        self.nodes += 1;
        within("expressions, tables and queries", self.nodes, NODES_MAX)
    }

    fn expression(&mut self, expression: &Expr) -> Result<()> {
        self.count()?;
        self.depth += 1;
        within("operators over each other", self.depth, DEPTH_MAX)?;
        match expression {
            Expr::InList { list, .. } => within("values in one list", list.len(), LIST_MAX),
            Expr::Function(function) => made_by(function).and_then(|()| patterns_of(function)),
            Expr::RLike { pattern, .. } | Expr::SimilarTo { pattern, .. } => check_pattern(pattern),
            Expr::BinaryOp { op, right, .. } if is_match(op) => check_pattern(right),
            _ => Ok(()),
        }
    }

    fn query(&mut self, query: &Query) -> Result<()> {
        self.count()?;
        self.queries += 1;
        within("queries in each other", self.queries, QUERIES_MAX)?;
        self.ctes += query.with.as_ref().map_or(0, |with| with.cte_tables.len());
        within("common table expressions", self.ctes, CTES_MAX)
    }
}

impl Visitor for Size {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        flow(self.query(query))
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        self.queries = self.queries.saturating_sub(1);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        let tables: usize = select.from.iter().map(|table| 1 + table.joins.len()).sum();
        flow(within("joined tables", tables, JOINS_MAX))
    }

    fn pre_visit_table_factor(&mut self, _: &TableFactor) -> ControlFlow<Error> {
        flow(self.count())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Error> {
        let longest = relation.0.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.len()).max();
        flow(within("bytes in one name", longest.unwrap_or(0), NAME_BYTES_MAX))
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<Error> {
        flow(self.expression(expression))
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<Error> {
        self.depth = self.depth.saturating_sub(1);
        ControlFlow::Continue(())
    }
}

fn flow(result: Result<()>) -> ControlFlow<Error> {
    result.map_or_else(ControlFlow::Break, ControlFlow::Continue)
}

/// Refuses a call that would fill the memory: with literal arguments DataFusion computes it while it plans. The table functions of
/// these names stream their rows and are not meant.
fn made_by(function: &Function) -> Result<()> {
    let Some(name) = function.name.0.last().and_then(|part| part.as_ident()) else { return Ok(()) };
    let FunctionArguments::List(list) = &function.args else { return Ok(()) };
    let numbers: Vec<_> = list.args.iter().map(number).collect();
    made(&name.value, &numbers)
}

/// As [`made_by`], for a call by its name and those of its arguments that are literals.
pub(crate) fn made(name: &str, numbers: &[Option<f64>]) -> Result<()> {
    let made = match (name.to_ascii_lowercase().as_str(), numbers) {
        ("generate_series" | "range", [Some(stop)]) => *stop,
        ("generate_series" | "range", [Some(start), Some(stop)]) => stop - start,
        ("generate_series" | "range", [Some(start), Some(stop), Some(step)]) => (stop - start) / step,
        ("repeat" | "lpad" | "rpad" | "array_repeat" | "list_repeat" | "array_resize" | "list_resize", [_, Some(count), ..]) => {
            *count
        }
        ("space", [Some(count)]) => *count,
        _ => return Ok(()),
    };
    if made.abs() <= MADE_MAX {
        return Ok(());
    }
    let message = format!("{name}(..) would make {made} elements in one value, at most {MADE_MAX} are allowed");
    Err(Error::new(ErrorKind::InvalidQuery, message).with_help("for rows, write FROM generate_series(..)"))
}

fn is_match(operator: &BinaryOperator) -> bool {
    use BinaryOperator::{PGRegexIMatch, PGRegexMatch, PGRegexNotIMatch, PGRegexNotMatch};
    matches!(operator, PGRegexMatch | PGRegexIMatch | PGRegexNotMatch | PGRegexNotIMatch)
}

fn patterns_of(function: &Function) -> Result<()> {
    let name = function.name.0.last().and_then(|part| part.as_ident());
    let is_of_patterns = name.is_some_and(|name| name.value.to_ascii_lowercase().starts_with("regexp_"));
    let FunctionArguments::List(list) = &function.args else { return Ok(()) };
    let arguments = list.args.iter().skip(1).take_while(|_argument| is_of_patterns);
    arguments.take(1).try_for_each(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(pattern)) => check_pattern(pattern),
        _ => Ok(()),
    })
}

fn check_pattern(pattern: &Expr) -> Result<()> {
    let Expr::Value(value) = pattern else { return Ok(()) };
    let length = value.value.clone().into_string().map_or(0, |text| text.len());
    within("bytes in one regular expression", length, PATTERN_BYTES_MAX)
}

fn number(argument: &FunctionArg) -> Option<f64> {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) = argument else { return None };
    let (sign, expression) = match expression {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => (-1.0, expr.as_ref()),
        expression => (1.0, expression),
    };
    let Expr::Value(value) = expression else { return None };
    let Value::Number(digits, _) = &value.value else { return None };
    digits.to_string().parse::<f64>().ok().map(|number| sign * number)
}

#[cfg(test)]
mod tests;
