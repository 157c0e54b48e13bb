//! How fast rows go through the shuffle, from producers' batches to consumers' streams: in process, over loopback Flight, and from disk.
//! In one run with it, what the machine moves at most: a copy of the same bytes in memory, and the same bytes over one raw TCP
//! connection.
//!
//! `cargo bench --workspace --bench shuffle -- [--bytes=512MB] [--runs=5] [--only=inprocess8->8]`
//!
//! *write* is what producers take to divide and commit, *read* what consumers take until the last row; both are done by two threads. In
//! process the share is that of the whole against the copy, over loopback that of *read* against TCP: what is written there is the same.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Float64Array, Int64Array, StringViewArray};
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::runtime::Handle;
use windrow_core::clock::Stopwatch;
use windrow_core::config::parse_size;
use windrow_core::ids::{AttemptId, ExecutorId, Incarnation, JobId, TaskId};
use windrow_core::stage::{Exchange, InputRead};
use windrow_core::task::{InputGroup, InputVector};
use windrow_core::transport::ShuffleTransport;
use windrow_executor::ShuffleStore;
use windrow_executor::shuffle::read::ShuffleReader;
use windrow_executor::shuffle::write::PartitionWriter;
use windrow_flight::shuffle::serve_on_loopback;
use windrow_flight::transport::NetworkTransport;
use windrow_planner::InputPart;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const SHAPES: [(u32, u32); 4] = [(1, 1), (8, 1), (1, 16), (8, 8)];
const THREADS: usize = 2;
const BATCH_ROWS: usize = 8192;
const WINDOW: u64 = 8 << 20;
const INCARNATION: Incarnation = Incarnation(1);

/// Of one write or read on a socket.
const TCP_BYTES: usize = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    InProcess,
    Loopback,
    Spilled,
}

/// Gigabytes a second.
#[derive(Debug, Clone, Copy, Default)]
struct Speed {
    write: f64,
    read: f64,
    whole: f64,
}

fn main() -> Result<(), Failure> {
    windrow_benches::keep_pages();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    runtime.block_on(async { tokio::spawn(run()).await? })
}

async fn run() -> Result<(), Failure> {
    let option = |name: &str| std::env::args().find_map(|argument| argument.strip_prefix(name).map(str::to_owned));
    let bytes = usize::try_from(parse_size(&option("--bytes=").unwrap_or_else(|| "512MB".to_owned()))?)?;
    let runs = option("--runs=").map_or(Ok(5), |text| text.parse::<usize>())?;
    let only = option("--only=").unwrap_or_default();
    let tables = [("fixed width", fixed(bytes)?), ("strings", strings(bytes)?)];
    let mut rows = Vec::new();
    println!(
        "{:<12} {:<11} {:>7} {:>9} {:>9} {:>9} {:>9}  GB/s, best of {runs}",
        "", "way", "shape", "write", "read", "whole", "share"
    );
    for (name, batches) in &tables {
        let bytes = batches.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
        for way in [Way::InProcess, Way::Loopback, Way::Spilled] {
            for (producers, consumers) in SHAPES {
                if !format!("{name}{way:?}{producers}->{consumers}").to_lowercase().contains(&only) {
                    continue;
                }
                let (mut best, mut bound) = (Speed::default(), 0.0_f64);
                // In turn, so that the machine's moods meet both.
                for _ in 0..runs {
                    let speed = shuffle(batches, bytes, way, producers, consumers).await?;
                    best = Speed {
                        write: best.write.max(speed.write),
                        read: best.read.max(speed.read),
                        whole: best.whole.max(speed.whole),
                    };
                    bound = bound.max(match way {
                        Way::InProcess | Way::Spilled => copy(bytes).await?,
                        Way::Loopback => tcp(bytes)?,
                    });
                }
                let share = if way == Way::Loopback { best.read / bound } else { best.whole / bound };
                let Speed { write, read, whole } = best;
                let (way, shape) = (format!("{way:?}"), format!("{producers}->{consumers}"));
                println!(
                    "{name:<12} {way:<11} {shape:>7} {write:>9.2} {read:>9.2} {whole:>9.2} {:>8.0}% of {bound:.2}",
                    100.0 * share
                );
                rows.push(json!({"table": name, "way": way, "shape": shape, "write": write, "read": read, "whole": whole,
                    "bound": bound, "share": share}));
            }
        }
    }
    println!("{}", json!({"bench": "shuffle", "bytes": bytes, "gigabytes_per_second": rows}));
    Ok(())
}

