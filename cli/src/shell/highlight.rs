//! Colours while typing: keywords, texts, numbers, comments. Knows words and quotes, not grammar.

use reedline::{Color, Highlighter, StyledText};

use super::complete::is_keyword;

/// Colours SQL.
pub(super) struct SqlHighlighter;

impl Highlighter for SqlHighlighter {
    fn highlight(&self, line: &str, _cursor: usize) -> StyledText {
        let mut styled = StyledText::new();
        let mut rest = line;
        while let Some((length, colour)) = piece(rest) {
            let (text, after) = rest.split_at(length);
            styled.push((colour.normal(), text.to_owned()));
            rest = after;
        }
        styled
    }
}

/// The length in bytes and the colour of the piece that `rest` begins with.
fn piece(rest: &str) -> Option<(usize, Color)> {
    let first = rest.chars().next()?;
    let until = |end: Option<usize>| end.unwrap_or(rest.len());
    let word = || until(rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')));
    Some(match first {
        '\'' => (until(rest[1..].find('\'').map(|at| at + 2)), Color::Green),
        '"' => (until(rest[1..].find('"').map(|at| at + 2)), Color::Default),
        '-' if rest.starts_with("--") => (until(rest.find('\n')), Color::DarkGray),
        '/' if rest.starts_with("/*") => (until(rest.find("*/").map(|at| at + 2)), Color::DarkGray),
        _ if first.is_ascii_digit() => (word(), Color::Cyan),
        _ if first.is_alphabetic() || first == '_' => {
            let length = word();
            (length, if is_keyword(&rest[..length]) { Color::LightBlue } else { Color::Default })
        }
        _ => (first.len_utf8(), Color::Default),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_unchanged_and_its_pieces_are_known() {
        for text in ["SELECT 'a''b', \"x\" -- c\nFROM t /* d */ WHERE größe > 1.5;", "'open", "/* open", "é", ""] {
            let styled = SqlHighlighter.highlight(text, 0);
            let joined: String = styled.buffer.iter().map(|(_, piece)| piece.as_str()).collect();
            assert_eq!(joined, text);
        }
        fn colour(text: &str) -> Option<(&str, Color)> {
            piece(text).map(|(length, colour)| (&text[..length], colour))
        }
        assert_eq!(colour("select x"), Some(("select", Color::LightBlue)));
        assert_eq!(colour("selected"), Some(("selected", Color::Default)));
        assert_eq!(colour("'a b' c"), Some(("'a b'", Color::Green)));
        assert_eq!(colour("12.5 "), Some(("12.5", Color::Cyan)));
        assert_eq!(colour("-- x\ny"), Some(("-- x", Color::DarkGray)));
    }
}
