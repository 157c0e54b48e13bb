//! The binary `clients`: the drivers and libraries that people connect with, from Python, against the program itself. The tests are
//! files of `tests/clients`, one test here for each; `environment.rs` installs what they need, `suite.rs` runs them.
//!
//! It needs Python 3.11 or later with `venv`, and the registry of its packages once.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code: a panic fails the test with its reason")]

mod environment;
#[path = "../cluster/program.rs"]
#[expect(dead_code, reason = "the binary `cluster` uses the rest")]
mod program;
mod suite;

use std::collections::BTreeSet;

/// Declares a test for each file, and the list of those files.
macro_rules! files {
    ($($test:ident: $file:literal,)*) => {
        const FILES: &[&str] = &[$($file),*];
        $(
            #[tokio::test]
            async fn $test() {
                suite::passes($file).await;
            }
        )*
    };
}

files! {
    drivers_send_what_they_sent_when_the_server_was_written_for_them: "test_recorder.py",
    a_driver_gets_the_rows_of_tpch_that_the_program_prints: "test_tpch.py",
    every_message_about_a_statement_has_its_one_schema: "test_schemas.py",
    every_type_arrives_as_it_was: "test_types.py",
    the_driver_of_adbc_does_all_that_it_can: "test_adbc.py",
    calls_without_a_driver_and_the_sequence_of_jdbc_are_answered: "test_flight.py",
    polars_and_pandas_read_and_write_frames: "test_frames.py",
    rows_that_are_sent_are_in_their_table_once_or_not_at_all: "test_ingest.py",
    plans_of_another_library_run_where_they_are_accepted: "test_substrait.py",
    users_log_in_over_tls: "test_login.py",
    the_readme_is_true_of_python: "test_readme.py",
}

#[test]
fn every_file_is_run() {
    let files = std::fs::read_dir(suite::folder()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let found = names.filter(|name| name.starts_with("test_")).collect::<BTreeSet<_>>();
    let listed = FILES.iter().map(|file| (*file).to_owned()).collect::<Vec<_>>();
    assert_eq!(found, listed.iter().cloned().collect::<BTreeSet<_>>());
    assert_eq!(found.len(), listed.len(), "a file is listed twice");
}