/// Rows of 64 bytes: what a fact table's keys, dates, prices and quantities look like.
fn fixed(bytes: usize) -> Result<Vec<RecordBatch>, Failure> {
    let rows = i64::try_from(BATCH_ROWS)?;
    (0..i64::try_from(bytes / 64)? / rows)
        .map(|batch| {
            let ids = || (batch * rows)..((batch + 1) * rows);
            let float =
                |factor: f64| -> ArrayRef { Arc::new(Float64Array::from_iter_values(ids().map(|id| id as f64 * factor))) };
            let columns: [(&str, ArrayRef); 7] = [
                ("k", Arc::new(Int64Array::from_iter_values(ids()))),
                ("a", Arc::new(Int64Array::from_iter_values(ids().map(|id| id * 7)))),
                ("b", float(0.5)),
                ("c", float(1.5)),
                ("d", Arc::new(Date32Array::from_iter_values(ids().map(|id| (id % 10_000) as i32)))),
                ("e", Arc::new(Date32Array::from_iter_values(ids().map(|id| (id % 20_000) as i32)))),
                ("f", Arc::new(Decimal128Array::from_iter_values(ids().map(i128::from)))),
            ];
            Ok(RecordBatch::try_from_iter(columns)?)
        })
        .collect()
}

/// Rows with a key and two strings, one of which is too long for a view to hold.
fn strings(bytes: usize) -> Result<Vec<RecordBatch>, Failure> {
    let rows = i64::try_from(BATCH_ROWS)?;
    (0..i64::try_from(bytes / 72)? / rows)
        .map(|batch| {
            let ids = || (batch * rows)..((batch + 1) * rows);
            let columns: [(&str, ArrayRef); 3] = [
                ("k", Arc::new(Int64Array::from_iter_values(ids()))),
                ("short", Arc::new(StringViewArray::from_iter_values(ids().map(|id| (id % 1000).to_string())))),
                ("long", Arc::new(StringViewArray::from_iter_values(ids().map(|id| format!("number {id:020} of many"))))),
            ];
            Ok(RecordBatch::try_from_iter(columns)?)
        })
        .collect()
}

async fn shuffle(batches: &[RecordBatch], bytes: usize, way: Way, producers: u32, consumers: u32) -> Result<Speed, Failure> {
    let directory = tempfile::tempdir()?;
    // Where nothing fits, each writer puts its segments to disk itself.
    let limit = if way == Way::Spilled { 1 << 20 } else { 16 << 30 };
    let store = ShuffleStore::open((limit, 60), (directory.path(), u64::MAX), Handle::current())?;
    store.begin(INCARNATION);
    let exchange = if consumers == 1 { Exchange::Merge } else { Exchange::Hash { partitions: consumers } };
    let watch = Stopwatch::start();
    let written = (0..producers).map(|producer| {
        let share: Vec<_> = batches.iter().skip(producer as usize).step_by(producers as usize).cloned().collect();
        let store = Arc::clone(&store);
        spawned(write(store, producer, exchange, share))
    });
    stream::iter(written).buffer_unordered(THREADS).try_collect::<Vec<_>>().await?;
    let write = watch.elapsed().as_secs_f64();

    let server = serve_on_loopback(Arc::clone(&store)).await?;
    let groups: Vec<_> = (0..producers)
        .map(|producer| InputGroup {
            attempt: attempt(producer),
            executor: ExecutorId(1),
            incarnation: INCARNATION,
            address: Some(server.address().to_string()),
            partitions: vec![producer],
        })
        .collect();
    let inputs = vec![InputVector { read: InputRead::Partitioned { offset: 0, count: consumers }, groups: Arc::new(groups) }];
    // Another executor would have a store of its own, and asks over the network.
    let reader = if way == Way::Loopback { ExecutorId(2) } else { ExecutorId(1) };
    let transport: Arc<dyn ShuffleTransport<RecordBatch>> =
        Arc::new(NetworkTransport::new(WINDOW, windrow_flight::Dialer::open()));
    let reader = Arc::new(ShuffleReader::new((reader, INCARNATION), inputs, Arc::clone(&store), transport, WINDOW));
    let read_watch = Stopwatch::start();
    let read = (0..consumers).map(|consumer| {
        let reader = Arc::clone(&reader);
        spawned(async move {
            let mut rows = 0;
            let mut batches = reader.read(0, InputPart::Segment(consumer))?;
            while let Some(batch) = batches.next().await {
                rows += batch?.num_rows();
            }
            Ok::<_, Failure>(rows)
        })
    });
    let rows: Vec<usize> = stream::iter(read).buffer_unordered(THREADS).try_collect().await?;
    let read = read_watch.elapsed().as_secs_f64();
    if rows.iter().sum::<usize>() != batches.iter().map(RecordBatch::num_rows).sum::<usize>() {
        return Err("rows were lost".into());
    }
    store.release_job(JobId(1));
    server.shutdown().await;
    let speed = |seconds: f64| bytes as f64 / 1e9 / seconds;
    Ok(Speed { write: speed(write), read: speed(read), whole: speed(write + read) })
}

