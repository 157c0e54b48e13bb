//! Where a password for a new user comes from: the terminal, a variable or a pipe, and never an argument.

use std::io::Read;

use windrow::{Error, ErrorKind};

use crate::end::End;

/// The variable that holds a password where nobody can be asked.
const VARIABLE: &str = "WINDROW_PASSWORD";

/// More than any password has.
const INPUT_BYTES_MAX: u64 = 64 << 10;

/// Where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Standard input.
    Input,
    /// `WINDROW_PASSWORD`, else the terminal.
    Environment,
}

/// The password for `name`. Blocks while somebody types.
pub(crate) fn read(source: Source, name: &str) -> Result<String, End> {
    if source == Source::Input {
        return first_line(std::io::stdin().lock());
    }
    match std::env::var_os(VARIABLE) {
        Some(text) => text.into_string().map_err(|_text| usage(invalid(format!("{VARIABLE} is not text in UTF-8")))),
        None => typed_twice(name, rpassword::prompt_password),
    }
}

/// The first line of a pipe, without its end.
fn first_line(input: impl Read) -> Result<String, End> {
    let mut text = String::new();
    let read = input.take(INPUT_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| usage(invalid("the password cannot be read from standard input").with_source(error)))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// What somebody typed, and typed again.
fn typed_twice(name: &str, mut ask: impl FnMut(String) -> std::io::Result<String>) -> Result<String, End> {
    let mut ask = |prompt| {
        ask(prompt).map_err(|error| {
            let error = invalid("there is no terminal to ask for the password on").with_source(error);
            usage(error.with_help(format!("set {VARIABLE}, or pipe it in and add --password-stdin")))
        })
    };
    let password = ask(format!("password for {name}: "))?;
    if password.is_empty() {
        return Err(usage(invalid("the password is empty")));
    }
    if password != ask(String::from("again: "))? {
        return Err(usage(invalid("the two passwords differ")));
    }
    Ok(password)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

fn usage(error: Error) -> End {
    End::Usage(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(end: End) -> String {
        match end {
            End::Usage(error) => error.message,
            other => panic!("{other:?}"),
        }
    }

    /// Types `lines`, one an answer.
    fn type_in(lines: &[&str]) -> (Result<String, End>, Vec<String>) {
        let mut lines = lines.iter();
        let mut prompts = Vec::new();
        let typed = typed_twice("alice", |prompt| {
            prompts.push(prompt);
            lines.next().map(|line| (*line).to_owned()).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
        });
        (typed, prompts)
    }

    #[test]
    fn a_typed_password_is_asked_for_twice() {
        let (typed, prompts) = type_in(&["correct horse", "correct horse"]);
        assert_eq!(
            (typed.unwrap(), prompts),
            ("correct horse".to_owned(), vec!["password for alice: ".to_owned(), "again: ".to_owned()])
        );
        assert_eq!(message(type_in(&["a", "b"]).0.unwrap_err()), "the two passwords differ");
        assert_eq!(message(type_in(&["", ""]).0.unwrap_err()), "the password is empty");
        assert!(message(type_in(&[]).0.unwrap_err()).contains("no terminal"));
    }

    #[test]
    fn a_piped_password_is_its_first_line() {
        for (input, password) in [("a b\n", "a b"), ("a", "a"), ("a\r\nrest\n", "a"), ("", ""), ("\nx", ""), (" a \n", " a ")] {
            assert_eq!(first_line(input.as_bytes()).unwrap(), password, "{input:?}");
        }
        assert!(message(first_line(&[0xff, 0xfe][..]).unwrap_err()).contains("standard input"));
    }
}
