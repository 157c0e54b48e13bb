//! Many clients of Flight SQL at once, and one that reads slowly.
//!
//! `cargo bench --workspace --bench clients -- [--program=target/release/windrow] [--data=DIR] [--clients=64] [--minutes=5]
//! [--seconds=N] [--rows=20000000] [--slow-seconds=60] [--pause=20]`
//!
//! First 64 clients, each on a connection of its own, ask for `select 1`, small aggregates and, one client in eight, joins and large
//! results, as fast as they are answered. An error fails the bench; reported are how long each kind took, queries a second, and what the
//! server's processes hold at the beginning, at most in each half, and at the end. With `--data`, the large ones are queries of TPC-H on
//! what `windrow tpch` made there.
//!
//! Then a client begins to read a result of 20 million rows, takes a batch, pauses, and so on, while what the processes hold is watched:
//! rows that nobody takes stay in the executors' stores, which spill.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow_flight::FlightInfo;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use tonic::transport::{Channel, Endpoint};
use windrow_auth::{ClusterKey, file_of_port};
use windrow_benches::queries::{Failure, TPCH_TABLES, program_of_this_build, status, tpch};
use windrow_benches::{Series, keep_pages, print};
use windrow_core::clock::Stopwatch;
use windrow_executor::timer;
use windrow_flight::security::owner_token;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Executors of the server, and the memory of each: little, so that a result that is not read does not fit.
const EXECUTORS: usize = 2;
const MEMORY_LIMIT: u64 = 512 << 20;

/// Of so many clients one asks for much.
const LARGE_PART: usize = 8;

/// Between two looks at what the processes hold.
const LOOK: Duration = Duration::from_millis(200);

/// Queries of TPC-H that are heavy, and that are no less with little memory.
const HEAVY: [&str; 4] = ["q01", "q03", "q09", "q18"];

fn main() -> Result<(), Failure> {
    keep_pages();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run())
}

fn option(name: &str) -> Option<String> {
    std::env::args().find_map(|argument| argument.strip_prefix(name).map(str::to_owned))
}

fn number(name: &str, default: u64) -> Result<u64, Failure> {
    Ok(option(name).map_or(Ok(default), |text| text.parse::<u64>())?)
}

async fn run() -> Result<(), Failure> {
    let program = option("--program=").map_or_else(program_of_this_build, |path| Ok(PathBuf::from(path)))?;
    let clients = usize::try_from(number("--clients=", 64)?)?;
    let length = Duration::from_secs(number("--seconds=", 60 * number("--minutes=", 5)?)?);
    let scratch = tempfile::tempdir()?;
    let server = Server::start(&program, scratch.path()).await?;
    let statements = Arc::new(Statements::prepare(&server, scratch.path()).await?);
    let errors = crowd(&server, &statements, clients, length).await?;
    let slow_length = Duration::from_secs(number("--slow-seconds=", 60)?);
    let pause = Duration::from_millis(number("--pause=", 20)?);
    slow(&server, number("--rows=", 20_000_000)?, slow_length, pause).await?;
    if errors == 0 { Ok(()) } else { Err(format!("{errors} queries failed").into()) }
}

/// `windrow local` as a process, so that what it holds is its own.
struct Server {
    child: Child,
    address: String,
    token: String,
    /// The scheduler's process, then the executors'.
    pids: Vec<u32>,
}