async fn spawned<T: Send + 'static>(future: impl Future<Output = Result<T, Failure>> + Send + 'static) -> Result<T, Failure> {
    tokio::spawn(future).await?
}

fn attempt(producer: u32) -> AttemptId {
    AttemptId { job: JobId(1), task: TaskId(producer), ..AttemptId::default() }
}

async fn write(store: Arc<ShuffleStore>, producer: u32, exchange: Exchange, batches: Vec<RecordBatch>) -> Result<(), Failure> {
    let Some(first) = batches.first() else { return Ok(()) };
    let keys: [Arc<dyn PhysicalExpr>; 1] = [Arc::new(Column::new("k", 0))];
    let key = (attempt(producer), producer);
    let mut writer = PartitionWriter::new(&store, INCARNATION, key, exchange, &keys, first.schema())?;
    for batch in batches {
        writer.push(batch).await?;
        // As between the batches of a scan.
        tokio::task::yield_now().await;
    }
    writer.finish().await?;
    Ok(())
}

/// Copies `bytes` from one place to another, half of them on each thread.
async fn copy(bytes: usize) -> Result<f64, Failure> {
    let half = bytes / THREADS;
    let mut halves: Vec<_> = (0..THREADS).map(|_| (vec![1_u8; half], vec![0_u8; half])).collect();
    let watch = Stopwatch::start();
    std::thread::scope(|scope| {
        for (from, to) in &mut halves {
            scope.spawn(move || to.copy_from_slice(std::hint::black_box(from)));
        }
    });
    let elapsed = watch.elapsed().as_secs_f64();
    std::hint::black_box(&halves);
    Ok((half * THREADS) as f64 / 1e9 / elapsed)
}

/// Sends `bytes` over one connection.
fn tcp(bytes: usize) -> Result<f64, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let from = vec![1_u8; bytes];
    let watch = Stopwatch::start();
    let received = std::thread::scope(|scope| {
        let receiver = scope.spawn(move || -> std::io::Result<usize> {
            let (mut socket, _) = listener.accept()?;
            let (mut buffer, mut sum) = (vec![0; TCP_BYTES], 0);
            loop {
                match socket.read(&mut buffer)? {
                    0 => return Ok(sum),
                    read => sum += read,
                }
            }
        });
        let mut socket = TcpStream::connect(address)?;
        from.chunks(TCP_BYTES).try_for_each(|chunk| socket.write_all(chunk))?;
        drop(socket);
        receiver.join().unwrap_or_else(|_panicked| Err(std::io::ErrorKind::Other.into()))
    })?;
    Ok(received as f64 / 1e9 / watch.elapsed().as_secs_f64())
}
