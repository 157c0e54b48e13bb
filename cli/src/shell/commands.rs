//! What begins with a dot in the shell: help, listings, switches. None of it is SQL, and all of it has an SQL or command-line form.

use std::io::Write;
use std::path::Path;

use clap::ValueEnum;
use windrow::{Error, ErrorKind, Session, StatementText};
use windrow_core::error::nearest;

use super::complete::KnownNames;
use super::render::Format;
use super::validate;
use crate::end::End;
use crate::interrupt::Interrupt;
use crate::statement::{self, Manner};
use crate::{report, sql, status, terminal};

/// A dot command.
#[derive(Debug)]
pub(super) struct DotCommand {
    /// With its dot.
    pub(super) name: &'static str,
    argument: &'static str,
    help: &'static str,
}

/// All of them, in the order of `.help`.
pub(super) const COMMANDS: [DotCommand; 8] = [
    DotCommand { name: ".help", argument: "", help: "this list" },
    DotCommand { name: ".tables", argument: "[PATTERN]", help: "the tables, or those that contain the pattern" },
    DotCommand { name: ".schema", argument: "[TABLE]", help: "a table's columns and types, or all tables with their columns" },
    DotCommand { name: ".mode", argument: "[FORMAT]", help: "how rows are shown: table, csv, json, jsonl, markdown" },
    DotCommand { name: ".timer", argument: "[on|off]", help: "the line of rows and seconds after each query" },
    DotCommand { name: ".read", argument: "FILE", help: "run the statements of a file" },
    DotCommand { name: ".status", argument: "", help: "executors and jobs" },
    DotCommand { name: ".quit", argument: "", help: "leave; Ctrl-D does too" },
];

/// The arguments of `.mode`.
pub(super) const MODES: [&str; 5] = ["table", "csv", "json", "jsonl", "markdown"];

/// What the shell does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Asks for the next line.
    Prompt,
    /// Ends.
    Leave,
}

/// Runs one command line.
pub(super) async fn run(
    session: &Session,
    line: &str,
    manner: &mut Manner,
    names: &KnownNames,
    interrupt: &mut Interrupt,
) -> Result<Next, End> {
    if validate::leaves(line) {
        return Ok(Next::Leave);
    }
    let line = line.trim_end_matches(';').trim();
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = argument.trim();
    match name {
        ".quit" | ".exit" => return Ok(Next::Leave),
        ".help" => out(&help())?,
        ".tables" => {
            let found = session.names().await?;
            let wanted = found.tables.iter().map(|(name, _)| name).filter(|name| name.contains(argument));
            out(&wanted.map(|name| format!("{name}\n")).collect::<String>())?;
        }
        ".schema" if argument.is_empty() => {
            let found = session.names().await?;
            out(&found.tables.iter().map(|(name, columns)| format!("{name}({})\n", columns.join(", "))).collect::<String>())?;
        }
        ".schema" => {
            let text = format!("DESCRIBE {argument}");
            let manner = Manner { summary: false, ..manner.clone() };
            statement::run(session, &StatementText { text, line: 1, column: 1 }, &manner, interrupt).await?;
        }
        ".mode" => mode(argument, manner)?,
        ".timer" => timer(argument, manner)?,
        ".read" => {
            if argument.is_empty() {
                return Err(bad(".read needs the name of a file").into());
            }
            let path = argument.trim_matches('\'');
            let manner = Manner { name: path.to_owned(), ..manner.clone() };
            sql::script(session, &sql::read(Path::new(path))?, &manner, false, interrupt).await?;
        }
        ".status" => out(&status::text(&session.status().await?))?,
        _ => {
            let suggestion = nearest(name, COMMANDS.iter().map(|command| command.name));
            let error = bad(format!("no command '{name}'")).with_suggestion(suggestion).with_help(".help lists the commands");
            report::print(&error, None);
        }
    }
    names.refresh(session);
    Ok(Next::Prompt)
}

fn help() -> String {
    let mut text: String = COMMANDS
        .iter()
        .map(|command| format!("{:<22}{}\n", format!("{} {}", command.name, command.argument), command.help))
        .collect();
    text.push_str("\nSQL ends with `;`. A file is a table: SELECT * FROM 'data/*.parquet';\n");
    text
}

fn mode(argument: &str, manner: &mut Manner) -> Result<(), End> {
    if argument.is_empty() {
        let current = manner.format.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        return out(&format!("{current}\n"));
    }
    manner.format = Format::from_str(argument, true).map_err(|_unknown| {
        bad(format!("no mode '{argument}'"))
            .with_suggestion(nearest(argument, MODES))
            .with_help(format!("the modes are {}", MODES.join(", ")))
    })?;
    Ok(())
}

fn timer(argument: &str, manner: &mut Manner) -> Result<(), End> {
    manner.summary = match argument {
        "on" => true,
        "off" => false,
        "" => !manner.summary,
        _ => return Err(bad(format!("'{argument}' is neither on nor off")).into()),
    };
    terminal::note(if manner.summary { "the timer is on" } else { "the timer is off" });
    Ok(())
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidQuery, message)
}

fn out(text: &str) -> Result<(), End> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modes_are_the_formats() {
        let formats: Vec<String> = Format::value_variants()
            .iter()
            .filter_map(|format| format.to_possible_value())
            .map(|value| value.get_name().to_owned())
            .collect();
        assert_eq!(formats, MODES);
    }

    #[test]
    fn help_names_every_command() {
        let text = help();
        assert!(COMMANDS.iter().all(|command| text.contains(command.name) && text.contains(command.help)));
    }
}
