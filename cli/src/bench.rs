//! `windrow bench tpch`: the 22 queries over generated files, each several times, the median of each and their sum.

use std::io::Write;

use futures::StreamExt;
use serde::Serialize;
use windrow::{ConnectOptions, Error, ErrorKind, Session};
use windrow_core::clock::Stopwatch;

use crate::args::{BenchArguments, BenchOutput, BenchTpchArguments, Benchmark};
use crate::end::End;
use crate::interrupt::Interrupt;
use crate::{report, statement, status, terminal, tpch};

/// The texts of the queries; number 1 is at index 0.
pub(crate) const QUERIES: [&str; 22] = [
    include_str!("../queries/tpch/q01.sql"),
    include_str!("../queries/tpch/q02.sql"),
    include_str!("../queries/tpch/q03.sql"),
    include_str!("../queries/tpch/q04.sql"),
    include_str!("../queries/tpch/q05.sql"),
    include_str!("../queries/tpch/q06.sql"),
    include_str!("../queries/tpch/q07.sql"),
    include_str!("../queries/tpch/q08.sql"),
    include_str!("../queries/tpch/q09.sql"),
    include_str!("../queries/tpch/q10.sql"),
    include_str!("../queries/tpch/q11.sql"),
    include_str!("../queries/tpch/q12.sql"),
    include_str!("../queries/tpch/q13.sql"),
    include_str!("../queries/tpch/q14.sql"),
    include_str!("../queries/tpch/q15.sql"),
    include_str!("../queries/tpch/q16.sql"),
    include_str!("../queries/tpch/q17.sql"),
    include_str!("../queries/tpch/q18.sql"),
    include_str!("../queries/tpch/q19.sql"),
    include_str!("../queries/tpch/q20.sql"),
    include_str!("../queries/tpch/q21.sql"),
    include_str!("../queries/tpch/q22.sql"),
];

/// What was measured of one query.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Measured {
    query: u8,
    /// Seconds of each run from submission to the last row, in order.
    seconds: Vec<f64>,
    /// Of `seconds`; `None` if a run failed.
    median: Option<f64>,
    /// Of the last run.
    rows: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Measurement {
    runs: u32,
    queries: Vec<Measured>,
    /// The sum of the medians.
    total: f64,
    /// Queries that gave a result each time.
    succeeded: usize,
}

/// Runs `windrow bench`.
pub(crate) async fn run(arguments: BenchArguments) -> Result<(), End> {
    let Benchmark::Tpch(arguments) = arguments.benchmark;
    let mut interrupt = Interrupt::listen()?;
    let options = ConnectOptions {
        url: arguments.connect.clone(),
        login: arguments.login.login(arguments.connect.as_deref()).map_err(End::starting)?,
        slots: arguments.slots,
        memory_limit: arguments.memory_limit,
        ..ConnectOptions::default()
    };
    let session = options.connect().await.map_err(End::connecting)?;
    let measurement = tokio::select! {
        measurement = measure_all(&session, &arguments) => measurement.map_err(End::from),
        asked = interrupt.asked() => Err(statement::stopped(asked)),
    };
    session.close().await;
    let measurement = measurement?;
    std::io::stdout().lock().write_all(text(&measurement, arguments.output)?.as_bytes())?;
    if measurement.succeeded == measurement.queries.len() { Ok(()) } else { Err(End::Told) }
}

async fn measure_all(session: &Session, arguments: &BenchTpchArguments) -> Result<Measurement, Error> {
    add_tables(session, &arguments.data).await?;
    let chosen: Vec<u8> = if arguments.queries.is_empty() { (1..=22).collect() } else { arguments.queries.clone() };
    let mut queries = Vec::with_capacity(chosen.len());
    for query in chosen {
        let measured = measure(session, query, arguments.runs).await;
        terminal::note(&format!("q{query:02}  {}", outcome(&measured)));
        queries.push(measured);
    }
    Ok(Measurement {
        runs: arguments.runs,
        total: queries.iter().filter_map(|query| query.median).sum(),
        succeeded: queries.iter().filter(|query| query.error.is_none()).count(),
        queries,
    })
}

