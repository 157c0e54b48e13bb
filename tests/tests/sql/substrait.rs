//! Substrait plans that DataFusion makes of a text, sent through Flight SQL: their rows are those of the text on one node.

use std::path::PathBuf;

use arrow::record_batch::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandStatementSubstraitPlan, ProstMessageExt, SubstraitPlan};
use arrow_flight::{FlightDescriptor, FlightInfo, PollInfo, SchemaResult};
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion_substrait::logical_plan::producer::to_substrait_plan;
use futures::TryStreamExt;
use prost::Message;
use tokio::sync::OnceCell;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use windrow::LocalCluster;
use windrow_core::config::Config;
use windrow_tests::rows::Answer;
use windrow_tests::{engine, fixtures, oracle, tpch};

const SCALE: f64 = 0.01;

async fn folder() -> &'static PathBuf {
    static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();
    FOLDER
        .get_or_init(|| async {
            let folder = fixtures::scratch(env!("CARGO_TARGET_TMPDIR"), "substrait");
            tpch::write(&folder, SCALE, &[]);
            folder
        })
        .await
}

/// A cluster with the tables of TPC-H whose every query is cut into three partitions, and a connection to it.
struct Server {
    cluster: LocalCluster,
    flight: FlightServiceClient<Channel>,
    token: MetadataValue<Ascii>,
}

impl Server {
    async fn start(accept_plans: bool) -> Self {
        let mut config = Config::default();
        config.security.accept_plans = accept_plans;
        config.query.partitions = 3;
        config.query.small_input = "0B".parse().unwrap();
        let builder = LocalCluster::builder().config(config).executors(2).slots(1).memory_limit(engine::MEMORY);
        let cluster = builder.in_process().start().await.unwrap();
        let session = cluster.session().await.unwrap();
        for table in tpch::TABLES {
            let location = folder().await.join(table);
            let sql = format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{}/'", location.display());
            engine::run(&session, &sql).await.unwrap();
        }
        let endpoint = Endpoint::from_shared(cluster.url().replace("grpc://", "http://")).unwrap();
        let token = format!("Bearer {}", cluster.token().unwrap()).parse().unwrap();
        Self { flight: FlightServiceClient::new(endpoint.connect().await.unwrap()), token, cluster }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.token.clone());
        request
    }

    async fn info(&self, plan: &[u8]) -> std::result::Result<FlightInfo, Status> {
        Ok(self.flight.clone().get_flight_info(self.request(command(plan))).await?.into_inner())
    }

    async fn schema(&self, plan: &[u8]) -> std::result::Result<SchemaResult, Status> {
        Ok(self.flight.clone().get_schema(self.request(command(plan))).await?.into_inner())
    }

    async fn poll(&self, descriptor: FlightDescriptor) -> std::result::Result<PollInfo, Status> {
        Ok(self.flight.clone().poll_flight_info(self.request(descriptor)).await?.into_inner())
    }

    async fn rows(&self, info: FlightInfo) -> std::result::Result<Answer, Status> {
        let schema = std::sync::Arc::new(info.clone().try_decode_schema().unwrap());
        let mut batches: Vec<RecordBatch> = Vec::new();
        for endpoint in info.endpoint {
            let stream = self.flight.clone().do_get(self.request(endpoint.ticket.unwrap())).await?.into_inner();
            let rows = FlightRecordBatchStream::new_from_flight_data(stream.map_err(Into::into));
            batches.extend(rows.try_collect::<Vec<_>>().await.map_err(|error| Status::internal(error.to_string()))?);
        }
        Ok(Answer::new(&schema, &batches))
    }

    async fn end(self) {
        drop(self.flight);
        self.cluster.shutdown().await;
    }
}

fn command(plan: &[u8]) -> FlightDescriptor {
    let plan = Some(SubstraitPlan { plan: plan.to_vec().into(), version: String::new() });
    FlightDescriptor::new_cmd(CommandStatementSubstraitPlan { plan, transaction_id: None }.as_any().encode_to_vec())
}

