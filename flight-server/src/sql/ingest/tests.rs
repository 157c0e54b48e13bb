//! Ingest through Flight SQL's own client: modes, columns by name, casts, and streams that break.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use arrow_flight::FlightDescriptor;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandStatementIngest, ProstMessageExt, TableDefinitionOptions};
use futures::{SinkExt, StreamExt, TryStreamExt};
use prost::Message;
use tonic::transport::Channel;
use windrow_auth::{Principal, Role};
use windrow_core::ErrorKind;
use windrow_executor::timer;
use windrow_planner::{IngestMode, IngestTarget, StorePolicy, Stores};

use crate::{Access, Coordinator, CoordinatorOptions, ExecutorOptions, ServeOptions, Server, serve};

const CREATE: (i32, i32) = (1, 1);
const APPEND: (i32, i32) = (2, 2);
const REPLACE: (i32, i32) = (1, 3);
const CREATE_APPEND: (i32, i32) = (1, 2);

struct Front {
    coordinator: Arc<Coordinator>,
    _server: Server,
    client: FlightSqlServiceClient<Channel>,
    channel: Channel,
    _folder: tempfile::TempDir,
}

impl Front {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = folder.path().display().to_string();
        let scheduler = windrow_core::config::SchedulerConfig { warehouse, ..Default::default() };
        let coordinator = Coordinator::start(CoordinatorOptions { scheduler, ..Default::default() }).unwrap();
        let options: ExecutorOptions = crate::testing::options("here");
        coordinator.add_local_executor(options).unwrap();
        let bind = "127.0.0.1:0".parse().unwrap();
        let server = serve(Arc::clone(&coordinator), ServeOptions { bind, access: Access::open() }).await.unwrap();
        let channel = Channel::from_shared(format!("http://{}", server.address())).unwrap().connect().await.unwrap();
        Self { coordinator, _server: server, client: FlightSqlServiceClient::new(channel.clone()), channel, _folder: folder }
    }

    async fn send(
        &mut self,
        (if_not_exist, if_exists): (i32, i32),
        batches: Vec<Result<RecordBatch, FlightError>>,
    ) -> Result<i64, String> {
        let command = command((if_not_exist, if_exists));
        self.client.execute_ingest(command, futures::stream::iter(batches)).await.map_err(|error| error.to_string())
    }

    /// Sends some batches and resets the request before its end.
    async fn send_and_break_off(&mut self, mode: (i32, i32)) {
        let (mut sender, batches) = futures::channel::mpsc::channel(0);
        let descriptor = FlightDescriptor::new_cmd(command(mode).as_any().encode_to_vec());
        let messages = FlightDataEncoderBuilder::new().with_flight_descriptor(Some(descriptor)).build(batches);
        let messages = messages.map(|message| message.unwrap());
        let mut client = FlightServiceClient::new(self.channel.clone());
        let call = tokio::spawn(async move { client.do_put(messages).await.map(drop) });
        for value in 100..110 {
            // Taken only when the connection asks for more.
            sender.send(batch(vec![("a", longs(&[value]))])).await.unwrap();
        }
        assert!(!call.is_finished(), "answered before the end");
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    }

    /// The rows of the table, as text.
    async fn rows(&mut self) -> String {
        let info = self.client.execute("SELECT * FROM sent ORDER BY a".to_owned(), None).await.unwrap();
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let rows: Vec<RecordBatch> = self.client.do_get(ticket).await.unwrap().try_collect().await.unwrap();
        let mut lines = Vec::new();
        for batch in rows {
            for row in 0..batch.num_rows() {
                let cells =
                    batch.columns().iter().map(|column| arrow::util::display::array_value_to_string(column, row).unwrap());
                lines.push(cells.collect::<Vec<_>>().join(","));
            }
        }
        lines.join(" ")
    }
}

fn command((if_not_exist, if_exists): (i32, i32)) -> CommandStatementIngest {
    CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions { if_not_exist, if_exists }),
        table: "sent".to_owned(),
        schema: None,
        catalog: None,
        temporary: false,
        transaction_id: None,
        options: Default::default(),
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, FlightError> {
    Ok(RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap())
}

