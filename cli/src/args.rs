//! What can be said on the command line. Each subcommand's struct goes to the file of its name; `lib.rs` hands them out.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::access::{ListenerFlags, UserFlags};
use crate::login::LoginFlags;
mod security;

use crate::shell::render::Format;

#[cfg(test)]
pub(crate) use security::UsersFile;
pub(crate) use security::{
    CertsAction, CertsArguments, CertsInitArguments, SecretAction, SecretArguments, TokenAction, TokenArguments,
    TokenCreateArguments, TokenRemoveArguments, UserAction, UserAddArguments, UserArguments,
};

/// About, examples, usage, flags: what most readers came for is at the top.
const TEMPLATE: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

const EXAMPLES: &str = "Examples:
  windrow demo                                     see it work, in five seconds
  windrow                                          a shell with the engine in this process
  windrow sql sales.csv                            the same, with the table `sales`
  windrow -c \"SELECT count(*) FROM 'data/*.parquet'\"
  windrow local --executors 4                      a cluster on this machine";

/// A distributed SQL engine.
#[derive(Debug, Parser)]
#[command(name = "windrow", version, help_template = TEMPLATE, before_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    /// What to do; without it, a shell.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Flags of the shell.
    #[command(flatten)]
    pub(crate) sql: SqlOptions,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run SQL: a shell on a terminal, a script from -c, -f or a pipe
    Sql(SqlArguments),
    /// Start a scheduler and executors on this machine
    Local(LocalArguments),
    /// Run a scheduler that executors and clients connect to
    Scheduler(SchedulerArguments),
    /// Run an executor for a scheduler
    Executor(ExecutorArguments),
    /// Show a cluster's executors and jobs
    Status(StatusArguments),
    /// Let an executor leave a cluster once its work is done
    Drain(DrainArguments),
    /// Show the queries that run on a cluster
    Queries(QueriesArguments),
    /// End a query
    Cancel(CancelArguments),
    /// Generate the tables of the TPC-H benchmark
    Tpch(TpchArguments),
    /// Measure queries
    Bench(BenchArguments),
    /// Generate a little data and query it in stages, to see how Windrow works
    Demo(DemoArguments),
    /// Make certificates for development
    Certs(CertsArguments),
    /// Add, remove and list the users of a cluster
    User(UserArguments),
    /// Make, list and remove tokens of programs
    Token(TokenArguments),
    /// Make the secret that the processes of a cluster share
    Secret(SecretArguments),
}

const SQL_EXAMPLES: &str = "Examples:
  windrow sql sales.csv                            a shell with the table `sales`
  windrow sql -c \"SELECT * FROM 'x.parquet' LIMIT 5\"
  windrow sql -f report.sql --format json > report.json
  windrow sql --connect grpc://127.0.0.1:8815      a cluster's shell
  echo 'SELECT 1;' | windrow sql                   each statement runs as it arrives";

/// Arguments of `windrow sql`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = SQL_EXAMPLES)]
pub(crate) struct SqlArguments {
    /// Files and folders (parquet, csv, json) to open as tables of their names
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<String>,
    /// The rest, which `windrow` without a subcommand takes too.
    #[command(flatten)]
    pub(crate) options: SqlOptions,
}

/// Flags of the shell and of scripts.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SqlOptions {
    /// Run this text and leave; may be repeated
    #[arg(short = 'c', long = "command", value_name = "SQL")]
    pub(crate) commands: Vec<String>,
    /// Run the statements of this file and leave; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Ask this scheduler (grpc://HOST:PORT, grpc+tls://USER@HOST:PORT/SCHEMA) instead of running the engine here
    #[arg(long, value_name = "URL")]
    pub(crate) connect: Option<String>,
    /// Who asks.
    #[command(flatten)]
    pub(crate) login: LoginFlags,
    /// How results are written [default: table on a terminal, csv elsewhere]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
    /// Write a line on stderr after each statement: its seconds, rows and bytes
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) timing: Option<Timing>,
    /// Go on after a statement that failed; the exit code still tells
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Partitions computed at a time by the engine in this process [default: the cores]
    #[arg(long, value_name = "N", conflicts_with = "connect", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) slots: Option<u32>,
    /// Memory of the engine in this process, as in 4GB [default: three quarters of the machine's]
    #[arg(long, value_name = "SIZE", conflicts_with = "connect", value_parser = memory)]
    pub(crate) memory_limit: Option<u64>,
}