/// The plan of a text, as it is written or as DataFusion has optimized it.
async fn produced(oracle: &SessionContext, sql: &str, optimized: bool) -> Result<Vec<u8>> {
    let plan: LogicalPlan = oracle.state().create_logical_plan(sql).await?;
    let plan = if optimized { oracle.state().optimize(&plan)? } else { plan };
    Ok(to_substrait_plan(&plan, &oracle.state())?.encode_to_vec())
}

async fn expected(oracle: &SessionContext, sql: &str) -> Answer {
    let (schema, batches) = oracle::run(oracle, sql).await.unwrap();
    comparable(sql, Answer::new(&schema, &batches))
}

/// Names and rows: drivers get views of texts as texts. Only an ORDER BY gives rows an order.
fn comparable(sql: &str, mut answer: Answer) -> Answer {
    answer.columns.iter_mut().for_each(|(_, kind)| *kind = arrow::datatypes::DataType::Null);
    let end = sql.rsplit(')').next().unwrap_or_default();
    if end.to_uppercase().contains("ORDER BY") { answer } else { answer.sorted() }
}

/// What is wrong with the rows of a text's plan; an error if no plan can be made of it.
async fn difference(server: &Server, oracle: &SessionContext, sql: &str, optimized: bool) -> Result<Option<String>> {
    let plan = produced(oracle, sql, optimized).await?;
    let answer = match server.info(&plan).await {
        Ok(info) => server.rows(info).await,
        Err(status) => Err(status),
    };
    Ok(match answer {
        Ok(answer) => comparable(sql, answer).difference(&expected(oracle, sql).await),
        Err(status) => Some(format!("{:?}: {}", status.code(), status.message())),
    })
}

