//! What runs: a frame's rows, their number, how they are computed, files and tables of them. Next: `kept.rs`.

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, Schema, UInt64Type};
use arrow::record_batch::RecordBatch;
use bytesize::ByteSize;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Expr, LogicalPlan, cast, lit};
use windrow_core::{Error, Result, rand};
use windrow_planner::Frames;

use super::kept::KeptTable;
use super::{DataFrame, col};
use crate::files::quote;
use crate::query::Query;
use crate::session::Over;

/// What a statement calls the frame that it is about.
pub(super) const NAME: &str = "frame";

/// Steps of a plan that lists of queries show.
const SUMMARY_STEPS: usize = 6;

/// What [`DataFrame::explain`] shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Explain {
    /// Run it, and show how it ran.
    pub analyze: bool,
    /// Show the plans between as well.
    pub verbose: bool,
}

/// Where and how [`DataFrame::write`] writes.
#[derive(Debug, Clone, Default)]
pub struct Write {
    /// A folder, which ends with `/`, or a file by its ending: a path or the URL of a store. Relative paths begin at the session's folder.
    pub path: String,
    /// The format; without it, the one that the path's ending says, or Parquet.
    pub format: Option<FileFormat>,
    /// Columns that folders are named after, from the outermost, as in `year=2026/`. They are not in the files.
    pub partition_by: Vec<String>,
    /// What happens if something is there.
    pub mode: WriteMode,
    /// How the files are compressed, such as `zstd` or `zstd(3)` for Parquet, `gzip` for text.
    pub compression: Option<String>,
    /// Bytes after which another file begins.
    pub file_size: Option<u64>,
}

/// The format of files that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// Parquet.
    Parquet,
    /// Text, a row a line and values between commas, below a line with the columns' names.
    Csv,
    /// JSON values, one a line.
    Json,
}

/// What happens if something is where files are to be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// An error, and nothing is written.
    #[default]
    Error,
    /// It is replaced, when all new rows are there.
    Overwrite,
    /// It is a folder, and the rows are added to it as further files.
    Append,
}

impl DataFrame {
    /// Starts to compute the rows. Returns once that is planned, before they are there.
    ///
    /// # Errors
    /// Those of planning, as [`Session::sql`](crate::Session::sql).
    pub async fn query(&self) -> Result<Query> {
        self.run("", "").await
    }

    /// All rows.
    ///
    /// # Errors
    /// Those of planning, and why the query failed.
    pub async fn collect(&self) -> Result<Vec<RecordBatch>> {
        self.query().await?.collect().await
    }

    /// How many rows there are. They are counted where they are.
    ///
    /// # Errors
    /// As [`Self::collect`].
    pub async fn count(&self) -> Result<u64> {
        let counted = self.aggregate(Vec::new(), vec![count(lit(1_i64)).alias("count")])?;
        let batches = counted.collect().await?;
        let number = batches.iter().find_map(|batch| batch.column(0).as_primitive_opt::<Int64Type>()?.values().first().copied());
        number.and_then(|number| u64::try_from(number).ok()).ok_or_else(|| Error::internal("a count without a number"))
    }

    /// Whether there is no row. At most one is computed.
    ///
    /// # Errors
    /// As [`Self::collect`].
    pub async fn is_empty(&self) -> Result<bool> {
        let one = self.head(1)?.collect().await?;
        Ok(one.iter().all(|batch| batch.num_rows() == 0))
    }

    /// How the rows are computed, as `EXPLAIN` says it: the kind of each plan and its text.
    ///
    /// # Errors
    /// Those of planning; with `analyze`, why the query failed.
    pub async fn explain(&self, explain: Explain) -> Result<Vec<RecordBatch>> {
        let before = match (explain.analyze, explain.verbose) {
            (false, false) => "EXPLAIN ",
            (false, true) => "EXPLAIN VERBOSE ",
            (true, false) => "EXPLAIN ANALYZE ",
            (true, true) => "EXPLAIN ANALYZE VERBOSE ",
        };
        self.run(before, "").await?.collect().await
    }

    /// Writes the rows into files, which appear together when all of them are there; a write that fails leaves nothing. Returns how many
    /// rows were written.
    ///
    /// # Errors
    /// `InvalidQuery` if something is at the path, and for rows that do not fit to those that they are added to, `NotFound` for a column
    /// that is none, `Unsupported` for types that the format cannot hold and for rows that are added to one file, those of the store, and
    /// those of [`Self::collect`].
    pub async fn write(&self, write: Write) -> Result<u64> {
        let after = self.target(&write)?;
        let batches = self.run("COPY (", &after).await?.collect().await?;
        let number = batches.iter().find_map(|batch| batch.column(0).as_primitive_opt::<UInt64Type>()?.values().first().copied());
        number.ok_or_else(|| Error::internal("a write that does not say how many rows it wrote"))
    }

