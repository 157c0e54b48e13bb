//! What needs no library of Python; workers with one are tested in `python-bindings/tests/test_udf.py`.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Int64Array, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use tokio::runtime::Handle;
use windrow_core::failure::Failure;
use windrow_planner::{PythonFormat, PythonStyle};

use super::message::{HEAD_BYTES, Hello, head, read_head, results};
use super::*;

fn function(memory: Option<u64>) -> Arc<PythonFunction> {
    let schema = Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8View, true)]));
    Arc::new(PythonFunction {
        name: "shout".to_owned(),
        pickle: "none".into(),
        style: PythonStyle::Batches,
        format: PythonFormat::Arrow,
        schema,
        batch_size: 8,
        concurrency: Some(1),
        memory,
        deterministic: true,
        python: String::new(),
        cloudpickle: String::new(),
    })
}

fn rows() -> RecordBatch {
    RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![1, 2, 3])) as _)]).unwrap()
}

/// How a call with this interpreter fails.
async fn failure(program: Option<&Path>, memory: Option<u64>) -> Failed {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 20));
    let workers = PythonWorkers::new(program.map(Path::to_owned), 2, pool, Handle::current());
    let failed = workers.runner().call(function(memory), rows(), 16).await.unwrap_err();
    workers.close().await;
    assert_eq!(*workers.living.borrow(), 0);
    failed
}

#[tokio::test]
async fn without_an_interpreter_no_function_is_called() {
    let failed = failure(None, None).await;
    assert_eq!(failed.failure, Failure::Fatal { kind: ErrorKind::Denied });
    assert!(failed.message.contains("executor.python"), "{failed}");
}

#[tokio::test]
async fn what_is_no_interpreter_is_named() {
    for (program, why) in [("/none/python", "No such file"), ("/bin/false", "does not start: exit code 1")] {
        let failed = failure(Some(Path::new(program)), None).await;
        assert_eq!(failed.failure, Failure::Fatal { kind: ErrorKind::InvalidConfig });
        assert!(failed.message.contains(program) && failed.message.contains(why), "{failed}");
    }
}

#[tokio::test]
async fn memory_for_a_worker_is_the_executors() {
    let failed = failure(Some(Path::new("/bin/false")), Some(2 << 20)).await;
    assert!(matches!(failed.failure, Failure::Resources { asked, .. } if asked == 2 << 20), "{failed:?}");
    assert!(failed.message.contains("'shout'"), "{failed}");
}

#[test]
fn messages_are_read_as_they_are_written() {
    let head: [u8; HEAD_BYTES] = head(b'B', 300);
    assert_eq!(read_head(head), (b'B', 300));
    let parts = |texts: &[&str]| -> Vec<u8> {
        texts.iter().flat_map(|text| [&u32::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes()].concat()).collect()
    };
    let report = Report::read(&parts(&["memory", "MemoryError", ""])).unwrap();
    assert!(report.is_memory() && report.line == "MemoryError");
    let hello = Hello::read(&parts(&["3.11.7", "26.0.1", "3.1.2", ""])).unwrap();
    assert_eq!((hello.python.as_str(), hello.cloudpickle.as_str()), ("3.11.7", "3.1.2"));
    let forged: [&[u8]; 4] = [&[], &[1, 0], &[9, 0, 0, 0, 1], &parts(&["one"])];
    assert!(forged.iter().all(|body| Report::read(body).is_none()));
}

#[test]
fn results_are_of_the_columns_that_were_asked_for() {
    let wants = function(None).worker_schema();
    assert_eq!(wants.field(0).data_type(), &DataType::Utf8);
    let names = RecordBatch::try_from_iter([("name", Arc::new(arrow::array::StringArray::from(vec!["a", "b"])) as _)]).unwrap();
    let message = message::batch(&names).unwrap();
    assert_eq!(results(vec![message.clone(), message.clone()], &wants).unwrap(), [names.clone(), names]);
    let views = RecordBatch::try_from_iter([("name", Arc::new(StringViewArray::from(vec!["a"])) as _)]).unwrap();
    for other in [rows(), views] {
        let error = results(vec![message::batch(&other).unwrap()], &wants).unwrap_err();
        assert!(error.to_string().contains("in place of"), "{error}");
    }
    let cut = message.get(..message.len() / 2).unwrap().to_vec();
    assert!(results(vec![cut], &wants).is_err());
    assert!(results(vec![b"no stream at all".to_vec()], &wants).is_err());
}
