//! Who is let in, with the program itself: secrets that nobody sees, users, certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use windrow::{ErrorKind, LocalCluster};
use windrow_auth::{Passwords, Role, Tokens, file_of_port, make_development_ca};
use windrow_core::cases::Cases;
use windrow_tests::wait;

use crate::program::{self, LIMIT, Process};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}

/// Asks a scheduler something, with these variables in the environment.
fn ask(url: &str, more: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut arguments = vec!["sql", "--format", "csv", "--connect", url, "-c", "SELECT 41 + 1 AS n"];
    arguments.extend(more);
    // A home of its own, so that no secret of a local cluster is found.
    let home = program::scratch("somebody-else");
    program::command(&arguments).env("XDG_STATE_HOME", home).envs(variables.iter().copied()).output().unwrap()
}

fn is_answered(output: &Output) -> bool {
    output.status.code() == Some(0) && text(&output.stdout) == "n\n42\n"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m3_the_secret_is_seen_by_nobody_else() {
    let cluster = LocalCluster::builder().executors(2).slots(1).processes(program::path()).start().await.unwrap();
    let path = file_of_port(port_of(&cluster.url()));
    let secret = fs::read_to_string(&path).unwrap().trim().to_owned();
    assert!(secret.len() >= 43, "256 bits");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    for pid in cluster.pids().into_iter().flatten() {
        for about in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{about}")).unwrap();
            assert!(!text(&bytes).contains(&secret), "the secret is in the {about} of an executor");
        }
    }
    // The same user needs nothing; another one, who cannot read the file, is told what to do.
    let own = program::command(&["sql", "--format", "csv", "--connect", &cluster.url(), "-c", "SELECT 41 + 1 AS n"]);
    let mut own = own;
    assert!(is_answered(&own.output().unwrap()));
    let other = ask(&cluster.url(), &[], &[]);
    assert_eq!(other.status.code(), Some(3), "{}", text(&other.stderr));
    assert!(text(&other.stderr).contains("WINDROW_TOKEN"), "{}", text(&other.stderr));
    // A token opens it for others.
    let token = cluster.token().unwrap();
    assert!(is_answered(&ask(&cluster.url(), &[], &[("WINDROW_TOKEN", &token)])));
    cluster.shutdown().await;
    assert!(!path.exists(), "the secret goes with the cluster");
}

#[test]
fn security_m2_public_addresses_are_refused_for_every_role() {
    let mut cases = Cases::of("M2");
    let folder = program::scratch("m2");
    let ca = certificates(&folder, &["localhost"]);
    for bind in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:127.0.0.1]:0"] {
        for role in [&["scheduler"][..], &["executor", "--scheduler", "127.0.0.1:1"]] {
            let arguments = [role, &["--bind", bind]].concat();
            let output = program::run(&arguments, "");
            assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}: {:?}", output.status);
            let error = text(&output.stderr);
            assert!(error.contains("--tls-certificate") && error.contains("--insecure"), "{arguments:?}: {error}");
            cases.case(format!("{arguments:?}"));
        }
    }
    // A certificate without its key is half a setting.
    let output = program::run(&["scheduler", "--bind", "127.0.0.1:0", "--tls-certificate", &ca.certificate], "");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    cases.case("half a certificate");
    cases.are(9);
    // Who calls encrypted is called encrypted, wherever the certificate is named.
    let output = program::run(&["executor", "--scheduler", "127.0.0.1:1", "--tls-ca", &ca.ca], "");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    let error = text(&output.stderr);
    assert!(error.contains("security.tls_ca is set without security.tls_certificate"), "{error}");
}

#[test]
fn a_cluster_of_one_machine_needs_none_of_the_certificates_that_are_configured() {
    let folder = program::scratch("local-tls");
    let Certificates { ca, certificate, key } = certificates(&folder, &["localhost"]);
    let configured = [
        ("WINDROW_SECURITY__TLS_CERTIFICATE", certificate.as_str()),
        ("WINDROW_SECURITY__TLS_KEY", key.as_str()),
        ("WINDROW_SECURITY__TLS_CA", ca.as_str()),
    ];
    let arguments = ["local", "--port", "0", "--executors", "2", "--slots", "1", "--memory-limit", "256MB"];
    let (_local, url) = Process::listening_with(&arguments, &configured);
    let rows = [
        "sql",
        "--format",
        "csv",
        "--connect",
        &url,
        "-c",
        "SELECT sum(value) AS n FROM generate_series(1, 100000) WHERE value = 42",
    ];
    let output = program::command(&rows).output().unwrap();
    assert!(is_answered(&output), "{}", text(&output.stderr));
}

/// Paths of a development CA's files.
struct Certificates {
    ca: String,
    certificate: String,
    key: String,
}

