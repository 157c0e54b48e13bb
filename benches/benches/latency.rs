//! How long short statements take on a warm cluster: `select 1`, which needs no executor, a job of one task, a lookup, an aggregate
//! of two stages. Embedded, and on two executor processes of the program that `--program=PATH` names.

use std::path::Path;
use std::time::Duration;

use windrow::{LocalCluster, Session};
use windrow_benches::{Series, print};
use windrow_core::clock::Stopwatch;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RUNS: usize = 200;
const ROWS: usize = 200_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    windrow_benches::keep_pages();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run())
}

async fn run() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("t.csv");
    write_rows(&file)?;

    let session = windrow::connect(None).await?;
    print("latency, embedded", &measure(&session, &file).await?);
    drop(session);

    let program = std::env::args().find_map(|argument| argument.strip_prefix("--program=").map(str::to_owned));
    let Some(program) = program else {
        println!("latency of two processes: skipped; add `-- --program=target/release/windrow`");
        return Ok(());
    };
    let cluster = LocalCluster::builder().executors(2).slots(1).processes(program).start().await?;
    let session = windrow::connect(Some(&cluster.url())).await?;
    print("latency, two executor processes", &measure(&session, &file).await?);
    cluster.shutdown().await;
    Ok(())
}

fn write_rows(file: &Path) -> Result<(), Failure> {
    use std::io::Write;
    let mut writer = std::io::BufWriter::new(std::fs::File::create(file)?);
    writeln!(writer, "k,v")?;
    for row in 0..ROWS {
        writeln!(writer, "{},{}", row % 1_000, row)?;
    }
    Ok(writer.flush()?)
}

async fn measure(session: &Session, file: &Path) -> Result<Vec<Series>, Failure> {
    let file = file.display();
    session.sql("SET windrow.query.small_input = '0B'").await?.collect().await?;
    session.sql(&format!("CREATE VIEW t AS SELECT * FROM '{file}'")).await?.collect().await?;
    let statements = [
        ("select 1", "SELECT 1"),
        ("a job of one task", "SELECT random()"),
        ("lookup", "SELECT v FROM t WHERE k = 17 LIMIT 1"),
        ("aggregate of two stages", "SELECT k, count(*) FROM t GROUP BY k"),
    ];
    let mut series = Vec::new();
    for (name, sql) in statements {
        let mut durations: Vec<Duration> = Vec::with_capacity(RUNS);
        for run in 0..RUNS + 5 {
            let watch = Stopwatch::start();
            session.sql(sql).await?.collect().await?;
            if run >= 5 {
                durations.push(watch.elapsed());
            }
        }
        series.push(Series::new(name, durations));
    }
    Ok(series)
}