/// How `--timing` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Timing {
    /// One JSON object a statement
    Json,
}

const LOCAL_EXAMPLES: &str = "Examples:
  windrow local --executors 4 --slots 2
  windrow sql --connect grpc://127.0.0.1:8815      in another terminal";

/// Arguments of `windrow local`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = LOCAL_EXAMPLES)]
pub(crate) struct LocalArguments {
    /// Executor processes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) executors: u32,
    /// Partitions each executor computes at a time [default: the cores, divided]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) slots: Option<u32>,
    /// Where clients connect; 0 takes a free one [default: 8815, or a free one if that is taken]
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Memory of each executor, as in 2GB [default: three quarters of the machine's, divided]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub(crate) memory_limit: Option<u64>,
    /// Keep schemas, tables and views here, for the next start [default: they end with the cluster]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Take plans in the Substrait format from clients, beside SQL
    #[arg(long, help_heading = "Security")]
    pub(crate) accept_plans: bool,
}

const SCHEDULER_EXAMPLES: &str = "Examples:
  windrow scheduler --bind 127.0.0.1:8815
  windrow executor --scheduler 127.0.0.1:8815      as often as you like, in other terminals";

/// Arguments of `windrow scheduler`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = SCHEDULER_EXAMPLES)]
pub(crate) struct SchedulerArguments {
    /// Where clients and executors connect; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8815")]
    pub(crate) bind: SocketAddr,
    /// Keep schemas, tables and views here, for the next start [default: they end with the scheduler]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Who is let in.
    #[command(flatten)]
    pub(crate) security: ListenerFlags,
    /// Who has a name.
    #[command(flatten)]
    pub(crate) users: UserFlags,
    /// Take plans in the Substrait format from clients, beside SQL
    #[arg(long, help_heading = "Security")]
    pub(crate) accept_plans: bool,
}

const EXECUTOR_EXAMPLES: &str = "Examples:
  windrow executor --scheduler 127.0.0.1:8815 --slots 2 --memory-limit 4GB --spill-dir /scratch";

/// Arguments of `windrow executor`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = EXECUTOR_EXAMPLES)]
pub(crate) struct ExecutorArguments {
    /// The scheduler to join
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) scheduler: String,
    /// Partitions computed at a time [default: the cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) slots: Option<u32>,
    /// Memory for operators, shuffle data and results, as in 4GB [default: three quarters of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub(crate) memory_limit: Option<u64>,
    /// Where data goes that does not fit in memory; several folders as in PATH [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) spill_dir: Option<PathBuf>,
    /// Most bytes in the spill folder
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) spill_limit: Option<u64>,
    /// Its name, unique in the cluster [default: from the process]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where other executors fetch shuffle data; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub(crate) bind: SocketAddr,
    /// The address others reach it at, if that is not the one it binds
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// Who is let in.
    #[command(flatten)]
    pub(crate) security: ListenerFlags,
    /// Leave when standard input ends: whoever started this holds the other end
    #[arg(long, hide = true)]
    pub(crate) supervised: bool,
}

