//! What a policy lets through and what it refuses, by statements and by the stores themselves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use windrow_core::cases::Cases;
use windrow_core::config::QueryConfig;

use super::*;
use crate::session::{ClusterShape, PlannerSession, SessionOptions};

const SHAPE: ClusterShape = ClusterShape { executors: 1, slots: 1 };

/// A folder `root` that may be read and one beside it, `outside`, that may not.
struct Folders {
    folder: tempfile::TempDir,
}

impl Folders {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let folders = Self { folder };
        for file in ["root/data/a.csv", "root/data/b.csv", "root/hive/k=1/x.csv", "root/hive/k=2/x.csv", "outside/secret.csv"] {
            let path = folders.folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "a\n1\n").unwrap();
        }
        let (root, outside) = (folders.root(), folders.outside());
        fs::create_dir(root.join("linked")).unwrap();
        symlink(outside.join("secret.csv"), root.join("linked/secret.csv")).unwrap();
        symlink(outside.join("nothing.csv"), root.join("linked/dangling.csv")).unwrap();
        symlink(&outside, root.join("linked/folder")).unwrap();
        symlink(root.join("data/a.csv"), root.join("linked/a.csv")).unwrap();
        symlink(&root, root.join("linked/round")).unwrap();
        folders
    }

    fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("root")
    }

    fn outside(&self) -> std::path::PathBuf {
        self.folder.path().join("outside")
    }

    fn stores(&self) -> Arc<Stores> {
        let allow_stores = ["s3://bucket/a".to_owned(), "https://host.example/data".to_owned()];
        Arc::new(Stores::new(StorePolicy::from_lists(&[self.root()], &allow_stores).unwrap()))
    }

    fn session(&self, directory: &Path) -> PlannerSession {
        let query = QueryConfig { directory: directory.display().to_string(), ..QueryConfig::default() };
        PlannerSession::new(SessionOptions { query, stores: self.stores(), ..SessionOptions::default() }).unwrap()
    }
}

async fn error(session: &PlannerSession, sql: &str) -> Error {
    match session.plan(sql, SHAPE).await {
        Ok(planned) => panic!("{sql}: {planned:?}"),
        Err(error) => error,
    }
}

#[test]
fn stores_are_opened_once_and_not_without_end() {
    let stores = Stores::default();
    let get = |url: &str| stores.get_store(&Url::parse(url).unwrap());
    assert!(Arc::ptr_eq(&get("http://127.0.0.1:1/a/b.csv").unwrap(), &get("http://127.0.0.1:1/c.csv").unwrap()));
    for port in 1..200 {
        get(&format!("http://127.0.0.1:{port}/")).unwrap();
    }
    assert!(stores.opened.lock().len() <= OPEN_MAX);
    assert!(get("file:///tmp").is_ok());
    let error = get("ftp://host/file.csv").unwrap_err().to_string();
    assert!(error.contains("ftp://"), "{error}");
}

