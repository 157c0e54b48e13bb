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

/// Files that are not run yet, each with what it waits for.
const NOT_YET: [(&str, &str); 7] = [
    ("test_adbc.py", "bound parameters, `is_update`, session options, results that can be read again, cancel on drop"),
    ("test_flight.py", "the session actions, GetSchema and the server's information in full"),
    ("test_frames.py", "ingest and bound parameters"),
    ("test_ingest.py", "ingest"),
    ("test_login.py", "authentication"),
    ("test_schemas.py", "GetSchema, and one wire schema for every message about a statement"),
    ("test_types.py", "views as plain arrays"),
];

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
}

#[test]
fn every_file_is_run_or_says_why_not() {
    let files = std::fs::read_dir(suite::folder()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let found = names.filter(|name| name.starts_with("test_")).collect::<BTreeSet<_>>();
    let listed = FILES.iter().copied().chain(NOT_YET.iter().map(|(file, _)| *file)).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(found, listed.iter().cloned().collect::<BTreeSet<_>>());
    assert_eq!(found.len(), listed.len(), "a file is listed twice");
}
