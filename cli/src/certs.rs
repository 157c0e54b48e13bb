//! `windrow certs`: certificates for development.

use std::io::Write;
use std::path::Path;

use windrow_auth::{DevelopmentCa, make_development_ca};

use crate::args::{CertsAction, CertsArguments, CertsInitArguments};
use crate::end::End;
use crate::status;

/// Runs `windrow certs`.
pub(crate) fn run(arguments: CertsArguments) -> Result<(), End> {
    match arguments.action {
        CertsAction::Init(arguments) => {
            let files = init(&arguments)?;
            Ok(std::io::stdout().lock().write_all(text(&files).as_bytes())?)
        }
    }
}

fn init(arguments: &CertsInitArguments) -> Result<DevelopmentCa, End> {
    make_development_ca(&arguments.output, &arguments.hosts).map_err(End::starting)
}

/// What was made, and the settings that use it.
fn text(files: &DevelopmentCa) -> String {
    let shown = |path: &Path| path.display().to_string();
    let rows = [
        (&files.ca, "what clients and every process trust, for 5 years"),
        (&files.ca_key, "signs more certificates; keep it away from the cluster"),
        (&files.server, "the scheduler's certificate, for a year"),
        (&files.server_key, "its key"),
        (&files.executor, "the executors' certificate, for a year"),
        (&files.executor_key, "its key"),
    ];
    let mut text = status::columns(&["file", "for"], rows.iter().map(|(path, purpose)| vec![shown(path), (*purpose).to_owned()]));
    for (process, certificate, key) in
        [("scheduler", &files.server, &files.server_key), ("executor", &files.executor, &files.executor_key)]
    {
        text.push_str(&format!(
            "\n{process}:\n  WINDROW_SECURITY__TLS_CERTIFICATE={}\n  WINDROW_SECURITY__TLS_KEY={}\n  WINDROW_SECURITY__TLS_CA={}\n",
            shown(certificate),
            shown(key),
            shown(&files.ca)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_made_once_and_their_settings_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = CertsInitArguments { output: folder.path().join("certs"), hosts: vec!["db.example.org".to_owned()] };
        let files = init(&arguments).unwrap();
        let shown = text(&files);
        for path in [&files.ca, &files.ca_key, &files.server, &files.server_key, &files.executor, &files.executor_key] {
            assert!(path.is_file() && shown.contains(&path.display().to_string()), "{shown}");
        }
        for setting in ["TLS_CERTIFICATE", "TLS_KEY", "TLS_CA"] {
            assert_eq!(shown.matches(&format!("WINDROW_SECURITY__{setting}=")).count(), 2, "{shown}");
        }
        assert!(matches!(init(&arguments), Err(End::Failed(_))), "they are there");
    }

    #[test]
    fn what_is_no_host_is_a_matter_of_usage() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = CertsInitArguments { output: folder.path().join("certs"), hosts: vec!["grpc://db:8815".to_owned()] };
        assert!(matches!(init(&arguments), Err(End::Usage(_))));
        assert!(!arguments.output.exists());
    }
}