fn longs(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_sent_are_in_the_table_all_or_none() {
    let mut front = Front::start().await;
    let first = || {
        vec![batch(vec![("a", longs(&[1, 2])), ("b", texts(&["x", "y"]))]), batch(vec![("a", longs(&[3])), ("b", texts(&["z"]))])]
    };
    assert!(front.send(APPEND, first()).await.is_err(), "there is no table yet");
    assert_eq!(front.send(CREATE, first()).await, Ok(3));
    assert_eq!(front.rows().await, "1,x 2,y 3,z");
    assert!(front.send(CREATE, first()).await.unwrap_err().contains("exists already"));
    // By name: columns in another order, one missing, one of a type that fits.
    assert_eq!(
        front.send(APPEND, vec![batch(vec![("b", texts(&["v"])), ("a", Arc::new(Int32Array::from(vec![4])))])]).await,
        Ok(1)
    );
    assert_eq!(front.send(CREATE_APPEND, vec![batch(vec![("a", longs(&[5]))])]).await, Ok(1));
    assert_eq!(front.rows().await, "1,x 2,y 3,z 4,v 5,");
    let unknown = front.send(APPEND, vec![batch(vec![("a", longs(&[6])), ("bb", texts(&["u"]))])]).await.unwrap_err();
    assert!(unknown.contains("'bb'"), "{unknown}");
    let lossy = front.send(APPEND, vec![batch(vec![("a", Arc::new(Float64Array::from(vec![6.5])))])]).await.unwrap_err();
    assert!(lossy.contains("cannot hold"), "{lossy}");
    assert!(front.send((0, 1), first()).await.is_err());
    assert_eq!(front.rows().await, "1,x 2,y 3,z 4,v 5,");
    // A request that is reset in its middle publishes nothing, not even a replacement.
    for mode in [APPEND, REPLACE, CREATE_APPEND, REPLACE] {
        front.send_and_break_off(mode).await;
        assert_eq!(front.rows().await, "1,x 2,y 3,z 4,v 5,");
    }
    assert_eq!(front.send(REPLACE, vec![batch(vec![("a", longs(&[8]))])]).await, Ok(1));
    assert_eq!(front.rows().await, "8");
    front.coordinator.shutdown().await;
}

/// What is below a folder, with the text of each file. What is removed while it is read is not in it.
fn contents(folder: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    fn there<T>(found: std::io::Result<T>) -> Option<T> {
        match found {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            found => Some(found.unwrap()),
        }
    }
    let mut found = Vec::new();
    for entry in there(std::fs::read_dir(folder)).into_iter().flatten().filter_map(there) {
        let Some(kind) = there(entry.file_type()) else { continue };
        if kind.is_dir() {
            found.extend(contents(&entry.path()));
        } else if kind.is_file() {
            found.extend(there(std::fs::read(entry.path())).map(|text| (entry.path(), text)));
        }
    }
    found.sort();
    found
}

/// Waits until files are gone.
async fn gone(is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            timer::sleep(Duration::from_millis(5)).await;
        }
    };
    timer::deadline(Duration::from_secs(10), waiting).await.expect("files are left");
}

async fn run(session: &crate::CoordinatorSession, sql: &str) -> windrow_core::Result<Vec<RecordBatch>> {
    session.execute(sql).await?.try_collect().await
}

