//! Where frames come from: tables, queries, files, rows of the client. Next: `expressions.rs`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use windrow_core::{Error, ErrorKind, Result, rand};
use windrow_planner::{Frames, IngestMode, IngestTarget, ReadFiles, Stub};

use super::actions::NAME;
use super::kept::{Kept, KeptTable};
use super::{DataFrame, fail, plain};
use crate::session::{Over, Session};

/// Bytes of rows that stay in a frame's plan; more are written into a table. A plan travels with each query over it.
const ROWS_BYTES_MAX: usize = 64 << 10;

/// What the keys of a field's metadata begin with that say which table a column comes from.
const ORIGIN: &str = "ARROW:FLIGHT:SQL:";

impl Session {
    /// The frame of a table, a view or a file. Names are exact: dots divide catalog, schema and table, double quotes hold a name that has
    /// dots itself.
    ///
    /// # Errors
    /// `NotFound` with the nearest name, and those of opening it.
    pub async fn table(&self, name: &str) -> Result<DataFrame> {
        self.opened(Stub::Table(name.to_owned())).await
    }

    /// The frame of a query, which does not run before the frame's rows are asked for.
    ///
    /// # Errors
    /// Those of planning, with a position; `Unsupported` for statements that are no queries.
    pub async fn frame(&self, sql: &str) -> Result<DataFrame> {
        self.frame_with(sql, &[]).await
    }

    /// As [`Self::frame`], for a query that may name other frames as tables.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> windrow::Result<()> {
    /// let session = windrow::connect(None).await?;
    /// let numbers = session.frame("SELECT * FROM (VALUES (1), (2), (3)) AS t(x)").await?;
    /// let sum = session.frame_with("SELECT sum(x) AS total FROM df", &[("df", &numbers)]).await?;
    /// assert_eq!(sum.columns(), ["total"]);
    /// # drop((numbers, sum));
    /// # session.close().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::frame`].
    pub async fn frame_with(&self, sql: &str, frames: &[(&str, &DataFrame)]) -> Result<DataFrame> {
        let plans = frames.iter().map(|(name, frame)| ((*name).to_owned(), frame.logical_plan().clone())).collect();
        let mut made = self.opened(Stub::Query { text: sql.to_owned(), frames: plans }).await?;
        for (_, frame) in frames {
            made.kept = made.kept.with(&frame.kept);
        }
        Ok(made)
    }

    /// The frame of files. Their columns are found out, unless they are given; nothing else is read.
    ///
    /// # Errors
    /// `NotFound` if there are none, `Denied` where none may be opened, `Data` for files that cannot be read.
    pub async fn read(&self, files: ReadFiles) -> Result<DataFrame> {
        self.opened(Stub::Files(files)).await
    }

    /// The frame of the client's rows. Few stay with the frame; many are written once into a table of the session, which goes with the
    /// last frame that reads it.
    ///
    /// # Errors
    /// Those of the stream; `Data` for rows of other columns; `Unsupported` for many rows of types that files cannot hold.
    pub async fn from_batches(
        &self,
        schema: SchemaRef,
        rows: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
    ) -> Result<DataFrame> {
        let wants = SchemaRef::clone(&schema);
        let rows = rows.map(move |batch| batch.and_then(|batch| of_columns(batch, &wants)));
        let mut rows = rows.boxed();
        let (mut few, mut bytes) = (Vec::new(), 0_usize);
        while let Some(batch) = rows.try_next().await? {
            bytes = bytes.saturating_add(batch.get_array_memory_size());
            few.push(batch);
            if bytes > ROWS_BYTES_MAX {
                let all = stream::iter(few.into_iter().map(Ok)).chain(rows).boxed();
                return self.ingested(schema, all).await;
            }
        }
        let plan = Stub::Rows(few).scan(schema).map_err(fail)?;
        Ok(DataFrame::new(self.clone(), plain(plan)?))
    }

    async fn ingested(&self, schema: SchemaRef, rows: BoxStream<'static, Result<RecordBatch>>) -> Result<DataFrame> {
        let name = format!("frame_{:016x}", rand::unique());
        let target = IngestTarget { catalog: None, schema: None, table: name.clone(), temporary: true, mode: IngestMode::Create };
        let table = KeptTable::new(self.clone(), name.clone());
        self.ingest(target, SchemaRef::clone(&schema), rows).await?;
        self.kept(&name, table, &schema).await
    }

    /// The frame of a table that goes with it, with columns of these types.
    pub(super) async fn kept(&self, name: &str, table: Arc<KeptTable>, columns: &Schema) -> Result<DataFrame> {
        let stored = self.opened(Stub::Table(KeptTable::quoted(name))).await?;
        let mut frame = stored.with_types_of(columns)?;
        frame.kept = Kept::one(table);
        Ok(frame)
    }

    /// The frame of a stub, once its columns are known.
    pub(super) async fn opened(&self, stub: Stub) -> Result<DataFrame> {
        let frames = Frames::one(NAME, stub.clone().open().map_err(fail)?);
        let over = Over { before: String::new(), query: format!("SELECT * FROM \"{NAME}\""), after: String::new(), frames };
        let schema = without_origins(self.schema_over(&over).await?.as_ref());
        let plan = stub.scan(schema).map_err(fail)?;
        Ok(DataFrame::new(self.clone(), plain(plan)?))
    }
}

/// The columns without the names of their tables, which drivers are told: a frame's columns are its own.
fn without_origins(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let mut metadata = field.metadata().clone();
        metadata.retain(|key, _| !key.starts_with(ORIGIN));
        Arc::new(field.as_ref().clone().with_metadata(metadata))
    });
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}

/// The batch, if it has these columns.
fn of_columns(batch: RecordBatch, wants: &SchemaRef) -> Result<RecordBatch> {
    let types = |schema: &SchemaRef| {
        let fields = schema.fields().iter();
        fields.map(|field| (field.name().clone(), field.data_type().clone())).collect::<Vec<(String, DataType)>>()
    };
    if types(&batch.schema()) == types(wants) {
        return RecordBatch::try_new(SchemaRef::clone(wants), batch.columns().to_vec()).map_err(|source| {
            Error::new(ErrorKind::Data, format!("rows do not fit their columns: {source}")).with_source(source)
        });
    }
    let what = format!("rows of the columns {:?} came among those of {:?}", types(&batch.schema()), types(wants));
    Err(Error::new(ErrorKind::Data, what))
}