impl Server {
    async fn start(program: &Path, spill: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(program);
        command.args(["local", "--port", "0", "--executors"]).arg(EXECUTORS.to_string());
        command.args(["--slots", "1", "--memory-limit"]).arg(MEMORY_LIMIT.to_string());
        command.env("WINDROW_EXECUTOR__SPILL_DIR", spill).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stderr.take().ok_or("no output of the server")?;
        let (found, address) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut found = Some(found);
            // To the end, so that the server never waits for a reader.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("grpc://")
                    && let Some(found) = found.take()
                {
                    // The bench has given up if nobody hears this.
                    let _unheard = found.send(rest.split_whitespace().next().unwrap_or_default().to_owned());
                }
            }
        });
        let address = timer::deadline(Duration::from_secs(60), address).await.ok_or("the server did not start in time")??;
        let port = address.rsplit(':').next().ok_or("an address without a port")?.parse()?;
        let key = ClusterKey::read(file_of_port(port))?;
        let token = owner_token(&key, Duration::from_secs(24 * 3600))?;
        let mut server = Self { pids: vec![child.id()], child, address, token };
        let session = windrow::connect(Some(&format!("grpc://{}", server.address))).await?;
        server.pids.extend(session.status().await?.executors.iter().map(|executor| executor.pid));
        Ok(server)
    }

    async fn client(&self) -> Result<FlightSqlServiceClient<Channel>, Failure> {
        let channel = Endpoint::from_shared(format!("http://{}", self.address))?.tcp_nodelay(true).connect().await?;
        let mut client = FlightSqlServiceClient::new(channel);
        client.set_token(self.token.clone());
        Ok(client)
    }

    /// Resident bytes of each process.
    fn resident(&self) -> Vec<u64> {
        self.pids.iter().map(|pid| status(*pid, "VmRSS:")).collect()
    }

    /// The most that was resident of each process, for so long.
    async fn most_resident(&self, length: Duration) -> Vec<u64> {
        let (watch, mut most) = (Stopwatch::start(), self.resident());
        while watch.elapsed() < length {
            timer::sleep(LOOK).await;
            most = most_of(&most, &self.resident());
        }
        most
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its executors end with it. A server that has ended needs no end.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// What is asked.
struct Statements {
    small: Vec<String>,
    large: Vec<String>,
}

impl Statements {
    async fn prepare(server: &Server, scratch: &Path) -> Result<Self, Failure> {
        let mut client = server.client().await?;
        let table = scratch.join("small.csv");
        std::fs::write(&table, (0..2_000).fold("k,v\n".to_owned(), |text, row| text + &format!("{},{row}\n", row % 50)))?;
        let small = vec![
            format!("SELECT k, sum(v) FROM '{}' GROUP BY k", table.display()),
            format!("SELECT v FROM '{}' WHERE k = 17", table.display()),
        ];
        let large = match option("--data=") {
            Some(data) => {
                let data = PathBuf::from(data).canonicalize()?;
                for table in TPCH_TABLES {
                    let folder = data.join(table);
                    let sql = format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{}/'", folder.display());
                    client.execute_update(sql, None).await?;
                }
                let heavy = tpch()?.into_iter().filter(|(name, _)| HEAVY.contains(&name.as_str())).map(|(_, sql)| sql);
                heavy.chain(["SELECT l_orderkey, l_extendedprice, l_comment FROM lineitem".to_owned()]).collect()
            }
            None => vec![
                "SELECT a.value % 1000 AS k, count(*), sum(b.value) FROM generate_series(1, 300000) a \
                 JOIN generate_series(1, 300000) b ON a.value = b.value GROUP BY a.value % 1000"
                    .to_owned(),
                "SELECT value, value * 7 AS v, concat('row ', value) AS t FROM generate_series(1, 500000)".to_owned(),
            ],
        };
        Ok(Self { small, large })
    }
}

/// How long each kind took, and what went wrong.
#[derive(Default)]
struct Seen {
    one: Vec<Duration>,
    small: Vec<Duration>,
    large: Vec<Duration>,
    errors: Vec<String>,
}

/// All clients at once; how many queries failed.
async fn crowd(server: &Server, statements: &Arc<Statements>, clients: usize, length: Duration) -> Result<usize, Failure> {
    let before = server.resident();
    let (over, watch) = (Arc::new(AtomicBool::new(false)), Stopwatch::start());
    let mut asking = Vec::new();
    for index in 0..clients {
        let (client, statements, over) = (server.client().await?, Arc::clone(statements), Arc::clone(&over));
        asking.push(tokio::spawn(ask(client, statements, index, over)));
    }
    // What grows with the number of queries is more in the second half than in the first.
    let first = server.most_resident(length / 2).await;
    let second = server.most_resident(length / 2).await;
    over.store(true, Ordering::Relaxed);
    let mut all = Seen::default();
    for one in asking {
        let seen = one.await?;
        all.one.extend(seen.one);
        all.small.extend(seen.small);
        all.large.extend(seen.large);
        all.errors.extend(seen.errors);
    }
    let seconds = watch.elapsed().as_secs_f64();
    let after = server.resident();
    let count = all.one.len() + all.small.len() + all.large.len();
    let each_second = count as f64 / seconds;
    let one = Series::new("select 1", all.one);
    let slowest = one.percentile(99);
    print("clients", &[one, Series::new("small", all.small), Series::new("large", all.large)]);
    println!("{clients} clients, {count} queries in {seconds:.0} s, {each_second:.0} a second; {} errors", all.errors.len());
    all.errors.iter().take(10).for_each(|error| println!("  {error}"));
    let is_quick = slowest < Duration::from_secs(1);
    println!("select 1 beside large queries: 99 % within {slowest:.2?}, {}", if is_quick { "in time" } else { "TOO LATE" });
    println!(
        "resident MB of scheduler and executors: {:?}, in the first half at most {:?}, in the second {:?}, at the end {:?}",
        megabytes(&before),
        megabytes(&first),
        megabytes(&second),
        megabytes(&after)
    );
    println!(
        "{}",
        json!({"bench": "clients", "clients": clients, "queries": count, "seconds": seconds, "errors": all.errors.len(),
            "select_1_p99_us": slowest.as_micros(), "resident_before": before, "resident_first_half": first,
            "resident_second_half": second, "resident_after": after})
    );
    Ok(all.errors.len())
}

/// One client until it is over.
async fn ask(
    mut client: FlightSqlServiceClient<Channel>,
    statements: Arc<Statements>,
    index: usize,
    over: Arc<AtomicBool>,
) -> Seen {
    let mut seen = Seen::default();
    let mut turn = index;
    while !over.load(Ordering::Relaxed) {
        turn += 1;
        let (sql, kind) = if index.is_multiple_of(LARGE_PART) {
            (statements.large.get(turn % statements.large.len()).map(String::as_str), &mut seen.large)
        } else if turn.is_multiple_of(2) {
            (Some("SELECT 1"), &mut seen.one)
        } else {
            (statements.small.get(turn / 2 % statements.small.len()).map(String::as_str), &mut seen.small)
        };
        let watch = Stopwatch::start();
        match answer(&mut client, sql.unwrap_or("SELECT 1")).await {
            Ok(_rows) => kind.push(watch.elapsed()),
            Err(error) => seen.errors.push(error.to_string()),
        }
    }
    seen
}

/// Asks, and reads every row; how many there are.
async fn answer(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> Result<usize, Failure> {
    let info: FlightInfo = client.execute(sql.to_owned(), None).await?;
    let mut rows = 0;
    for endpoint in info.endpoint {
        let ticket = endpoint.ticket.ok_or("an endpoint without a ticket")?;
        let mut batches = client.do_get(ticket).await?;
        while let Some(batch) = batches.try_next().await? {
            rows += batch.num_rows();
        }
    }
    Ok(rows)
}

/// A client that takes a batch and pauses, and what the processes hold meanwhile.
async fn slow(server: &Server, rows: u64, length: Duration, pause: Duration) -> Result<(), Failure> {
    let before = server.resident();
    let mut client = server.client().await?;
    let sql = format!(
        "SELECT value, value * 7 AS v, concat('a row of some width, and that is number ', value) AS t FROM generate_series(1, {rows})"
    );
    let (watch, mut most) = (Stopwatch::start(), before.clone());
    let info = client.execute(sql, None).await?;
    let ticket = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket).ok_or("no ticket")?;
    let mut batches = client.do_get(ticket).await?;
    let (mut read, mut looked) = (0_usize, Stopwatch::start());
    while let Some(batch) = batches.next().await {
        read += batch?.num_rows();
        if watch.elapsed() >= length {
            break;
        }
        timer::sleep(pause).await;
        if looked.elapsed() >= LOOK {
            looked = Stopwatch::start();
            most = most_of(&most, &server.resident());
        }
    }
    let seconds = watch.elapsed().as_secs_f64();
    let after = server.resident();
    println!("slow client: {read} of {rows} rows in {seconds:.0} s, a pause of {pause:?} after each batch");
    println!(
        "resident MB of scheduler and executors: {:?}, at most {:?}, at the end {:?}; the executors' limit is {} MB each",
        megabytes(&before),
        megabytes(&most),
        megabytes(&after),
        MEMORY_LIMIT >> 20
    );
    println!(
        "{}",
        json!({"bench": "slow client", "rows": rows, "read": read, "seconds": seconds, "resident_before": before,
            "resident_most": most, "resident_after": after, "limit": MEMORY_LIMIT})
    );
    Ok(())
}

fn most_of(most: &[u64], now: &[u64]) -> Vec<u64> {
    most.iter().zip(now).map(|(most, now)| *most.max(now)).collect()
}

fn megabytes(bytes: &[u64]) -> Vec<u64> {
    bytes.iter().map(|bytes| bytes >> 20).collect()
}
