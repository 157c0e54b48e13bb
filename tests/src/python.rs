//! Virtual environments of Python: made once for what is to be in them, and reused.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The interpreter of an environment in `folder` that has what `requirements` lists, made if it is not there.
///
/// # Errors
/// Why there is none, for whoever reads the test's output.
pub fn environment(name: &str, requirements: &Path, folder: &Path) -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    fs::read(requirements).map_err(|error| format!("{}: {error}", requirements.display()))?.hash(&mut hasher);
    version()?.hash(&mut hasher);
    let folder = folder.join(format!("{name}-{:016x}", hasher.finish()));
    if !folder.exists() {
        make(&folder, requirements)?;
    }
    Ok(folder.join("bin/python"))
}

/// Makes an environment with nothing but pip in `folder`, in place of one that may be there, and returns its interpreter.
///
/// # Errors
/// As [`environment`].
pub fn empty(folder: &Path) -> Result<PathBuf, String> {
    version()?;
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
    Ok(folder.join("bin/python"))
}

/// pip of the environment of an interpreter, to be completed and run.
#[must_use]
pub fn pip(python: &Path, command: &str) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", command, "--quiet", "--no-input", "--disable-pip-version-check"]);
    pip
}

fn version() -> Result<String, String> {
    let script = "import sys; print(sys.version, sys.prefix); sys.exit(sys.version_info < (3, 11))";
    match Command::new("python3").args(["-c", script]).output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => {
            let found = String::from_utf8_lossy(&output.stdout);
            Err(format!("these tests need Python 3.11 or later; `python3` is {found}"))
        }
        Err(error) => Err(format!("these tests need Python 3.11 or later, but `python3` does not run: {error}")),
    }
}

/// Makes the environment beside its place and moves it there, so that one that is half made is never used. It may be moved because it is
/// used through its interpreter alone, which finds its packages from where it is.
fn make(folder: &Path, requirements: &Path) -> Result<(), String> {
    let unfinished = folder.with_extension(std::process::id().to_string());
    let python = empty(&unfinished)?;
    let installed = run(pip(&python, "install").arg("--requirement").arg(requirements)).and_then(|()| {
        let moved = fs::rename(&unfinished, folder);
        // Another process may have made it meanwhile.
        if folder.exists() { Ok(()) } else { moved.map_err(|error| format!("{} cannot be made: {error}", folder.display())) }
    });
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(|error| format!("{}: {error}", unfinished.display()))?;
    }
    installed
}

/// Runs a command to its end.
///
/// # Errors
/// What it said, if it failed.
pub fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?} does not run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    Err(format!("{command:?} failed:\n{said}"))
}
