//! The command line as people write it.

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn no_subcommand_is_a_shell_that_takes_its_flags() {
    let arguments = parse("windrow -c a -c b --format jsonl --timing json").expect("parses");
    assert!(arguments.command.is_none());
    assert_eq!(arguments.sql.commands, ["a", "b"]);
    assert_eq!(arguments.sql.format, Some(Format::Jsonl));
    assert_eq!(arguments.sql.timing, Some(Timing::Json));
}

#[test]
fn sql_takes_paths_and_sizes() {
    let arguments = parse("windrow sql a.csv b/ --slots 2 --memory-limit 2GB --keep-going").expect("parses");
    let Some(Command::Sql(sql)) = arguments.command else { panic!("not sql") };
    assert_eq!(sql.paths, ["a.csv", "b/"]);
    assert_eq!(sql.options.slots, Some(2));
    assert_eq!(sql.options.memory_limit, Some(2_000_000_000));
    assert!(sql.options.keep_going);
}

#[test]
fn the_lines_of_the_documentation_parse() {
    for line in [
        "windrow local --executors 2 --slots 1 --port 8815 --memory-limit 2GB",
        "windrow scheduler --bind 127.0.0.1:8815",
        "windrow executor --scheduler 127.0.0.1:8815 --slots 2 --memory-limit 4GB --spill-dir DIR --name a --bind 127.0.0.1:0 --advertise h:1 --insecure --supervised",
        "windrow status --connect grpc://127.0.0.1:8815 --json",
        "windrow tpch --scale 0.1 --output DIR --format csv --parts 3",
        "windrow bench tpch --data DIR --connect URL --queries 1,3 --runs 3 --output json",
        "windrow demo --scale 0.05 --keep",
        "windrow sql -f - --connect grpc://127.0.0.1:8815",
        "windrow certs init --output certs --host db.example.org --host 192.0.2.7",
        "windrow user add alice --role writer --users-file users --password-stdin",
        "windrow user remove alice --users-file users",
        "windrow user list --users-file users",
        "windrow token create etl --role admin --tokens-file tokens --expires 30d",
        "windrow secret create --output cluster.secret",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_as_usage() {
    for (line, kind) in [
        ("windrow lcoal", ErrorKind::InvalidSubcommand),
        ("windrow sql --fromat csv", ErrorKind::UnknownArgument),
        ("windrow sql --format xml", ErrorKind::InvalidValue),
        ("windrow sql --memory-limit lots", ErrorKind::ValueValidation),
        ("windrow sql --slots 0", ErrorKind::ValueValidation),
        ("windrow sql --slots 2 --connect grpc://h:1", ErrorKind::ArgumentConflict),
        ("windrow bench tpch --data d --queries 23", ErrorKind::ValueValidation),
        ("windrow executor", ErrorKind::MissingRequiredArgument),
        ("windrow user add alice --users-file users --password x", ErrorKind::UnknownArgument),
        ("windrow user add alice secret --users-file users", ErrorKind::UnknownArgument),
        ("windrow user add alice --users-file users --role king", ErrorKind::InvalidValue),
        ("windrow user add alice", ErrorKind::MissingRequiredArgument),
        ("windrow token create etl --tokens-file tokens --expires soon", ErrorKind::ValueValidation),
        ("windrow token create etl --tokens-file tokens --expires 0s", ErrorKind::ValueValidation),
        ("windrow secret create", ErrorKind::MissingRequiredArgument),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), kind, "{line}");
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn a_mistyped_subcommand_names_the_one_that_was_meant() {
    let text = parse("windrow lcoal").expect_err("no such subcommand").to_string();
    assert!(text.contains("local"), "{text}");
}

#[test]
fn help_shows_examples_before_flags() {
    let mut command = Arguments::command();
    command.build();
    let mut texts = vec![(String::from("windrow"), command.clone().term_width(100).render_long_help().to_string())];
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        texts.push((subcommand.get_name().to_owned(), subcommand.clone().term_width(100).render_long_help().to_string()));
    }
    for (name, text) in texts {
        if let Some(examples) = text.find("Examples:") {
            assert!(examples < text.find("Usage:").expect("usage"), "{text}");
        }
        insta::assert_snapshot!(format!("help_{name}"), text);
    }
}
