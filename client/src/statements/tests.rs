//! Tables of scripts and what they divide into.

use super::{Open, StatementText, is_complete, open_at_end, split_statements};

fn texts(script: &str) -> Vec<String> {
    split_statements(script).into_iter().map(|statement| statement.text).collect()
}

#[test]
fn a_script_divides_at_its_semicolons() {
    let cases: &[(&str, &[&str])] = &[
        ("", &[]),
        (" \n\t", &[]),
        (";; ;", &[]),
        ("-- a\n/* b; */", &[]),
        ("select 1", &["select 1"]),
        ("select 1;", &["select 1"]),
        ("select 1; select 2", &["select 1", "select 2"]),
        ("select ';', 'it''s; '; b", &["select ';', 'it''s; '", "b"]),
        (r"select '\'; b", &[r"select '\'", "b"]),
        (r"select E'it\'s;'; b", &[r"select E'it\'s;'", "b"]),
        (r"select make'\'; b", &[r"select make'\'", "b"]),
        ("select \"a;\"\"b\"; c", &["select \"a;\"\"b\"", "c"]),
        ("select `a;b`; c", &["select `a;b`", "c"]),
        ("select $$a;b$$; c", &["select $$a;b$$", "c"]),
        ("select $x$a;$$;b$x$; c", &["select $x$a;$$;b$x$", "c"]),
        ("select $1; select $2", &["select $1", "select $2"]),
        ("select a$$b; c$$", &["select a$$b", "c$$"]),
        ("select $name; b", &["select $name", "b"]),
        ("select 1 -- a; 'b\n; c", &["select 1", "c"]),
        ("select 1 -- a;\n + 2; c", &["select 1 -- a;\n + 2", "c"]),
        ("-- about; it\nselect 1; /* c */ select 2", &["select 1", "select 2"]),
        ("select /* ; */ 1; b", &["select /* ; */ 1", "b"]),
        ("select /* a /* ; */ ; */ 1; b", &["select /* a /* ; */ ; */ 1", "b"]),
        ("select 4 - -1 / 2; b", &["select 4 - -1 / 2", "b"]),
        ("/* don't */ select 1; b", &["select 1", "b"]),
        ("select '--', '/*'; b", &["select '--', '/*'", "b"]),
        ("select 'é;ü', ñ; ß", &["select 'é;ü', ñ", "ß"]),
        ("select 'a; b", &["select 'a; b"]),
        ("select 1; /* b; c", &["select 1"]),
    ];
    for (script, expected) in cases {
        assert_eq!(texts(script), *expected, "{script}");
    }
}

#[test]
fn a_statement_knows_where_it_begins() {
    let script = "-- first\nselect 1; select 'é'; ü\n;\n\n  select\n 2";
    let places: Vec<(String, u32, u32)> =
        split_statements(script).into_iter().map(|StatementText { text, line, column }| (text, line, column)).collect();
    let expected = [("select 1", 2, 1), ("select 'é'", 2, 11), ("ü", 2, 23), ("select\n 2", 5, 3)];
    assert_eq!(places, expected.map(|(text, line, column)| (text.to_owned(), line, column)));
}

#[test]
fn a_text_says_what_is_open() {
    let cases = [
        ("", Open::Nothing),
        ("select 1;", Open::Nothing),
        ("select 1; -- done", Open::Nothing),
        ("select 1; /* done */", Open::Nothing),
        ("-- nothing", Open::Nothing),
        ("select 1", Open::Statement),
        ("select 1; select 2", Open::Statement),
        ("select ';'", Open::Statement),
        ("select (1", Open::Parenthesis),
        ("select [1, (2)", Open::Parenthesis),
        ("select (1)", Open::Statement),
        ("select ')", Open::Quote('\'')),
        ("select \"a;", Open::Quote('"')),
        ("select `a;", Open::Quote('`')),
        ("select $a$ $$;", Open::Quote('$')),
        (r"select E'\'", Open::Quote('\'')),
        ("select 1; /* x", Open::Comment),
        ("/* /* */ ;", Open::Comment),
    ];
    for (text, expected) in cases {
        assert_eq!(open_at_end(text), expected, "{text}");
        assert_eq!(is_complete(text), expected == Open::Nothing);
    }
}