/// The 22 but for those that DataFusion 55.2 cannot write as a plan: its producer knows no correlated subqueries, which its optimizer
/// turns into joins.
async fn all_22(optimized: bool, unwritten: &[u32]) {
    let server = Server::start(true).await;
    let oracle = oracle::over(folder().await, &tpch::TABLES).await.unwrap();
    let (mut wrong, mut not_written) = (Vec::new(), Vec::new());
    for (number, sql) in tpch::queries() {
        match difference(&server, &oracle, &sql, optimized).await {
            Ok(None) => {}
            Ok(Some(what)) => wrong.push(format!("q{number:02}: {what}")),
            Err(_unwritten) => not_written.push(number),
        }
    }
    server.end().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(not_written, unwritten, "what DataFusion cannot write has changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tpch_as_plans_of_what_was_written() {
    all_22(false, &[2, 4, 17, 20, 21, 22]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tpch_as_optimized_plans() {
    all_22(true, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_relation_and_expression_comes_back_from_a_plan() {
    let server = Server::start(true).await;
    let oracle = oracle::over(folder().await, &tpch::TABLES).await.unwrap();
    let mut wrong = Vec::new();
    for sql in [
        "SELECT * FROM nation WHERE n_regionkey IN (1, 3) AND n_name NOT LIKE 'A%'",
        "SELECT n_name, CASE WHEN n_regionkey = 0 THEN 'zero' WHEN n_regionkey < 3 THEN 'few' ELSE 'many' END AS k FROM nation",
        "SELECT o_orderpriority, count(*) AS n, sum(o_totalprice) AS s, min(o_orderdate) AS d FROM orders GROUP BY o_orderpriority",
        "SELECT count(DISTINCT l_suppkey) AS n, avg(l_quantity) AS q FROM lineitem WHERE l_shipdate < DATE '1995-01-01'",
        "SELECT n_name, r_name FROM nation LEFT JOIN region ON n_regionkey = r_regionkey AND r_name < 'B'",
        "SELECT n_name, r_name FROM nation FULL JOIN region ON n_regionkey = r_regionkey + 3",
        "SELECT a.n_name AS a, b.n_name AS b FROM nation AS a JOIN nation AS b ON a.n_regionkey = b.n_regionkey",
        "SELECT a.r_name AS a, b.r_name AS b FROM region AS a CROSS JOIN region AS b",
        "SELECT n_name FROM nation WHERE EXISTS (SELECT 1 FROM supplier WHERE s_nationkey = n_nationkey AND s_acctbal > 9000)",
        "SELECT n_name FROM nation WHERE n_nationkey NOT IN (SELECT s_nationkey FROM supplier WHERE s_acctbal > 5000)",
        "SELECT c_name FROM customer WHERE c_acctbal = (SELECT max(c_acctbal) FROM customer)",
        "SELECT n_regionkey FROM nation UNION ALL SELECT r_regionkey FROM region",
        "SELECT n_regionkey FROM nation UNION SELECT r_regionkey FROM region",
        "SELECT n_nationkey FROM nation INTERSECT SELECT r_regionkey FROM region",
        "SELECT n_nationkey FROM nation EXCEPT SELECT r_regionkey FROM region",
        "SELECT c_custkey, row_number() OVER (PARTITION BY c_nationkey ORDER BY c_acctbal DESC, c_custkey) AS r FROM customer",
        "SELECT o_orderkey, sum(o_totalprice) OVER (PARTITION BY o_custkey ORDER BY o_orderkey \
         ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS s FROM orders",
        "SELECT n_regionkey, n_name FROM nation ORDER BY n_regionkey DESC, n_name LIMIT 7 OFFSET 3",
        "SELECT substr(p_name, 1, 5) AS s, length(p_name) AS l, upper(p_brand) AS u FROM part WHERE p_size BETWEEN 5 AND 10",
        "SELECT CAST(l_quantity AS BIGINT) AS q, l_extendedprice * (1 - l_discount) AS p, extract(year FROM l_shipdate) AS y \
         FROM lineitem WHERE l_orderkey < 100",
        "SELECT n_regionkey, n_name, count(*) AS n FROM nation GROUP BY GROUPING SETS ((n_regionkey), (n_regionkey, n_name))",
        "SELECT n_regionkey, count(*) AS n FROM nation GROUP BY n_regionkey HAVING count(*) > 4",
        "SELECT x, y FROM (VALUES (1, 'a'), (2, NULL)) AS v (x, y)",
        "SELECT 1 AS one, NULL AS nothing, 'text' AS t, DATE '2020-02-29' AS d",
        "SELECT DISTINCT o_orderstatus FROM orders",
    ] {
        let found = match difference(&server, &oracle, sql, false).await {
            Err(_correlated) => difference(&server, &oracle, sql, true).await.unwrap(),
            Ok(found) => found,
        };
        wrong.extend(found.map(|what| format!("{sql}: {what}")));
    }
    server.end().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_is_polled_and_described_like_a_statement() {
    let server = Server::start(true).await;
    let oracle = oracle::over(folder().await, &tpch::TABLES).await.unwrap();
    let sql = "SELECT o_orderstatus, count(*) AS n FROM orders GROUP BY o_orderstatus";
    let plan = produced(&oracle, sql, false).await.unwrap();
    let mut answer = server.poll(command(&plan)).await.unwrap();
    while let Some(descriptor) = answer.flight_descriptor.take() {
        answer = server.poll(descriptor).await.unwrap();
    }
    let info = answer.info.unwrap();
    assert_eq!(info.schema, server.schema(&plan).await.unwrap().schema);
    assert_eq!(info.schema, server.info(&plan).await.unwrap().schema);
    let rows = comparable(sql, server.rows(info).await.unwrap());
    assert_eq!(rows.difference(&expected(&oracle, sql).await), None);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m12_a_server_that_does_not_accept_plans_says_how_it_would() {
    let server = Server::start(false).await;
    let oracle = oracle::over(folder().await, &tpch::TABLES).await.unwrap();
    let plan = produced(&oracle, "SELECT * FROM region", false).await.unwrap();
    let refusals = [server.info(&plan).await.err(), server.schema(&plan).await.err(), server.poll(command(&plan)).await.err()];
    for refused in refusals {
        let refused = refused.unwrap();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(refused.message().contains("--accept-plans"), "{}", refused.message());
    }
    let session = server.cluster.session().await.unwrap();
    assert_eq!(
        engine::run(&session, "SELECT * FROM region").await.unwrap().1.iter().map(RecordBatch::num_rows).sum::<usize>(),
        5
    );
    drop(session);
    server.end().await;
}
