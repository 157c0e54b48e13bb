//! The binary `python`: the Python package, as `pip install` gives it to people. One test installs it into an environment that has nothing
//! but pip and runs the first example of its README; the other runs pytest over `python-bindings/tests`, beside the libraries that it
//! works with.
//!
//! It needs Python 3.11 or later with `venv`, and the registry of its packages once. Nothing is compiled that
//! `cargo build --workspace` with the same profile has not compiled.
#![expect(clippy::unwrap_used, reason = "test code: a panic fails the test with its reason")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use windrow_tests::python;

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("python-bindings")
}

/// Installs the package as it is now, with the artifacts of this build. One at a time: all write the wheel to the same place.
fn install(python: &Path) -> Result<(), String> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _alone = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut pip = python::pip(python, "install");
    // What cargo tells a test about its own crate would make build scripts run again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_", "CARGO_PRIMARY_"]
            .iter()
            .any(|start| text.starts_with(start))
        {
            pip.env_remove(&name);
        }
    }
    pip.args(["--force-reinstall", "--no-deps"]).arg(package()).env("CARGO_TARGET_DIR", temporary.parent().unwrap());
    if cfg!(debug_assertions) {
        pip.env("MATURIN_PEP517_ARGS", "--profile dev");
    }
    python::run(&mut pip)
}

/// What a command said, if it succeeded.
fn output(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?} does not run: {error}"))?;
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
    if output.status.success() { Ok(said) } else { Err(format!("{command:?} failed:\n{said}")) }
}

#[test]
fn one_command_installs_it_and_the_first_example_runs() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-clean");
    let python = python::empty(&folder).unwrap_or_else(|error| panic!("{error}"));
    install(&python).unwrap_or_else(|error| panic!("{error}"));
    let readme = fs::read_to_string(package().join("README.md")).unwrap();
    let example = readme.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let said = output(Command::new(&python).args(["-c", example])).unwrap_or_else(|error| panic!("{error}"));
    assert!(said.contains("square") && said.contains("25") && said.contains("5 rows"), "{said}");
    let said = output(Command::new(folder.join("bin/windrow")).args(["sql", "-c", "SELECT 6 * 7 AS x"]));
    assert!(said.as_ref().is_ok_and(|said| said.contains("42")), "{said:?}");
    let listed = output(Command::new(&python).args(["-m", "pip", "list", "--format", "freeze"])).unwrap();
    assert!(!listed.contains("pyarrow"), "it needs nothing else: {listed}");
}

#[test]
fn the_package_does_what_it_says() {
    let tests = package().join("tests");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let python = python::environment("python", &tests.join("requirements.txt"), folder).unwrap_or_else(|error| panic!("{error}"));
    install(&python).unwrap_or_else(|error| panic!("{error}"));
    let mut pytest = Command::new(&python);
    pytest
        .args(["-m", "pytest", "-p", "no:cacheprovider", "--color=no", "-ra", "--durations=10", "-o", "faulthandler_timeout=120"])
        .arg("--basetemp")
        .arg(folder.join("python-files"))
        .arg(&tests)
        // Not the source tree: what is installed is tested.
        .current_dir(&tests)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("WINDROW_URL")
        .env_remove("WINDROW_TOKEN");
    if let Err(error) = output(&mut pytest) {
        panic!("{error}");
    }
}