/// Arguments of `windrow status`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE)]
pub(crate) struct StatusArguments {
    /// The scheduler
    #[arg(long, value_name = "URL", default_value = "grpc://127.0.0.1:8815")]
    pub(crate) connect: String,
    /// Who asks.
    #[command(flatten)]
    pub(crate) login: LoginFlags,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const DRAIN_EXAMPLES: &str = "Examples:
  windrow drain executor-1                         `windrow status` shows the names
  windrow drain executor-1 --connect grpc://10.0.0.5:8815";

/// Arguments of `windrow drain`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = DRAIN_EXAMPLES)]
pub(crate) struct DrainArguments {
    /// The executor
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The scheduler
    #[arg(long, value_name = "URL", default_value = "grpc://127.0.0.1:8815")]
    pub(crate) connect: String,
    /// Who asks.
    #[command(flatten)]
    pub(crate) login: LoginFlags,
}

/// Arguments of `windrow queries`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE)]
pub(crate) struct QueriesArguments {
    /// Show those that are over too
    #[arg(long)]
    pub(crate) all: bool,
    /// The scheduler
    #[arg(long, value_name = "URL", default_value = "grpc://127.0.0.1:8815")]
    pub(crate) connect: String,
    /// Who asks.
    #[command(flatten)]
    pub(crate) login: LoginFlags,
}

/// Arguments of `windrow cancel`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE)]
pub(crate) struct CancelArguments {
    /// The query, as `windrow queries` shows it
    #[arg(value_name = "ID")]
    pub(crate) query: String,
    /// The scheduler
    #[arg(long, value_name = "URL", default_value = "grpc://127.0.0.1:8815")]
    pub(crate) connect: String,
    /// Who asks.
    #[command(flatten)]
    pub(crate) login: LoginFlags,
}

const TPCH_EXAMPLES: &str = "Examples:
  windrow tpch --scale 1 --output tpch             1 GB of tables as tpch/lineitem/part-0.parquet, ...
  windrow bench tpch --data tpch                   the 22 queries over them";

/// Arguments of `windrow tpch`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = TPCH_EXAMPLES)]
pub(crate) struct TpchArguments {
    /// The scale factor: gigabytes of CSV
    #[arg(long, default_value_t = 1.0)]
    pub(crate) scale: f64,
    /// The folder that gets a folder for each table
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// The files' format
    #[arg(long, value_enum, default_value_t = crate::tpch::Format::Parquet)]
    pub(crate) format: crate::tpch::Format,
    /// Files of each large table
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) parts: u32,
}

/// Arguments of `windrow bench`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE)]
pub(crate) struct BenchArguments {
    /// Which benchmark.
    #[command(subcommand)]
    pub(crate) benchmark: Benchmark,
}

/// The benchmarks.
#[derive(Debug, Subcommand)]
pub(crate) enum Benchmark {
    /// The 22 queries of TPC-H
    Tpch(BenchTpchArguments),
}

const BENCH_EXAMPLES: &str = "Examples:
  windrow bench tpch --data tpch
  windrow bench tpch --data tpch --queries 1,3 --runs 5 --connect grpc://127.0.0.1:8815";

/// Arguments of `windrow bench tpch`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = BENCH_EXAMPLES)]
pub(crate) struct BenchTpchArguments {
    /// The folder that `windrow tpch` filled
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Ask this scheduler instead of running the engine here
    #[arg(long, value_name = "URL")]
    pub(crate) connect: Option<String>,
    /// Who asks.
    #[command(flatten)]
    pub(crate) login: LoginFlags,
    /// Numbers of queries, as in 1,3 [default: all]
    #[arg(long, value_delimiter = ',', value_name = "N,...", value_parser = clap::value_parser!(u8).range(1..=22))]
    pub(crate) queries: Vec<u8>,
    /// Times each query runs; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) runs: u32,
    /// How to report
    #[arg(long, value_enum, default_value_t = BenchOutput::Table)]
    pub(crate) output: BenchOutput,
    /// Partitions computed at a time by the engine in this process [default: the cores]
    #[arg(long, value_name = "N", conflicts_with = "connect", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) slots: Option<u32>,
    /// Memory of the engine in this process [default: three quarters of the machine's]
    #[arg(long, value_name = "SIZE", conflicts_with = "connect", value_parser = memory)]
    pub(crate) memory_limit: Option<u64>,
}

/// How `windrow bench` reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchOutput {
    /// A line for each query
    Table,
    /// One JSON object
    Json,
}

/// Arguments of `windrow demo`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE)]
pub(crate) struct DemoArguments {
    /// The TPC-H scale factor of its data
    #[arg(long, default_value_t = 0.05)]
    pub(crate) scale: f64,
    /// Leave the data behind and say where
    #[arg(long)]
    pub(crate) keep: bool,
}

/// A size, or `auto` for what is taken without the flag.
fn memory(text: &str) -> Result<u64, String> {
    if text.eq_ignore_ascii_case("auto") { Ok(0) } else { size(text) }
}

fn size(text: &str) -> Result<u64, String> {
    windrow_core::config::parse_size(text).map_err(|error| error.message)
}

#[cfg(test)]
mod tests;
