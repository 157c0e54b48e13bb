//! What stands in a client's plan for rows that only a session can find. Next: `resolve.rs`.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, TableType};
use datafusion::physical_plan::ExecutionPlan;
use windrow_core::Error;

use super::{Frames, ReadFiles};
use crate::diagnose::ours;
use crate::files::looks_like_path;

/// Where the rows of a stub are.
#[derive(Debug, Clone)]
pub enum Stub {
    /// In a table, a view or a file, by its name as it would be in FROM, but that upper and lower case count.
    Table(String),
    /// In the answer of a query, which may name frames as tables.
    Query {
        /// Its text.
        text: String,
        /// What it may name besides the session's tables.
        frames: Frames,
    },
    /// In files.
    Files(ReadFiles),
    /// Here: a few rows of the client, of the stub's own columns.
    Rows(Vec<RecordBatch>),
}

impl Stub {
    /// A plan that reads the stub's rows, of which `schema` are the columns; an empty one where they are to be found out.
    ///
    /// # Errors
    /// Those of DataFusion for columns that no plan can have, such as two of one name.
    pub fn scan(self, schema: SchemaRef) -> Result<LogicalPlan> {
        let name = TableReference::bare(self.name());
        let table = Arc::new(StubTable { stub: self, schema });
        LogicalPlanBuilder::scan(name, provider_as_source(table), None)?.build()
    }

    /// As [`Self::scan`], to find the columns out.
    ///
    /// # Errors
    /// None is known.
    pub fn open(self) -> Result<LogicalPlan> {
        self.scan(Arc::new(Schema::empty()))
    }

    /// What plans show.
    fn name(&self) -> String {
        match self {
            Self::Table(name) => reference(name).table().to_owned(),
            Self::Query { .. } => "query".to_owned(),
            Self::Files(files) => files.name(),
            Self::Rows(_) => "rows".to_owned(),
        }
    }
}

/// A stub, as plans read it.
#[derive(Debug, Clone)]
pub struct StubTable {
    stub: Stub,
    schema: SchemaRef,
}

impl StubTable {
    /// A table for a plan that comes from elsewhere.
    pub(super) fn new(stub: Stub, schema: SchemaRef) -> Self {
        Self { stub, schema }
    }

    /// The stub that `scan` reads, if it reads one.
    #[must_use]
    pub fn of(scan: &TableScan) -> Option<Self> {
        source_as_provider(&scan.source).ok()?.downcast_ref::<Self>().cloned()
    }

    /// Where the rows are.
    #[must_use]
    pub fn stub(&self) -> &Stub {
        &self.stub
    }

    /// The columns, as the plan was made for.
    #[must_use]
    pub fn columns(&self) -> &SchemaRef {
        &self.schema
    }
}

#[async_trait]
impl TableProvider for StubTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Err(ours(Error::internal("a table of a client's plan was planned before it was looked up")))
    }
}

/// A table's name, in which dots divide catalog, schema and table, and double quotes hold what has dots itself. What means a file is one
/// name, whatever is in it.
pub(super) fn reference(name: &str) -> TableReference {
    if !name.contains('"') && looks_like_path(name) {
        return TableReference::bare(name);
    }
    let mut parts = vec![String::new()];
    let (mut quoted, mut letters) = (false, name.chars().peekable());
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                parts.last_mut().into_iter().for_each(|part| part.push('"'));
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            letter => parts.last_mut().into_iter().for_each(|part| part.push(letter)),
        }
    }
    match parts.as_slice() {
        [schema, table] => TableReference::partial(schema.as_str(), table.as_str()),
        [catalog, schema, table] => TableReference::full(catalog.as_str(), schema.as_str(), table.as_str()),
        [table] => TableReference::bare(table.as_str()),
        _ => TableReference::bare(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_and_dots_divide_them() {
        assert_eq!(reference("Trips"), TableReference::bare("Trips"));
        assert_eq!(reference("s.Trips"), TableReference::partial("s", "Trips"));
        assert_eq!(reference("windrow.s.t"), TableReference::full("windrow", "s", "t"));
        assert_eq!(reference("\"a.b\".\"c\"\"d\""), TableReference::partial("a.b", "c\"d"));
        assert_eq!(reference("data/x.y/*.parquet"), TableReference::bare("data/x.y/*.parquet"));
        assert_eq!(reference("x.csv.gz"), TableReference::bare("x.csv.gz"));
    }
}