    /// What comes after the query of a COPY.
    fn target(&self, write: &Write) -> Result<String> {
        write.partition_by.iter().try_for_each(|column| self.check_column(column))?;
        if let Some(column) = write.partition_by.iter().find(|column| !is_word(column)) {
            let error = Error::unsupported(format!("folders cannot be named after the column '{column}'"));
            return Err(error.with_help("rename it to a name of letters, digits and underscores"));
        }
        let mut text = format!(") TO {}", quote(&write.path, '\''));
        match write.format {
            Some(FileFormat::Parquet) => text.push_str(" STORED AS PARQUET"),
            Some(FileFormat::Csv) => text.push_str(" STORED AS CSV"),
            Some(FileFormat::Json) => text.push_str(" STORED AS JSON"),
            None if write.path.ends_with('/') => text.push_str(" STORED AS PARQUET"),
            None => {}
        }
        if !write.partition_by.is_empty() {
            text.push_str(&format!(" PARTITIONED BY ({})", write.partition_by.join(", ")));
        }
        let mut options = Vec::new();
        match write.mode {
            WriteMode::Error => {}
            WriteMode::Overwrite => options.push("'overwrite' 'true'".to_owned()),
            WriteMode::Append => options.push("'append' 'true'".to_owned()),
        }
        if let Some(compression) = &write.compression {
            options.push(format!("'format.compression' {}", quote(compression, '\'')));
        }
        if let Some(bytes) = write.file_size {
            options.push(format!("'file_size' '{}B'", ByteSize::b(bytes).as_u64()));
        }
        if !options.is_empty() {
            text.push_str(&format!(" OPTIONS ({})", options.join(", ")));
        }
        Ok(text)
    }

    /// Computes the rows now and keeps them in a table of the session, which goes with the last frame that reads it.
    ///
    /// # Errors
    /// Those of [`Self::collect`], and `Unsupported` where tables cannot be kept: for types that files cannot hold, and on servers without
    /// a folder for tables.
    pub async fn persist(&self) -> Result<Self> {
        let name = format!("frame_{:016x}", rand::unique());
        let before = format!("CREATE TABLE {} AS ", KeptTable::quoted(&name));
        let table = KeptTable::new(self.session.clone(), name.clone());
        self.run(&before, "").await?.collect().await?;
        self.session.kept(&name, table, &self.schema()).await
    }

    /// The frame with these columns, all of which it has, and their types: files may have kept values in another form.
    pub(super) fn with_types_of(&self, wants: &Schema) -> Result<Self> {
        let here = self.schema();
        let columns = wants.fields().iter().map(|field| {
            let is_same = here.field_with_name(field.name()).is_ok_and(|here| here.data_type() == field.data_type());
            if is_same { col(field.name()) } else { cast(col(field.name()), field.data_type().clone()).alias(field.name()) }
        });
        let columns: Vec<Expr> = columns.collect();
        if columns.iter().all(|column| matches!(column, Expr::Column(_))) { Ok(self.clone()) } else { self.select(columns) }
    }

    /// Runs the statement whose query is this frame.
    async fn run(&self, before: &str, after: &str) -> Result<Query> {
        let frames = Frames::one(NAME, LogicalPlan::clone(&self.plan));
        // Lists of queries show the text.
        let query = format!("SELECT * FROM \"{NAME}\" /* {} */", summary(&self.plan));
        let over = Over { before: before.to_owned(), query, after: after.to_owned(), frames };
        // What it reads stays until it is done, whatever becomes of the frame.
        self.session.sql_over(&over).await
    }
}

/// The last steps of a plan, as people would say them: `sort <- aggregate <- trips`.
fn summary(plan: &LogicalPlan) -> String {
    let mut steps: Vec<String> = Vec::new();
    let mut next = Some(plan);
    while let Some(node) = next {
        let step = match node {
            LogicalPlan::TableScan(scan) => scan.table_name.table().to_owned(),
            LogicalPlan::SubqueryAlias(_) => String::new(),
            node => node.display().to_string().split([':', ' ']).next().unwrap_or_default().to_lowercase(),
        };
        // It stands in a comment.
        let step: String = step.chars().filter(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | ' ')).take(60).collect();
        if !step.is_empty() && steps.last() != Some(&step) {
            steps.push(step);
        }
        if steps.len() == SUMMARY_STEPS {
            steps.push("...".to_owned());
            break;
        }
        next = node.inputs().into_iter().next();
    }
    steps.join(" <- ")
}

/// Whether a name is written the same in a statement.
fn is_word(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic() || c == '_') && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}