fn certificates(folder: &Path, hosts: &[&str]) -> Certificates {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let folder: PathBuf = folder.join("certs");
    make_development_ca(&folder, &hosts).unwrap();
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    Certificates { ca: path("ca.pem"), certificate: path("server.pem"), key: path("server-key.pem") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m20_users_over_tls_with_executors_over_tls() {
    let folder = program::scratch("m20");
    let Certificates { ca, certificate, key } = certificates(&folder, &["localhost"]);
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (users, tokens, secret) = (file("users"), file("tokens"), file("secret"));
    Passwords::set(Path::new(&users), "ann", Role::Reader, "correct horse").unwrap();
    let token = Tokens::create(Path::new(&tokens), "robot", Role::Reader, None).unwrap();
    let security = ["--secret-file", &secret, "--tls-certificate", &certificate, "--tls-key", &key, "--tls-ca", &ca];
    let with = |head: &[&str]| head.iter().chain(&security).map(|&part| part.to_owned()).collect::<Vec<String>>();
    let scheduler = with(&["scheduler", "--bind", "127.0.0.1:0", "--users-file", &users, "--tokens-file", &tokens]);
    let scheduler: Vec<&str> = scheduler.iter().map(String::as_str).collect();
    let allowed = folder.to_string_lossy().into_owned();
    let (_scheduler, url) = Process::listening_with(&scheduler, &[("WINDROW_SECURITY__ALLOW_LOCAL", &allowed)]);
    let address = url.trim_start_matches("grpc://").to_owned();
    let members: Vec<Process> = ["one", "two"]
        .into_iter()
        .map(|name| {
            let executor =
                with(&["executor", "--scheduler", &address, "--name", name, "--slots", "1", "--memory-limit", "256MB"]);
            Process::silent(&executor.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .collect();
    let secure = format!("grpc+tls://ann@{address}");
    let password = [("WINDROW_PASSWORD", "correct horse")];
    assert!(
        is_answered(&ask(&secure, &["--tls-ca", &ca], &password)),
        "{}",
        text(&ask(&secure, &["--tls-ca", &ca], &password).stderr)
    );
    let anonymous = format!("grpc+tls://{address}");
    assert!(is_answered(&ask(&anonymous, &["--tls-ca", &ca], &[("WINDROW_TOKEN", &token)])));

    // Rows cross the encrypted shuffle between two executors.
    let login = windrow::Login { token: Some(token.clone()), ca: Some(PathBuf::from(&ca)), ..windrow::Login::default() };
    let options = windrow::ConnectOptions { url: Some(anonymous.clone()), login, ..windrow::ConnectOptions::default() };
    let session = options.connect().await.unwrap();
    let data = folder.join("rows.csv");
    let rows: String = (0..20_000).map(|n| format!("{n},{}\n", n % 7)).collect();
    fs::write(&data, format!("id,k\n{rows}")).unwrap();
    for setting in ["SET windrow.query.small_input = '0B'", "SET windrow.query.partitions = 5"] {
        session.sql(setting).await.unwrap().collect().await.unwrap();
    }
    wait::until("both executors", LIMIT, async || (session.status().await.unwrap().executors.len() == 2).then_some(())).await;
    let sql = format!("SELECT k, count(*), sum(id) FROM '{}' GROUP BY k", data.display());
    let batches = session.sql(&sql).await.unwrap().collect().await.unwrap();
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 7);
    // What is not listed is not there for those with a name.
    for place in ["/etc/passwd", "/etc/hostname"] {
        let error = session.sql(&format!("SELECT * FROM '{place}'")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{place}: {error}");
    }
    // And a reader changes nothing that others see.
    let create = format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{}'", data.display());
    assert_eq!(session.sql(&create).await.unwrap_err().kind, ErrorKind::Denied);
    drop(members);

    let mut cases = Cases::of("M20");
    let mut refused = |url: &str, more: &[&str], variables: &[(&str, &str)], says: &str| {
        cases.case(format!("{url} {more:?} {variables:?}"));
        let output = ask(url, more, variables);
        assert_ne!(output.status.code(), Some(0), "{url} {more:?}");
        let error = text(&output.stderr);
        assert!(error.contains(says), "{url} {more:?}: {error}");
        assert!(!error.contains("correct horse") && !error.contains(&token), "{error}");
    };
    let other = certificates(&folder.join("other"), &["localhost"]);
    let (trusted, foreign) = (["--tls-ca", ca.as_str()], ["--tls-ca", other.ca.as_str()]);
    refused(&secure, &trusted, &[("WINDROW_PASSWORD", "wrong")], "not logged in");
    refused(&secure, &trusted, &[], "WINDROW_PASSWORD");
    refused(&secure.replace("ann@", "bob@"), &trusted, &password, "not logged in");
    refused(&anonymous, &trusted, &[("WINDROW_TOKEN", "wt1.x.y")], "not logged in");
    refused(&anonymous, &trusted, &[], "WINDROW_TOKEN");
    refused(&secure, &foreign, &password, "not trusted");
    refused(&secure, &[], &password, "not trusted");
    refused(&format!("grpc://ann@{address}"), &[], &password, "grpc+tls");
    refused(&secure.replace("127.0.0.1", "127.0.0.2"), &trusted, &password, "127.0.0.2");
    cases.are(9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m5_an_executor_with_another_secret_ends_with_a_clear_error() {
    let folder = program::scratch("m5");
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (ours, others) = (file("ours"), file("others"));
    let (_scheduler, url) = Process::listening(&["scheduler", "--bind", "127.0.0.1:0", "--secret-file", &ours]);
    windrow_auth::ClusterKey::read_or_make(Path::new(&others)).unwrap();
    let address = url.trim_start_matches("grpc://");
    let output = program::run(&["executor", "--scheduler", address, "--secret-file", &others], "");
    assert_eq!(output.status.code(), Some(3), "{:?}", output.status);
    assert!(text(&output.stderr).contains("secret"), "{}", text(&output.stderr));
    let missing = program::run(&["executor", "--scheduler", address, "--secret-file", &file("none")], "");
    assert!(text(&missing.stderr).contains("none"), "{}", text(&missing.stderr));
    fs::set_permissions(&others, fs::Permissions::from_mode(0o644)).unwrap();
    let readable = program::run(&["executor", "--scheduler", address, "--secret-file", &others], "");
    assert!(text(&readable.stderr).contains("chmod"), "{}", text(&readable.stderr));
    let session = windrow::connect(Some(&url)).await.unwrap();
    assert!(session.status().await.unwrap().executors.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m7_a_query_is_seen_and_ended_by_its_owner_and_administrators_alone() {
    let folder = program::scratch("m7");
    let (tokens, secret) = (folder.join("tokens"), folder.join("secret").to_string_lossy().into_owned());
    let token = |name: &str, role| Tokens::create(&tokens, name, role, None).unwrap();
    let (ann, bob) = (token("ann", Role::Reader), token("bob", Role::Writer));
    let tokens_file = tokens.to_string_lossy().into_owned();
    let scheduler = ["scheduler", "--bind", "127.0.0.1:0", "--secret-file", &secret, "--tokens-file", &tokens_file];
    let (_scheduler, url) = Process::listening(&scheduler);
    let address = url.trim_start_matches("grpc://");
    let _executor = Process::silent(&["executor", "--scheduler", address, "--memory-limit", "256MB", "--secret-file", &secret]);
    let session = async |token: &str| {
        let login = windrow::Login { token: Some(token.to_owned()), ..windrow::Login::default() };
        let options = windrow::ConnectOptions { url: Some(url.clone()), login, ..windrow::ConnectOptions::default() };
        options.connect().await.unwrap()
    };
    let (hers, his) = (session(&ann).await, session(&bob).await);
    let owner = windrow::connect(Some(&url)).await.unwrap();
    let long = "SELECT count(*) FROM generate_series(1, 100000000000) AS t(x) WHERE x % 7 = 3 AND 'planted' = 'planted'";
    let query = hers.sql(long).await.unwrap();
    let id = wait::until("her query", LIMIT, async || Some(hers.status().await.unwrap().jobs.first()?.id.0)).await;
    assert!(his.status().await.unwrap().jobs.is_empty(), "he sees hers");
    assert_eq!(owner.status().await.unwrap().jobs.len(), 1);
    let seen = "SELECT count(*) FROM system.queries WHERE state = 'running'";
    for (session, count) in [(&hers, 1), (&his, 0), (&owner, 1)] {
        let batches = session.sql(seen).await.unwrap().collect().await.unwrap();
        assert_eq!(windrow_tests::rows::cells(&batches)[0][0].to_string(), count.to_string());
    }
    let (foreign, unknown) = (his.cancel(id).await.unwrap_err(), his.cancel(id + 1000).await.unwrap_err());
    assert_eq!((foreign.kind, &foreign.message), (unknown.kind, &unknown.message), "it is there for nobody else");
    let home = program::scratch("m7-home");
    let run = |arguments: &[&str], token: &str| {
        let mut command = program::command(arguments);
        text(&command.env("XDG_STATE_HOME", &home).env("WINDROW_TOKEN", token).output().unwrap().stdout)
    };
    let listed = run(&["queries", "--connect", &url], &ann);
    assert!(listed.contains("ann") && listed.contains("generate_series"), "{listed}");
    assert!(!run(&["queries", "--all", "--connect", &url], &bob).contains("generate_series"));
    assert!(run(&["cancel", &format!("job-{id}"), "--connect", &url], &ann).contains("is cancelled"));
    assert_eq!(query.collect().await.unwrap_err().kind, ErrorKind::Cancelled);
    assert!(!hers.cancel(id).await.unwrap(), "it is over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insecure_scheduler_asks_nobody() {
    let (_scheduler, url) = Process::listening(&["scheduler", "--bind", "127.0.0.1:0", "--insecure"]);
    let address = url.trim_start_matches("grpc://");
    let _executor = Process::silent(&["executor", "--scheduler", address, "--memory-limit", "256MB", "--insecure"]);
    assert!(is_answered(&ask(&url, &[], &[])));
    let refused = windrow::connect(Some("grpc://ann@127.0.0.1:1")).await.unwrap_err();
    assert_ne!(refused.kind, ErrorKind::Internal);
}
