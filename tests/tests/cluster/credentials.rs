//! The subcommands that make credentials, as scripts use them: what they write, for whom, and that they tell no secret.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use crate::program;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Both outputs of a run that went well.
fn done(output: &Output) -> (String, String) {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn users_come_from_a_pipe_or_a_variable_and_are_listed() {
    let folder = program::scratch("users");
    let file = folder.join("users");
    let path = file.to_str().unwrap();
    let piped =
        program::run(&["user", "add", "alice", "--role", "writer", "--users-file", path, "--password-stdin"], "correct horse\n");
    assert!(done(&piped).1.contains("added alice (writer)"));
    let by_variable =
        program::command(&["user", "add", "bob", "--users-file", path]).env("WINDROW_PASSWORD", "battery").output().unwrap();
    assert!(done(&by_variable).1.contains("added bob (reader)"));
    assert_eq!(mode(&file), 0o600);
    let content = fs::read_to_string(&file).unwrap();
    assert!(
        content.lines().all(|line| line.contains(":$argon2id$")) && !content.contains("correct") && !content.contains("battery")
    );
    // The setting says where they are, too.
    let listed = program::command(&["user", "list"]).env("WINDROW_SECURITY__USERS_FILE", path).output().unwrap();
    assert_eq!(done(&listed).0, "name   role\nalice  writer\nbob    reader\n");
    done(&program::run(&["user", "remove", "alice", "--users-file", path], ""));
    assert_eq!(done(&program::run(&["user", "list", "--users-file", path], "")).0, "name  role\nbob   reader\n");
    let again = program::run(&["user", "remove", "alice", "--users-file", path], "");
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("no user 'alice'"), "{}", text(&again.stderr));
}

#[test]
fn a_password_that_is_none_and_a_file_that_others_read_are_refused() {
    let folder = program::scratch("users_refused");
    let file = folder.join("users");
    let path = file.to_str().unwrap();
    let add = || program::run(&["user", "add", "alice", "--users-file", path, "--password-stdin"], "\n");
    assert_eq!(add().status.code(), Some(2));
    assert!(!file.exists());
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = add();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("chmod 600"), "{}", text(&refused.stderr));
}

#[test]
fn a_token_is_printed_once_and_alone() {
    let folder = program::scratch("tokens");
    let file = folder.join("tokens");
    let create = ["token", "create", "etl", "--role", "writer", "--expires", "30d", "--tokens-file", file.to_str().unwrap()];
    let (out, err) = done(&program::run(&create, ""));
    let token = out.trim_end();
    let secret = token.rsplit('.').next().unwrap();
    assert!(token.starts_with("wt1.") && out.lines().count() == 1 && secret.len() == 43, "{out}");
    let content = fs::read_to_string(&file).unwrap();
    assert!(content.contains(":etl:writer:") && !content.contains(secret) && !err.contains(secret), "{content}{err}");
    assert_eq!(mode(&file), 0o600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_token_is_refused_without_a_restart() {
    let folder = program::scratch("removed-token");
    let (tokens, secret) = (folder.join("tokens"), folder.join("secret"));
    let (tokens, secret) = (tokens.to_str().unwrap(), secret.to_str().unwrap());
    let token = |arguments: &[&str]| done(&program::run(&[&["token"], arguments, &["--tokens-file", tokens]].concat(), ""));
    let create = |name: &str| token(&["create", name]).0.trim_end().to_owned();
    let (robot, other) = (create("robot"), create("other"));
    let scheduler = ["scheduler", "--bind", "127.0.0.1:0", "--secret-file", secret, "--tokens-file", tokens];
    let (_scheduler, url) = program::Process::listening(&scheduler);
    let ask = |token: &str| {
        let mut command = program::command(&["status", "--connect", &url]);
        command.env("XDG_STATE_HOME", &folder).env("WINDROW_TOKEN", token).output().unwrap().status.code()
    };
    assert_eq!((ask(&robot), ask(&other)), (Some(0), Some(0)));
    let (listed, _) = token(&["list"]);
    assert!(listed.contains("robot  reader") && listed.contains("never") && listed.lines().count() == 3, "{listed}");
    assert!(!listed.contains(robot.rsplit('.').next().unwrap()), "{listed}");
    let (_, said) = token(&["remove", "robot"]);
    assert!(said.contains("removed 1 token of robot"), "{said}");
    let refused = async || (ask(&robot) == Some(3)).then_some(());
    windrow_tests::wait::until("the scheduler's refusal", program::LIMIT, refused).await;
    assert_eq!(ask(&other), Some(0));
    let again = program::run(&["token", "remove", "robot", "--tokens-file", tokens], "");
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("no token of 'robot'"), "{}", text(&again.stderr));
}

#[test]
fn a_secret_is_made_for_its_owner_and_never_replaced_or_shown() {
    let folder = program::scratch("secret");
    let file = folder.join("cluster.secret");
    let create = ["secret", "create", "--output", file.to_str().unwrap()];
    let (out, err) = done(&program::run(&create, ""));
    let secret = fs::read_to_string(&file).unwrap();
    assert!(secret.trim().len() == 43 && out.is_empty() && !err.contains(secret.trim()), "{out}{err}");
    assert_eq!(mode(&file), 0o600);
    let again = program::run(&create, "");
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("is there already"), "{}", text(&again.stderr));
    assert_eq!(fs::read_to_string(&file).unwrap(), secret);
}

#[test]
fn certificates_are_made_with_private_keys() {
    let folder = program::scratch("certificates");
    let output = folder.join("certs");
    let init = ["certs", "init", "--host", "db.example.org", "--output", output.to_str().unwrap()];
    let (out, _) = done(&program::run(&init, ""));
    for name in ["ca", "server", "executor"] {
        let (certificate, key) = (output.join(format!("{name}.pem")), output.join(format!("{name}-key.pem")));
        assert!(fs::read_to_string(&certificate).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
        assert_eq!(mode(&key), 0o600);
        assert!(out.contains(certificate.to_str().unwrap()) && out.contains(key.to_str().unwrap()), "{out}");
    }
    assert_eq!(program::run(&init, "").status.code(), Some(1), "nothing is overwritten");
    assert_eq!(program::run(&["certs", "init", "--host", "https://x", "--output", "unused"], "").status.code(), Some(2));
}