#[tokio::test]
async fn security_m10_places_outside_are_refused_alike_whether_something_is_there_or_not() {
    let folders = Folders::new();
    let (root, outside) = (folders.root().display().to_string(), folders.outside().display().to_string());
    let session = folders.session(&folders.root());
    let places = [
        "/etc/passwd".to_owned(),
        "/etc/".to_owned(),
        "/etc/*.csv".to_owned(),
        "/".to_owned(),
        "/*/x.csv".to_owned(),
        "/proc/self/environ".to_owned(),
        format!("/proc/self/root{root}/data/a.csv"),
        "/nowhere/x.csv".to_owned(),
        format!("{outside}/secret.csv"),
        format!("{outside}/nothing.csv"),
        format!("{outside}/*.csv"),
        format!("{root}*/secret.csv"),
        format!("{root}/../outside/secret.csv"),
        format!("{root}/data/../../outside/secret.csv"),
        format!("{root}/*/../../outside/secret.csv"),
        format!("{root}/linked/secret.csv"),
        format!("{root}/linked/dangling.csv"),
        format!("{root}/linked/folder/"),
        format!("{root}/linked/folder/secret.csv"),
        format!("{root}/linked/folder/nothing.csv"),
        format!("{root}/linked/folder/*.csv"),
        "../outside/secret.csv".to_owned(),
        "data/../../outside/secret.csv".to_owned(),
        format!("file://{outside}/secret.csv"),
        format!("file://{root}/../outside/secret.csv"),
        format!("file://{root}/%2e%2e/outside/secret.csv"),
        format!("file://{root}/..%2foutside/secret.csv"),
        format!("file://elsewhere{root}/data/a.csv"),
        "http://169.254.169.254/latest/meta-data/x.csv".to_owned(),
        "http://127.0.0.1:1/x.csv".to_owned(),
        "http://host.example/data/x.csv".to_owned(),
        "https://host.example/datas/x.csv".to_owned(),
        "https://host.example/data/../x.csv".to_owned(),
        "https://host.example/data/..%2fx.csv".to_owned(),
        "https://host.example@evil.example/data/x.csv".to_owned(),
        "https://host.example:8443/data/x.csv".to_owned(),
        "s3://bucket/ab/x.csv".to_owned(),
        "s3://bucket/x.csv".to_owned(),
        "s3://bucket/a/../x.csv".to_owned(),
        "s3://bucket/".to_owned(),
        "s3://other/a/x.csv".to_owned(),
        "gs://bucket/a/x.csv".to_owned(),
        "ftp://bucket/a/x.csv".to_owned(),
    ];
    let mut cases = Cases::of("M10");
    for place in &places {
        for sql in [
            format!("SELECT * FROM '{place}'"),
            format!("EXPLAIN ANALYZE SELECT * FROM '{place}'"),
            format!("SELECT 1 WHERE EXISTS (WITH x AS (SELECT * FROM '{place}') SELECT * FROM x)"),
            format!("CREATE VIEW v AS SELECT * FROM '{place}'"),
            format!("PREPARE p AS SELECT * FROM '{place}'"),
            format!("CREATE EXTERNAL TABLE t (a INT) STORED AS CSV LOCATION '{place}'"),
            format!("COPY (SELECT 1) TO '{place}' STORED AS CSV"),
        ] {
            let error = error(&session, &sql).await;
            assert_eq!(error.kind, ErrorKind::Denied, "{error}: {sql}");
            let list = if place.contains("://") && !place.starts_with("file") { "allow_stores" } else { "allow_local" };
            let what = if list == "allow_stores" { "prefix" } else { "folder" };
            let sentence =
                format!("'{place}' is not below a {what} that may be opened; an administrator can add one to security.{list}");
            assert_eq!(error.message, sentence, "{sql}");
            cases.case(sql);
        }
    }
    cases.are(43 * 7);
}

#[tokio::test]
async fn security_m10_a_directory_that_is_set_leads_nowhere_else() {
    let folders = Folders::new();
    let session = folders.session(&folders.root());
    session.plan("SELECT * FROM 'data/a.csv'", SHAPE).await.unwrap();
    for directory in [folders.outside(), folders.root().join(".."), folders.root().join("linked/folder")] {
        session.plan(&format!("SET windrow.query.directory = '{}'", directory.display()), SHAPE).await.unwrap();
        for sql in ["SELECT * FROM 'secret.csv'", "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'secret.csv'"] {
            let error = error(&session, sql).await;
            assert_eq!(error.kind, ErrorKind::Denied, "{error}");
            assert!(error.message.starts_with("'secret.csv' "), "{error}");
        }
    }
}

#[tokio::test]
async fn a_root_works_with_files_patterns_and_hive_folders() {
    let folders = Folders::new();
    let root = folders.root().display().to_string();
    let session = folders.session(Path::new(&root));
    for place in [
        format!("{root}/data/a.csv"),
        format!("{root}/data/"),
        format!("{root}/data/*.csv"),
        format!("{root}/hive/"),
        format!("{root}/linked/a.csv"),
        format!("file://{root}/data/a.csv"),
        "data/a.csv".to_owned(),
        "./data/*.csv".to_owned(),
    ] {
        session.plan(&format!("SELECT * FROM '{place}'"), SHAPE).await.unwrap();
        let create = format!("CREATE OR REPLACE EXTERNAL TABLE t STORED AS CSV LOCATION '{place}'");
        session.plan(&create, SHAPE).await.unwrap();
    }
    assert_eq!(session.schema("SELECT * FROM 'hive/'").await.unwrap().fields().len(), 2, "the partition column too");
    let error = error(&session, &format!("SELECT * FROM '{root}/data/nothing.csv'")).await;
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
}

fn at(path: &Path) -> ObjectPath {
    ObjectPath::from_absolute_path(path).unwrap()
}

/// What a store's error says, if it is the policy's.
fn is_denied<T: std::fmt::Debug>(result: &object_store::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| denial(error).is_some_and(|denied| denied.message.contains("administrator")))
}

