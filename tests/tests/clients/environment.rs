//! The virtual environment with the clients, made once for each `tests/clients/requirements.txt` and Python, and reused by every run
//! after. Next: `suite.rs`.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::suite;

/// The interpreter that has the clients.
pub(crate) fn python() -> &'static Path {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PYTHON.get_or_init(ready).as_deref().unwrap_or_else(|error| panic!("{error}"))
}

/// The environment of today's requirements, made if it is not there.
fn ready() -> Result<PathBuf, String> {
    let requirements = suite::folder().join("requirements.txt");
    let mut hasher = DefaultHasher::new();
    fs::read(&requirements).unwrap().hash(&mut hasher);
    version()?.hash(&mut hasher);
    // Cargo's folder for files of tests, below its target directory.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("clients-{:016x}", hasher.finish()));
    if !folder.exists() {
        make(&folder, &requirements)?;
    }
    Ok(folder.join("bin/python"))
}

fn version() -> Result<String, String> {
    let script = "import sys; print(sys.version, sys.prefix); sys.exit(sys.version_info < (3, 11))";
    match Command::new("python3").args(["-c", script]).output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => {
            let found = String::from_utf8_lossy(&output.stdout);
            Err(format!("these tests run Python's database clients and need Python 3.11 or later; `python3` is {found}"))
        }
        Err(error) => Err(format!(
            "these tests run Python's database clients and need Python 3.11 or later, but `python3` does not run: {error}"
        )),
    }
}

/// Makes the environment beside its place and moves it there, so that one that is half made is never used. It may be moved because it is
/// used through its interpreter alone, which finds its packages from where it is.
fn make(folder: &Path, requirements: &Path) -> Result<(), String> {
    let unfinished = folder.with_extension(std::process::id().to_string());
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&unfinished))?;
    let mut install = Command::new(unfinished.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--requirement"]);
    let installed = run(install.arg(requirements)).and_then(|()| {
        let moved = fs::rename(&unfinished, folder);
        // Another process may have made it meanwhile.
        if folder.exists() { Ok(()) } else { moved.map_err(|error| format!("{} cannot be made: {error}", folder.display())) }
    });
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).unwrap();
    }
    installed
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?} does not run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    Err(format!("the Python clients cannot be installed; {command:?} failed:\n{said}"))
}