/// Each way to write, by those who may not and to where nobody may: denied, and nothing has changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_writers_write_and_only_below_the_listed_folders() {
    let folder = tempfile::tempdir().unwrap();
    let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
    for path in [&root, &outside, &root.join("table")] {
        std::fs::create_dir(path).unwrap();
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
    let policy = StorePolicy::from_lists(std::slice::from_ref(&root), &[]).unwrap();
    let stores = Arc::new(Stores::new(policy));
    let scheduler = |warehouse: &std::path::Path| {
        let warehouse = warehouse.display().to_string();
        windrow_core::config::SchedulerConfig { warehouse, ..Default::default() }
    };
    let start = |warehouse: &std::path::Path| {
        let scheduler = scheduler(warehouse);
        let options = CoordinatorOptions { scheduler, stores: Arc::clone(&stores), ..Default::default() };
        let coordinator = Coordinator::start(options).unwrap();
        coordinator.add_local_executor(crate::testing::options("here")).unwrap();
        coordinator
    };
    let (inside, led_out) = (start(&root.join("tables")), start(&outside));
    let session = async |coordinator: &Arc<Coordinator>, role| {
        let session = coordinator.open_session_for(&Principal::client("ann", role), &[]).await.unwrap();
        session.set_directory(&root.display().to_string()).await.unwrap();
        session
    };
    let create = format!("CREATE EXTERNAL TABLE shared (a BIGINT) STORED AS PARQUET LOCATION '{}/table/'", root.display());
    let insert = "INSERT INTO shared VALUES (1)";
    let copy = |to: &str| format!("COPY (SELECT 1 AS a) TO '{to}' STORED AS PARQUET");
    let target = |mode, temporary| IngestTarget { catalog: None, schema: None, table: "sent".to_owned(), temporary, mode };
    let one = || batch(vec![("a", longs(&[1]))]).unwrap();
    let send = async |session: &crate::CoordinatorSession, mode, temporary| {
        let rows = futures::stream::iter([Ok(one())]);
        session.ingest(target(mode, temporary), one().schema(), rows).await
    };

    let writer = session(&inside, Role::Writer).await;
    run(&writer, &create).await.unwrap();
    run(&writer, insert).await.unwrap();
    run(&writer, &copy("copied/")).await.unwrap();
    run(&writer, "CREATE TABLE made AS SELECT 1 AS a").await.unwrap();
    assert_eq!(send(&writer, IngestMode::Create, false).await.unwrap(), 1);
    let rows = run(
        &writer,
        "SELECT a FROM shared UNION ALL SELECT a FROM made UNION ALL SELECT a FROM sent UNION ALL SELECT a FROM 'copied/'",
    );
    assert_eq!(rows.await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
    let before = contents(folder.path());
    assert!(before.iter().all(|(path, _)| path.starts_with(&root)), "{before:?}");

    let reader = session(&inside, Role::Reader).await;
    let replace = "COPY (SELECT 2 AS a) TO 'copied/' STORED AS PARQUET OPTIONS (overwrite true)";
    for sql in [insert, &copy("new/"), replace, "CREATE TABLE new AS SELECT 1 AS a", "INSERT INTO 'copied/' VALUES (1)"] {
        let error = run(&reader, sql).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{sql}: {error}");
    }
    for mode in [IngestMode::Create, IngestMode::Append, IngestMode::Replace, IngestMode::CreateAppend] {
        assert_eq!(send(&reader, mode, false).await.unwrap_err().kind, ErrorKind::Denied, "{mode:?}");
    }
    // What is added to may be a table over files of others.
    for mode in [IngestMode::Append, IngestMode::CreateAppend] {
        assert_eq!(send(&reader, mode, true).await.unwrap_err().kind, ErrorKind::Denied, "{mode:?}");
    }
    assert!(contents(folder.path()) == before, "a reader has changed something");
    // A temporary table is the reader's own, and hides the shared one; its files go with the session.
    for mode in [IngestMode::Create, IngestMode::Replace] {
        assert_eq!(send(&reader, mode, true).await.unwrap(), 1, "{mode:?}");
    }
    run(&reader, "CREATE TEMPORARY TABLE chosen AS SELECT a FROM shared").await.unwrap();
    let rows = run(&reader, "SELECT a FROM sent UNION ALL SELECT a FROM temp.sent UNION ALL SELECT a FROM chosen").await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    assert_eq!(run(&writer, "SELECT a FROM temp.sent").await.unwrap_err().kind, ErrorKind::NotFound);
    assert!(contents(folder.path()) != before);
    drop(reader);
    gone(async || contents(folder.path()) == before).await;
    // So do the files of a table that is dropped or replaced.
    run(&writer, "CREATE SCHEMA s").await.unwrap();
    for sql in ["CREATE TABLE s.t AS SELECT 1 AS a", "CREATE OR REPLACE TABLE s.t AS SELECT 2 AS a", "CREATE TABLE s.u (a INT)"] {
        run(&writer, sql).await.unwrap();
    }
    run(&writer, "DROP TABLE s.u").await.unwrap();
    run(&writer, "DROP SCHEMA s CASCADE").await.unwrap();
    gone(async || contents(folder.path()) == before).await;

    let admin = session(&inside, Role::Admin).await;
    let file = format!("file://{}/x/", outside.display());
    for to in [
        &format!("{}/", outside.display()),
        &format!("{}/x.parquet", outside.display()),
        "../outside/",
        "link/x/",
        &file,
        "s3://bucket/x/",
    ] {
        let error = run(&admin, &copy(to)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{to}: {error}");
        let error = run(&admin, &format!("EXPLAIN {}", copy(to))).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{to}: {error}");
    }
    let error = run(&admin, &create.replace("root/table/", "outside/")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    let astray = session(&led_out, Role::Admin).await;
    let error = run(&astray, "CREATE TABLE made AS SELECT 1 AS a").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    assert!(error.message.contains("folder for new tables"), "{error}");
    assert_eq!(send(&astray, IngestMode::Create, false).await.unwrap_err().kind, ErrorKind::Denied);
    assert!(contents(folder.path()) == before, "something was written where nothing may be");
    for coordinator in [inside, led_out] {
        coordinator.shutdown().await;
    }
}