/// Opens the eight tables of a folder that `windrow tpch` filled.
pub(crate) async fn add_tables(session: &Session, data: &std::path::Path) -> Result<(), Error> {
    for table in tpch::Table::ALL {
        let path = data.join(table.name());
        if !path.exists() {
            let message = format!("'{}' holds no table '{}'", data.display(), table.name());
            let help = format!("windrow tpch --scale 1 --output {}", data.display());
            return Err(Error::new(ErrorKind::NotFound, message).with_help(help));
        }
        session.add_file(table.name(), &path.to_string_lossy()).await?;
    }
    Ok(())
}

async fn measure(session: &Session, query: u8, runs: u32) -> Measured {
    let mut measured = Measured { query, seconds: Vec::new(), median: None, rows: 0, error: None };
    let Some(text) = QUERIES.get(usize::from(query).wrapping_sub(1)) else { return measured };
    for _ in 0..runs {
        let watch = Stopwatch::start();
        match count_rows(session, text).await {
            Ok(rows) => {
                measured.seconds.push(watch.elapsed().as_secs_f64());
                measured.rows = rows;
            }
            Err(error) => {
                report::print(&error, None);
                measured.error = Some(error.message);
                return measured;
            }
        }
    }
    measured.median = median(&measured.seconds);
    measured
}

async fn count_rows(session: &Session, text: &str) -> Result<u64, Error> {
    let mut query = session.sql(text).await?;
    let mut rows = 0;
    while let Some(batch) = query.next().await {
        rows += batch?.num_rows() as u64;
    }
    Ok(rows)
}

fn median(seconds: &[f64]) -> Option<f64> {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    sorted.get(middle - 1).map(|lower| f64::midpoint(*lower, upper))
}

fn outcome(measured: &Measured) -> String {
    measured.median.map_or_else(|| "failed".to_owned(), |median| format!("{median:.3} s"))
}

fn text(measurement: &Measurement, output: BenchOutput) -> Result<String, Error> {
    if output == BenchOutput::Json {
        return serde_json::to_string_pretty(measurement)
            .map(|json| json + "\n")
            .map_err(|source| Error::internal("the measurement does not encode").with_source(source));
    }
    let least = |query: &Measured| query.seconds.iter().copied().reduce(f64::min).map_or(String::new(), |s| format!("{s:.3} s"));
    let rows = measurement
        .queries
        .iter()
        .map(|query| vec![format!("q{:02}", query.query), outcome(query), least(query), query.rows.to_string()]);
    let total = vec!["total".to_owned(), format!("{:.3} s", measurement.total)];
    let mut text = status::columns(&["query", "median", "least", "rows"], rows.chain([total]));
    if measurement.succeeded < measurement.queries.len() {
        text.push_str(&format!("{} of {} succeeded\n", measurement.succeeded, measurement.queries.len()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_is_one_statement() {
        for (index, text) in QUERIES.iter().enumerate() {
            assert_eq!(windrow::split_statements(text).len(), 1, "q{:02}", index + 1);
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn a_measurement_reads_as_table_and_as_json() {
        let query = |query, seconds: &[f64], error: Option<&str>| Measured {
            query,
            seconds: seconds.to_vec(),
            median: error.is_none().then(|| median(seconds)).flatten(),
            rows: 4,
            error: error.map(str::to_owned),
        };
        let measurement = Measurement {
            runs: 3,
            queries: vec![query(1, &[0.5, 0.25, 1.0], None), query(21, &[], Some("out of memory"))],
            total: 0.5,
            succeeded: 1,
        };
        insta::assert_snapshot!("bench_table", text(&measurement, BenchOutput::Table).expect("text"));
        insta::assert_snapshot!("bench_json", text(&measurement, BenchOutput::Json).expect("text"));
    }
}
