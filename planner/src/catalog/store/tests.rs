//! The database after a restart, and when it is damaged, cut, foreign, or of another version.

use super::*;
use crate::catalog::definition::{Body, Columns, ViewDefinition};

fn view(name: &str) -> Definition {
    let schema = arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new("a", arrow::datatypes::DataType::Int64, true)]);
    let body = Body::View(ViewDefinition {
        sql: format!("CREATE VIEW {name} AS SELECT 1 AS a"),
        search: "public".into(),
        directory: "/data".into(),
        columns: Columns::of(&schema).unwrap(),
    });
    Definition { schema: "public".into(), name: name.into(), owner: "ann".into(), created_at: 7, body }
}

/// A closed database of three views, as bytes.
fn written(folder: &Path) -> (Vec<Definition>, Vec<u8>) {
    let views: Vec<_> = ["a", "b", "c/d"].iter().map(|name| view(name)).collect();
    let (store, before) = Store::open(folder).unwrap();
    assert!(before.is_empty());
    store.write(&views.iter().map(Change::Put).collect::<Vec<_>>()).unwrap();
    drop(store);
    let bytes = std::fs::read(folder.join("catalog.redb")).unwrap();
    (views, bytes)
}

#[test]
fn what_was_written_is_read_again_and_what_was_removed_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (views, _) = written(folder.path());
    let (store, read) = Store::open(folder.path()).unwrap();
    assert_eq!(read, views);
    assert_eq!(read[0].columns().unwrap().field(0).name(), "a");
    store.write(&[Change::Remove(&views[1]), Change::Remove(&views[1])]).unwrap();
    drop(store);
    let (_store, read) = Store::open(folder.path()).unwrap();
    assert_eq!(read, [views[0].clone(), views[2].clone()]);
}

#[test]
fn two_do_not_open_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidConfig);
    assert!(error.message.starts_with("another scheduler uses"), "{error}");
    drop(first);
    assert!(Store::open(folder.path()).is_ok());
}

/// Opens changed bytes: they are refused with what to do, or hold exactly what was written.
#[track_caller]
fn is_refused_or_whole(folder: &Path, bytes: &[u8], views: &[Definition], what: &str) -> bool {
    std::fs::write(folder.join("catalog.redb"), bytes).unwrap();
    match Store::open(folder) {
        Ok((_store, read)) => {
            assert_eq!(read, views, "{what}");
            false
        }
        Err(error) => {
            assert!(error.message.contains("catalog.redb") && error.context.help.is_some(), "{what}: {error}");
            true
        }
    }
}

#[test]
fn a_cut_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (views, bytes) = written(folder.path());
    for length in [0, 1, 8, 63, 64, 320, 4095, 4096, 4097, bytes.len() / 2, bytes.len() - 1] {
        assert!(is_refused_or_whole(folder.path(), &bytes[..length], &views, &format!("{length} bytes")), "{length} bytes");
    }
    assert!(!is_refused_or_whole(folder.path(), &bytes, &views, "whole"));
}

#[test]
fn flipped_bits_are_refused_or_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (views, bytes) = written(folder.path());
    let used: Vec<usize> = (0..bytes.len()).filter(|&index| bytes[index] != 0).collect();
    let step = (used.len() / 150).max(1);
    let mut refused = 0;
    for &index in used.iter().step_by(step) {
        let mut changed = bytes.clone();
        changed[index] ^= 1 << (index % 8);
        refused += u32::from(is_refused_or_whole(folder.path(), &changed, &views, &format!("bit of byte {index}")));
    }
    assert!(refused >= 10, "{refused} of 150 flips were found");
}

#[test]
fn another_version_and_another_programs_file_are_told() {
    const OTHERS: TableDefinition<'_, u64, u64> = TableDefinition::new("others");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    written(folder.path());
    let change = |value: Option<&[u8]>| {
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        match value {
            Some(value) => drop(transaction.open_table(OBJECTS).unwrap().insert(("view", "public", "a"), value).unwrap()),
            None => drop(transaction.open_table(ABOUT).unwrap().insert("format", FORMAT + 1).unwrap()),
        }
        transaction.commit().unwrap();
    };
    change(Some(&[9, 1, 2, 3]));
    let error = Store::open(folder.path()).unwrap_err();
    assert!(error.message.contains("format 9"), "{error}");
    change(None);
    let error = Store::open(folder.path()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidConfig);
    assert!(error.message.contains("is in format 2") && error.context.help.is_some(), "{error}");

    std::fs::remove_file(&path).unwrap();
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(OTHERS).unwrap().insert(1, 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Store::open(folder.path()).unwrap_err();
    assert!(error.message.contains("another program"), "{error}");
    std::fs::write(&path, "not a database at all, but long enough to be looked at").unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Data, "{error}");
}