#[tokio::test]
async fn security_m10_a_store_of_local_files_checks_every_call() {
    let folders = Folders::new();
    let (root, outside) = (folders.root(), folders.outside());
    let store = folders.stores().get_store(&Url::parse("file:///").unwrap()).unwrap();
    for path in [
        outside.join("secret.csv"),
        outside.join("nothing.csv"),
        root.join("linked/secret.csv"),
        root.join("linked/dangling.csv"),
        root.join("linked/folder/secret.csv"),
        root.join("linked/folder/nothing.csv"),
        "/proc/self/environ".into(),
    ] {
        let path = ObjectPath::from_url_path(path.display().to_string()).unwrap();
        assert!(is_denied(&store.get(&path).await), "{path}");
        assert!(is_denied(&store.head(&path).await), "{path}");
        assert!(is_denied(&store.get_range(&path, 0..1).await), "{path}");
        assert!(is_denied(&store.get_ranges(&path, std::slice::from_ref(&(0..1))).await), "{path}");
        assert!(is_denied(&store.put(&path, "x".into()).await), "{path}");
        assert!(is_denied(&store.put_multipart(&path).await), "{path}");
        assert!(is_denied(&store.copy(&path, &at(&root.join("data/copy.csv"))).await), "{path}");
        assert!(is_denied(&store.copy(&at(&root.join("data/a.csv")), &path).await), "{path}");
        assert!(is_denied(&store.rename(&at(&root.join("data/a.csv")), &path).await), "{path}");
    }
    for path in [outside.join("secret.csv"), root.join("linked/folder/secret.csv")] {
        let path = ObjectPath::from_url_path(path.display().to_string()).unwrap();
        assert!(is_denied(&store.delete(&path).await), "{path}");
        assert!(is_denied(&store.list(Some(&path)).try_collect::<Vec<_>>().await), "{path}");
        assert!(is_denied(&store.list_with_delimiter(Some(&path)).await), "{path}");
    }
    assert!(is_denied(&store.list(None).try_collect::<Vec<_>>().await));
    assert_eq!(fs::read_to_string(outside.join("secret.csv")).unwrap(), "a\n1\n");
    assert!(!outside.join("nothing.csv").exists());
}

#[tokio::test]
async fn listings_leave_out_what_leads_outside_and_end() {
    let folders = Folders::new();
    let root = folders.root();
    let store = folders.stores().get_store(&Url::parse("file:///").unwrap()).unwrap();
    let files: Vec<_> = store.list(Some(&at(&root))).try_collect().await.unwrap();
    let names: Vec<_> = files.iter().map(|file| format!("/{}", file.location)).collect();
    let expected: Vec<_> = ["data/a.csv", "data/b.csv", "hive/k=1/x.csv", "hive/k=2/x.csv", "linked/a.csv"]
        .iter()
        .map(|name| root.join(name).display().to_string())
        .collect();
    assert_eq!(names, expected);
    // What is listed is what object_store's own store says of it, so that planner and executor agree.
    let plain = object_store::local::LocalFileSystem::new();
    for file in &files {
        let itself = plain.head(&file.location).await.unwrap();
        assert_eq!((&itself.e_tag, itself.size, itself.last_modified), (&file.e_tag, file.size, file.last_modified));
        assert_eq!(store.head(&file.location).await.unwrap(), *file);
        assert_eq!(store.get_ranges(&file.location, &[0..1, 2..4]).await.unwrap(), ["a", "1\n"]);
        assert!(store.get_ranges(&file.location, std::slice::from_ref(&(2..5))).await.is_err());
    }
    let level = store.list_with_delimiter(Some(&at(&root.join("linked")))).await.unwrap();
    assert_eq!(level.objects.len(), 1, "{level:?}");
    let level = store.list_with_delimiter(Some(&at(&root))).await.unwrap();
    assert_eq!(level.common_prefixes.len(), 3, "{level:?}");
    assert!(store.list(Some(&at(&root.join("data")))).try_collect::<Vec<_>>().await.unwrap().len() == 2);
    let target = at(&root.join("data/new.csv"));
    store.put(&target, "a\n2\n".into()).await.unwrap();
    store.delete(&target).await.unwrap();
}

#[tokio::test]
async fn security_m10_a_pipe_in_a_root_holds_nothing_up() {
    let folders = Folders::new();
    let pipe = folders.root().join("data/pipe.csv");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let store = folders.stores().get_store(&Url::parse("file:///").unwrap()).unwrap();
    assert!(matches!(store.get(&at(&pipe)).await, Err(object_store::Error::NotFound { .. })));
}

