//! Tests of the classification: every kind of error, through every wrapper, two deep.

use std::sync::Arc;

use super::*;

fn ours() -> Failed {
    Failed::new(Failure::Transient { what: TransientKind::Network, retry_after_ms: Some(5) }, "ours")
}

type Wrapper = fn(DataFusionError) -> DataFusionError;

/// Everything that can be around an error on its way here.
const WRAPPERS: [Wrapper; 8] = [
    |error| error.context("around"),
    |error| DataFusionError::Shared(Arc::new(error)),
    |error| DataFusionError::Collection(vec![DataFusionError::External(Box::new(Failed::cancelled(CancelReason::Loser))), error]),
    |error| DataFusionError::External(Box::new(error)),
    |error| DataFusionError::ArrowError(Box::new(ArrowError::ExternalError(Box::new(error))), None),
    |error| DataFusionError::ParquetError(Box::new(ParquetError::External(Box::new(error)))),
    |error| DataFusionError::IoError(io::Error::other(error)),
    |error| DataFusionError::ObjectStore(Box::new(object_store::Error::Generic { store: "test", source: Box::new(error) })),
];

#[test]
fn every_failure_survives_every_wrapper_two_deep() {
    let failures = [
        ours(),
        Failed::new(Failure::Panic, "panic"),
        Failed::new(Failure::Corrupt, "corrupt"),
        Failed::new(Failure::Fatal { kind: ErrorKind::Denied }, "denied"),
        Failed::new(Failure::Resources { what: Resource::Disk, asked: 1, limit: 2 }, "disk"),
    ];
    for failed in failures {
        for outer in WRAPPERS {
            for inner in WRAPPERS {
                let error = outer(inner(DataFusionError::External(Box::new(failed.clone()))));
                assert_eq!(classify(&error).failure, failed.failure, "{error:?}");
            }
        }
    }
}

#[test]
fn errors_of_the_user_and_of_the_machine_are_told_apart() {
    let arrow = |error| DataFusionError::ArrowError(Box::new(error), None);
    let io = |code| DataFusionError::IoError(io::Error::from_raw_os_error(code));
    let fatal = |kind| Failure::Fatal { kind };
    let table = [
        (arrow(ArrowError::DivideByZero), fatal(ErrorKind::Data)),
        (arrow(ArrowError::ArithmeticOverflow("1 + 1".into())), fatal(ErrorKind::Data)),
        (arrow(ArrowError::CastError("'x' to Int32".into())), fatal(ErrorKind::Data)),
        (arrow(ArrowError::CsvError("line 3".into())), fatal(ErrorKind::Data)),
        (DataFusionError::ParquetError(Box::new(ParquetError::EOF("short".into()))), fatal(ErrorKind::Data)),
        (DataFusionError::NotImplemented("this".into()), fatal(ErrorKind::Unsupported)),
        (DataFusionError::Internal("bug".into()), Failure::Internal),
        (io(28), Failure::Resources { what: Resource::Disk, asked: 0, limit: 0 }),
        (io(24), Failure::Resources { what: Resource::Handles, asked: 0, limit: 0 }),
        (io(2), fatal(ErrorKind::NotFound)),
        (io(5), Failure::Transient { what: TransientKind::Io, retry_after_ms: None }),
        (io(104), Failure::Transient { what: TransientKind::Network, retry_after_ms: None }),
        (DataFusionError::ResourcesExhausted("pool".into()), Failure::Resources { what: Resource::Memory, asked: 0, limit: 0 }),
    ];
    for (error, expected) in table {
        assert_eq!(classify(&error).failure, expected, "{error:?}");
    }
}

#[test]
fn a_missing_object_is_named() {
    let source = Box::new(io::Error::from_raw_os_error(2));
    let error = object_store::Error::NotFound { path: "data/t.parquet".into(), source };
    let failed = classify(&DataFusionError::ObjectStore(Box::new(error)));
    assert_eq!(failed.failure, Failure::Fatal { kind: ErrorKind::NotFound });
    assert!(failed.message.contains("data/t.parquet"));
}

#[tokio::test]
async fn a_panic_of_a_task_is_a_panic() {
    let error = tokio::spawn(async { panic!("on purpose") }).await.unwrap_err();
    let failed = classify(&DataFusionError::ExecutionJoin(Box::new(error)));
    assert_eq!(failed.failure, Failure::Panic);
    assert!(failed.message.contains("on purpose"), "{failed}");
}
