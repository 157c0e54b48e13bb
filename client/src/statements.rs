//! Divides a script into its statements, as the shell and `-f` need it. Does not parse: the planner does.
//!
//! The rules are those of the planner's tokenizer: `'it''s'`, `E'it\'s'`, `"a name"`, `` `a name` ``, `$tag$ ... $tag$`, `-- to the end of
//! the line` and `/* nested /* comments */ */`.

/// One statement of a script, without its `;` and without the blanks and comments around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementText {
    /// The statement.
    pub text: String,
    /// The line of the script on which it begins, from 1.
    pub line: u32,
    /// The column, in characters, at which it begins, from 1.
    pub column: u32,
}

/// What a text is still in the middle of, for the prompt of the next line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Nothing: every statement ended with `;`, or there is none.
    Nothing,
    /// A statement without its `;`.
    Statement,
    /// A parenthesis or bracket of a statement.
    Parenthesis,
    /// A quoted text or name, with its quote: `'`, `"`, `` ` `` or `$`.
    Quote(char),
    /// A block comment.
    Comment,
}

/// The statements of `text` in order. Empty ones are left out; the last one needs no `;`.
#[must_use]
pub fn split_statements(text: &str) -> Vec<StatementText> {
    let mut statements = Vec::new();
    let mut current: Option<(usize, usize)> = None;
    for piece in Pieces::of(text) {
        match piece.kind {
            Kind::Blank => {}
            Kind::Semicolon => statements.extend(current.take()),
            Kind::Word | Kind::Opening | Kind::Closing => {
                let start = current.map_or(piece.start, |(start, _)| start);
                current = Some((start, piece.end));
            }
        }
    }
    statements.extend(current);
    let mut position = Position::start();
    statements.into_iter().map(|(start, end)| position.statement(text, start, end)).collect()
}

/// Whether `text` can run as it is: every statement ends with `;`, and no quote or comment is open.
#[must_use]
pub fn is_complete(text: &str) -> bool {
    open_at_end(text) == Open::Nothing
}

/// What `text` is in the middle of at its end.
#[must_use]
pub fn open_at_end(text: &str) -> Open {
    let mut in_statement = false;
    let mut depth = 0_usize;
    for piece in Pieces::of(text) {
        if let Some(open) = piece.open {
            return open;
        }
        match piece.kind {
            Kind::Blank => continue,
            Kind::Semicolon => (in_statement, depth) = (false, 0),
            Kind::Word => in_statement = true,
            Kind::Opening => (in_statement, depth) = (true, depth + 1),
            Kind::Closing => (in_statement, depth) = (true, depth.saturating_sub(1)),
        }
    }
    match (in_statement, depth) {
        (false, _) => Open::Nothing,
        (true, 0) => Open::Statement,
        (true, _) => Open::Parenthesis,
    }
}

/// Walks a text once and knows line and column of where it stands.
struct Position {
    offset: usize,
    line: u32,
    column: u32,
}

impl Position {
    fn start() -> Self {
        Self { offset: 0, line: 1, column: 1 }
    }

    fn statement(&mut self, text: &str, start: usize, end: usize) -> StatementText {
        for character in text[self.offset..start].chars() {
            (self.line, self.column) = if character == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        }
        self.offset = start;
        StatementText { text: text[start..end].to_owned(), line: self.line, column: self.column }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// White space or a comment.
    Blank,
    Semicolon,
    Opening,
    Closing,
    /// Anything else: a word, a quoted text, an operator.
    Word,
}

/// A piece of the text, `start..end` in bytes; `open` says what the text's end cut through.
#[derive(Debug, Clone, Copy)]
struct Piece {
    kind: Kind,
    start: usize,
    end: usize,
    open: Option<Open>,
}

/// Walks the pieces of a text, which together cover all of it.
struct Pieces<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> Pieces<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, offset: 0 }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let rest = &self.text[self.offset..];
        let first = rest.chars().next()?;
        let (kind, length, open) = match first {
            ';' => (Kind::Semicolon, 1, None),
            '(' | '[' | '{' => (Kind::Opening, 1, None),
            ')' | ']' | '}' => (Kind::Closing, 1, None),
            '-' if rest.starts_with("--") => (Kind::Blank, rest.find('\n').unwrap_or(rest.len()), None),
            '/' if rest.starts_with("/*") => comment(rest),
            '\'' | '"' | '`' => quoted(rest, first, false),
            'e' | 'E' if rest[1..].starts_with('\'') => {
                let (kind, length, open) = quoted(&rest[1..], '\'', true);
                (kind, length + 1, open)
            }
            '$' => dollar_quoted(rest),
            _ if first.is_whitespace() => (Kind::Blank, first.len_utf8(), None),
            _ => (Kind::Word, word(rest).max(first.len_utf8()), None),
        };
        let start = self.offset;
        self.offset += length;
        Some(Piece { kind, start, end: self.offset, open })
    }
}

/// The length of the identifier or number that `rest` begins with. A `$` inside of it opens no quote.
fn word(rest: &str) -> usize {
    rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$' | '#' | '@'))).unwrap_or(rest.len())
}

fn comment(rest: &str) -> (Kind, usize, Option<Open>) {
    let bytes = rest.as_bytes();
    let (mut depth, mut at) = (0_usize, 0_usize);
    while at < bytes.len() {
        match &bytes[at..(at + 2).min(bytes.len())] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" if depth == 1 => return (Kind::Blank, at + 2, None),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    (Kind::Blank, rest.len(), Some(Open::Comment))
}

/// A doubled quote needs no care: it reads as two quoted texts side by side.
fn quoted(rest: &str, quote: char, escapes: bool) -> (Kind, usize, Option<Open>) {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' if escapes => escaped = true,
            _ if character == quote => return (Kind::Word, at + 1, None),
            _ => {}
        }
    }
    (Kind::Word, rest.len(), Some(Open::Quote(quote)))
}

fn dollar_quoted(rest: &str) -> (Kind, usize, Option<Open>) {
    let tag = rest[1..].find(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(rest.len(), |at| at + 1);
    let is_placeholder = rest[1..].starts_with(|c: char| c.is_ascii_digit());
    if is_placeholder || !rest[tag..].starts_with('$') {
        return (Kind::Word, tag, None);
    }
    let delimiter = &rest[..=tag];
    let body = &rest[delimiter.len()..];
    match body.find(delimiter) {
        Some(at) => (Kind::Word, at + 2 * delimiter.len(), None),
        None => (Kind::Word, rest.len(), Some(Open::Quote('$'))),
    }
}

#[cfg(test)]
mod tests;
