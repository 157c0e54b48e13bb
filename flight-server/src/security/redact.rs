//! A statement's text without what opens doors: for logs that others read. Next: `layer.rs`.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::audit::beginning;

/// Words in the name of an option whose value is a secret.
const SECRET: [&str; 8] = ["secret", "password", "passwd", "token", "credential", "access_key", "account_key", "sas"];

/// What stands in place of a secret.
const HIDDEN: &str = "***";

/// At most `max` bytes from the beginning of `text`, without the values of options that are secrets and without the credentials in
/// URLs. What cannot be read as SQL is left out from there on.
pub(super) fn without_secrets(text: &str, max: usize) -> String {
    let shown = beginning(text, max);
    let mut tokens: Vec<TokenWithSpan> = Vec::new();
    let read = Tokenizer::new(&GenericDialect {}, shown).with_unescape(false).tokenize_with_location_into_buf(&mut tokens);
    let mut clean = String::with_capacity(shown.len());
    let mut hides_next = false;
    for TokenWithSpan { token, .. } in &tokens {
        match token {
            Token::Whitespace(_) | Token::Eq | Token::Period | Token::Colon | Token::RArrow => {}
            Token::Word(word) if hides_next && word.value.eq_ignore_ascii_case("to") => {}
            literal if hides_next && is_literal(literal) => {
                hides_next = false;
                clean.push_str(&format!("'{HIDDEN}'"));
                continue;
            }
            other => hides_next = names_a_secret(other),
        }
        clean.push_str(&without_credentials(&token.to_string()));
    }
    if read.is_err() || shown.len() < text.len() {
        clean.push('…');
    }
    clean
}

fn is_literal(token: &Token) -> bool {
    let is_quoted = matches!(token, Token::Word(word) if word.quote_style.is_some());
    let is_none = matches!(
        token,
        Token::Word(_) | Token::Comma | Token::LParen | Token::RParen | Token::SemiColon | Token::EOF | Token::LBracket
    );
    is_quoted || !is_none
}

fn names_a_secret(token: &Token) -> bool {
    let name = match token {
        Token::Word(word) => &word.value,
        Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => text,
        _ => return false,
    };
    let name = name.to_ascii_lowercase();
    // Names of options are short and have no blanks; values that merely hold such a word are left alone.
    name.len() <= 80 && !name.contains(char::is_whitespace) && SECRET.iter().any(|word| name.contains(word))
}

/// `scheme://user:password@host/path?signature` without user, password and signature.
fn without_credentials(token: &str) -> String {
    let Some((scheme, rest)) = token.split_once("://") else { return token.to_owned() };
    let host_end = rest.find(['/', '?', '\'', '"', ' ']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(host_end).unwrap_or((rest, ""));
    let host = authority.rsplit_once('@').map_or_else(|| authority.to_owned(), |(_, host)| format!("{HIDDEN}@{host}"));
    let path = match path.split_once('?') {
        Some((path, query)) => {
            let quote = query.chars().last().filter(|last| matches!(last, '\'' | '"')).map(String::from).unwrap_or_default();
            format!("{path}?{HIDDEN}{quote}")
        }
        None => path.to_owned(),
    };
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use windrow_core::cases::Cases;

    use super::*;

    #[test]
    fn security_m21_values_of_secret_options_and_credentials_of_urls_are_hidden() {
        let mut cases = Cases::of("M21");
        for (text, planted) in [
            ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b/' OPTIONS ('aws.secret_access_key' 'planted')", "planted"),
            ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b/' OPTIONS (aws.secret_access_key = 'planted')", "planted"),
            ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b/' OPTIONS ('azure.sas_token' \"planted\")", "planted"),
            ("COPY t TO 's3://planted:hunter2@b/x.csv' STORED AS CSV", "hunter2"),
            ("SELECT * FROM 'https://host/x.csv?X-Amz-Signature=planted'", "planted"),
            ("CREATE USER ann PASSWORD 'planted'", "planted"),
            ("SET x.password = 'planted'", "planted"),
            ("SET x.password TO 'planted'; SET y.token = 1234567", "1234567"),
            ("SELECT 1 WHERE secret = 'planted", "planted"),
        ] {
            let clean = without_secrets(text, 4096);
            assert!(!clean.contains(planted), "{clean}");
            cases.case(text);
        }
        cases.are(9);
    }

    #[test]
    fn the_rest_is_as_it_was_written_and_cut_where_it_is_too_long() {
        for text in
            ["SELECT 'it''s', \"a b\" -- why\nFROM t WHERE a = 'token of love' AND b='c'", "SELECT * FROM 's3://b/x.csv'", ""]
        {
            assert_eq!(without_secrets(text, 4096), text);
        }
        assert_eq!(without_secrets("SELECT 1, 2, 3", 9), "SELECT 1,…");
        assert_eq!(without_secrets(&format!("SELECT '{}'", "ä".repeat(5000)), 4096), "SELECT …");
    }
}
