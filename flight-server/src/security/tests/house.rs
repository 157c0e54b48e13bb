//! A server with users, files and an executor, for tests that go through all of it.

use std::path::PathBuf;

use arrow::record_batch::RecordBatch;
use arrow_flight::{Action, FlightInfo};
use windrow_planner::{StorePolicy, Stores};

use super::*;
use crate::testing::cut_everything;

/// The password of ann. The others come with logins that were handed out before.
pub(super) const PASSWORD: &str = "planted-password";

/// A secret value in a statement's option.
pub(super) const OPTION: &str = "planted-option";

/// A server with users, an executor, and files below one folder.
pub(super) struct House {
    pub(super) key: ClusterKey,
    pub(super) folder: tempfile::TempDir,
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) server: Server,
}

impl House {
    pub(super) async fn open() -> Self {
        Self::open_with(CoordinatorOptions::default()).await
    }

    pub(super) async fn open_with(options: CoordinatorOptions) -> Self {
        let (key, folder) = (ClusterKey::random(), tempfile::tempdir().unwrap());
        let file = |name: &str| Some(folder.path().join(name));
        let config = SecurityConfig {
            users_file: file("users"),
            tokens_file: file("tokens"),
            audit_log: file("audit"),
            ..SecurityConfig::default()
        };
        let users = config.users_file.as_ref().unwrap();
        Passwords::set(users, "ann", Role::Reader, PASSWORD).unwrap();
        Tokens::create(config.tokens_file.as_ref().unwrap(), "robot", Role::Reader, None).unwrap();
        let root = folder.path().join("data");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("rows.csv"), "a,b\n1,x\n2,y\n3,z\n").unwrap();
        let stores = Arc::new(Stores::new(StorePolicy::from_lists(&[root], &[]).unwrap()));
        let coordinator = Coordinator::start(CoordinatorOptions { query: cut_everything(2), stores, ..options }).unwrap();
        coordinator.add_local_executor(crate::testing::options("house")).unwrap();
        let access = Access::configured(key.clone(), &config).unwrap().audited(&config).unwrap();
        let options = ServeOptions { bind: "127.0.0.1:0".parse().unwrap(), access };
        let server = serve(Arc::clone(&coordinator), options).await.unwrap();
        Self { key, folder, coordinator, server }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A bearer token of somebody, each with a session of its own.
    pub(super) fn token(&self, name: &str, role: Role) -> String {
        let session = windrow_core::rand::unique().max(1);
        Logins::new(&self.key).issue(&Principal::client(name, role), session, Duration::from_secs(600), unix_millis()).unwrap()
    }

    pub(super) async fn client(&self, name: &str, role: Role) -> Guest {
        let mut client = FlightSqlServiceClient::new(channel(&self.server).await);
        client.set_token(self.token(name, role));
        Guest { client }
    }

    /// Another client is served, whatever was done to the server before.
    pub(super) async fn still_answers(&self, after: &str) {
        let mut other = self.client("somebody-else", Role::Reader).await;
        let rows = timer::deadline(PATIENCE, other.rows("SELECT 1")).await;
        assert_eq!(rows.expect("an answer in time").unwrap_or_else(|error| panic!("after {after}: {error}")), 1, "after {after}");
    }

    /// The audit log's lines so far.
    pub(super) async fn lines(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.folder.path().join("audit")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The text of the log, once it has `count` lines.
    pub(super) async fn log(&self, count: usize) -> String {
        let path = self.folder.path().join("audit");
        let read = || std::fs::read_to_string(&path).unwrap();
        crate::testing::eventually(&format!("{count} lines"), || read().lines().count() >= count).await;
        read()
    }
}

/// A client of Flight SQL with a login.
pub(super) struct Guest {
    pub(super) client: FlightSqlServiceClient<Channel>,
}

impl Guest {
    pub(super) async fn info(&mut self, sql: &str) -> Result<FlightInfo, Status> {
        self.client.execute(sql.to_owned(), None).await.map_err(status_of)
    }

    pub(super) async fn read(&mut self, info: FlightInfo) -> Result<Vec<RecordBatch>, Status> {
        let mut all = Vec::new();
        for endpoint in info.endpoint {
            let batches = self.client.do_get(endpoint.ticket.unwrap()).await.map_err(status_of)?;
            let batches: Vec<RecordBatch> = batches.try_collect().await.map_err(status_of)?;
            all.extend(batches);
        }
        Ok(all)
    }

    /// How many rows a statement has.
    pub(super) async fn rows(&mut self, sql: &str) -> Result<usize, Status> {
        let info = self.info(sql).await?;
        Ok(self.read(info).await?.iter().map(RecordBatch::num_rows).sum())
    }

    pub(super) async fn update(&mut self, sql: &str) -> Result<i64, Status> {
        self.client.execute_update(sql.to_owned(), None).await.map_err(status_of)
    }

    pub(super) async fn act(&mut self, name: &str, body: impl Into<bytes::Bytes>) -> Result<Vec<bytes::Bytes>, Status> {
        let mut request = Request::new(Action { r#type: name.to_owned(), body: body.into() });
        request.metadata_mut().insert("authorization", self.bearer());
        self.client.inner_mut().do_action(request).await?.into_inner().map_ok(|result| result.body).try_collect().await
    }

    /// Its credential as a header.
    pub(super) fn bearer(&self) -> MetadataValue<Ascii> {
        format!("Bearer {}", self.client.token().unwrap()).parse().unwrap()
    }

    /// The error of a statement that must fail.
    pub(super) async fn error(&mut self, sql: &str) -> windrow_core::Error {
        match self.rows(sql).await {
            Ok(rows) => panic!("{rows} rows: {sql}"),
            Err(status) => crate::wire::from_status(&status),
        }
    }
}

pub(super) fn status_of(error: arrow_flight::error::FlightError) -> Status {
    match error {
        arrow_flight::error::FlightError::Tonic(status) => *status,
        other => Status::unknown(other.to_string()),
    }
}