#[tokio::test]
async fn security_m10_a_prefix_of_a_store_ends_at_a_path_boundary() {
    let folders = Folders::new();
    let stores = folders.stores();
    let bucket = Url::parse("s3://bucket").unwrap();
    let memory = Arc::new(InMemory::new());
    for path in ["a/x.csv", "ab/x.csv", "x.csv"] {
        memory.put(&path.into(), "a\n1\n".into()).await.unwrap();
    }
    stores.register_store(&bucket, Arc::clone(&memory) as Arc<dyn ObjectStore>);
    let store = stores.get_store(&bucket).unwrap();
    assert!(store.get(&"a/x.csv".into()).await.is_ok());
    assert_eq!(store.list(Some(&"a".into())).try_collect::<Vec<_>>().await.unwrap().len(), 1);
    for path in ["ab/x.csv", "x.csv", "nothing.csv"] {
        let path = ObjectPath::from(path);
        assert!(is_denied(&store.get(&path).await) && is_denied(&store.head(&path).await), "{path}");
        assert!(is_denied(&store.get_ranges(&path, std::slice::from_ref(&(0..1))).await), "{path}");
        assert!(is_denied(&store.put(&path, "x".into()).await) && is_denied(&store.put_multipart(&path).await), "{path}");
        assert!(is_denied(&store.delete(&path).await) && is_denied(&store.copy(&"a/x.csv".into(), &path).await), "{path}");
        assert!(is_denied(&store.rename(&path, &"a/y.csv".into()).await), "{path}");
        assert!(is_denied(&store.list(Some(&path)).try_collect::<Vec<_>>().await), "{path}");
    }
    assert!(is_denied(&store.list(None).try_collect::<Vec<_>>().await) && is_denied(&store.list_with_delimiter(None).await));
    assert_eq!(memory.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 3);
    assert!(stores.get_store(&Url::parse("s3://other").unwrap()).is_err());
}

#[test]
fn lists_that_do_not_fit_are_refused_with_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [folder.path().join("nothing"), file] {
        let error = StorePolicy::from_lists(std::slice::from_ref(&path), &[]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidConfig);
        assert!(error.message.contains("allow_local") && error.message.contains(&path.display().to_string()), "{error}");
    }
    for prefix in [
        "bucket/a",
        "ftp://host/a",
        "file:///tmp",
        "s3://",
        "https://",
        "https://*/a",
        "https://user:secret@host/a",
        "https://host/a?b=c",
        "s3://key@bucket/a",
    ] {
        let error = StorePolicy::from_lists(&[], &[prefix.to_owned()]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidConfig, "{prefix}");
        assert!(error.message.contains("allow_stores"), "{error}");
    }
    StorePolicy::from_lists(&[], &["abfss://container@account.dfs.core.windows.net/a".to_owned()]).unwrap();
}

/// Answers every request with a redirect to `target`, or with a file.
async fn server(target: Option<&'static str>) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = connection.read(&mut request).await.unwrap_or(0);
            let asks_for_start = String::from_utf8_lossy(&request[..length]).contains(" /data/start");
            let answer = match target.filter(|_| asks_for_start) {
                Some(target) => format!("HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
                None => "HTTP/1.1 200 OK\r\nlast-modified: Wed, 21 Oct 2015 07:28:00 GMT\r\ncontent-length: 4\r\nconnection: close\r\n\r\na\n1\n".to_owned(),
            };
            connection.write_all(answer.as_bytes()).await.ok();
        }
    });
    address
}

#[tokio::test]
async fn security_m10_redirects_stay_below_the_prefix() {
    for (target, is_followed) in [
        ("/data/other.csv", true),
        ("/elsewhere/other.csv", false),
        ("http://169.254.169.254/latest", false),
        ("/data/..%2fx", false),
    ] {
        let address = server(Some(target)).await;
        let base = format!("http://{address}");
        let stores = Stores::new(StorePolicy::from_lists(&[], &[format!("{base}/data")]).unwrap());
        let store = stores.get_store(&Url::parse(&base).unwrap()).unwrap();
        let answer = store.get(&"data/start".into()).await;
        assert_eq!(answer.is_ok(), is_followed, "{target}: {answer:?}");
        assert!(is_followed || is_denied(&answer), "{target}: {answer:?}");
        assert!(is_denied(&store.get(&"elsewhere/other.csv".into()).await));
    }
}
