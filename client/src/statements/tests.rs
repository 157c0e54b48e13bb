//! Tables of scripts and what they divide into.

use rstest::rstest;

use super::{Open, StatementText, is_complete, open_at_end, split_statements};

fn texts(script: &str) -> Vec<String> {
    split_statements(script).into_iter().map(|statement| statement.text).collect()
}

#[rstest]
#[case::empty("", &[])]
#[case::blank(" \n\t", &[])]
#[case::only_semicolons(";; ;", &[])]
#[case::only_comments("-- a\n/* b; */", &[])]
#[case::one("select 1", &["select 1"])]
#[case::one_ended("select 1;", &["select 1"])]
#[case::two("select 1; select 2", &["select 1", "select 2"])]
#[case::single_quotes("select ';', 'it''s; '; b", &["select ';', 'it''s; '", "b"])]
#[case::backslash_is_plain(r"select '\'; b", &[r"select '\'", "b"])]
#[case::escape_string(r"select E'it\'s;'; b", &[r"select E'it\'s;'", "b"])]
#[case::escape_is_not_a_word_end(r"select make'\'; b", &[r"select make'\'", "b"])]
#[case::double_quotes("select \"a;\"\"b\"; c", &["select \"a;\"\"b\"", "c"])]
#[case::backticks("select `a;b`; c", &["select `a;b`", "c"])]
#[case::dollar("select $$a;b$$; c", &["select $$a;b$$", "c"])]
#[case::dollar_tag("select $x$a;$$;b$x$; c", &["select $x$a;$$;b$x$", "c"])]
#[case::placeholder("select $1; select $2", &["select $1", "select $2"])]
#[case::dollar_in_name("select a$$b; c$$", &["select a$$b", "c$$"])]
#[case::named_placeholder("select $name; b", &["select $name", "b"])]
#[case::line_comment("select 1 -- a; 'b\n; c", &["select 1", "c"])]
#[case::comment_inside("select 1 -- a;\n + 2; c", &["select 1 -- a;\n + 2", "c"])]
#[case::leading_comment("-- about; it\nselect 1; /* c */ select 2", &["select 1", "select 2"])]
#[case::block_comment("select /* ; */ 1; b", &["select /* ; */ 1", "b"])]
#[case::nested_comment("select /* a /* ; */ ; */ 1; b", &["select /* a /* ; */ ; */ 1", "b"])]
#[case::minus_and_slash("select 4 - -1 / 2; b", &["select 4 - -1 / 2", "b"])]
#[case::quote_in_comment("/* don't */ select 1; b", &["select 1", "b"])]
#[case::comment_in_quote("select '--', '/*'; b", &["select '--', '/*'", "b"])]
#[case::not_ascii("select 'é;ü', ñ; ß", &["select 'é;ü', ñ", "ß"])]
#[case::open_quote("select 'a; b", &["select 'a; b"])]
#[case::open_comment("select 1; /* b; c", &["select 1"])]
fn a_script_divides_at_its_semicolons(#[case] script: &str, #[case] expected: &[&str]) {
    assert_eq!(texts(script), expected);
}

#[test]
fn a_statement_knows_where_it_begins() {
    let script = "-- first\nselect 1; select 'é'; ü\n;\n\n  select\n 2";
    let places: Vec<(String, u32, u32)> =
        split_statements(script).into_iter().map(|StatementText { text, line, column }| (text, line, column)).collect();
    let expected = [("select 1", 2, 1), ("select 'é'", 2, 11), ("ü", 2, 23), ("select\n 2", 5, 3)];
    assert_eq!(places, expected.map(|(text, line, column)| (text.to_owned(), line, column)));
}

#[rstest]
#[case("", Open::Nothing)]
#[case("select 1;", Open::Nothing)]
#[case("select 1; -- done", Open::Nothing)]
#[case("select 1; /* done */", Open::Nothing)]
#[case("-- nothing", Open::Nothing)]
#[case("select 1", Open::Statement)]
#[case("select 1; select 2", Open::Statement)]
#[case("select ';'", Open::Statement)]
#[case("select (1", Open::Parenthesis)]
#[case("select [1, (2)", Open::Parenthesis)]
#[case("select (1)", Open::Statement)]
#[case("select ')", Open::Quote('\''))]
#[case("select \"a;", Open::Quote('"'))]
#[case("select `a;", Open::Quote('`'))]
#[case("select $a$ $$;", Open::Quote('$'))]
#[case(r"select E'\'", Open::Quote('\''))]
#[case("select 1; /* x", Open::Comment)]
#[case("/* /* */ ;", Open::Comment)]
fn a_text_says_what_is_open(#[case] text: &str, #[case] expected: Open) {
    assert_eq!(open_at_end(text), expected);
    assert_eq!(is_complete(text), expected == Open::Nothing);
}
