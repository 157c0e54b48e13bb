//! The generated files, read back.

use std::fs::File;
use std::path::Path;

use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

fn options(output: &Path, format: Format, parts: u32) -> Options {
    Options { scale: 0.001, output: output.to_owned(), format, parts }
}

fn rows(generated: &[Generated]) -> Vec<(&'static str, u64)> {
    generated.iter().map(|table| (table.table.name(), table.rows)).collect()
}

const ROWS: [(&str, u64); 8] = [
    ("lineitem", 6005),
    ("orders", 1500),
    ("partsupp", 800),
    ("part", 200),
    ("customer", 150),
    ("supplier", 10),
    ("nation", 25),
    ("region", 5),
];

#[test]
fn any_number_of_parts_holds_the_same_rows() {
    for parts in [1, 3, 4] {
        let folder = tempfile::tempdir().expect("a folder");
        let generated = generate(&options(folder.path(), Format::Parquet, parts)).expect("generates");
        assert_eq!(rows(&generated), ROWS, "{parts} parts");
        for table in generated {
            assert_eq!(table.files, if table.table.is_large() { parts } else { 1 });
            let mut read = 0;
            for index in 0..table.files {
                let path = folder.path().join(table.table.name()).join(format!("part-{index}.parquet"));
                let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("is there")).expect("is parquet");
                let schema = reader.schema();
                assert!(schema.fields().iter().all(|field| *field.data_type() != DataType::Utf8View), "{schema}");
                read += reader.build().expect("reads").map(|batch| batch.expect("reads").num_rows() as u64).sum::<u64>();
            }
            assert_eq!(read, table.rows);
        }
    }
}

#[test]
fn csv_has_a_header_and_a_line_for_each_row() {
    let folder = tempfile::tempdir().expect("a folder");
    generate(&options(folder.path(), Format::Csv, 2)).expect("generates");
    let nation = std::fs::read_to_string(folder.path().join("nation/part-0.csv")).expect("is there");
    assert!(nation.starts_with("n_nationkey,n_name,n_regionkey,n_comment\n0,ALGERIA,0,"), "{nation}");
    assert_eq!(nation.lines().count(), 26);
    let lines = |index| {
        std::fs::read_to_string(folder.path().join(format!("lineitem/part-{index}.csv"))).expect("is there").lines().count()
    };
    assert_eq!(lines(0) + lines(1), 6005 + 2);
}

#[test]
fn files_of_another_time_are_not_mixed_in() {
    let folder = tempfile::tempdir().expect("a folder");
    generate(&options(folder.path(), Format::Parquet, 2)).expect("generates");
    let error = generate(&options(folder.path(), Format::Parquet, 1)).expect_err("is refused");
    assert_eq!(error.kind, ErrorKind::InvalidConfig);
    assert!(error.message.contains("lineitem"), "{error}");
}

#[test]
fn a_scale_that_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = generate(&Options { scale, ..options(folder.path(), Format::Csv, 1) }).expect_err("is refused");
        assert_eq!(error.kind, ErrorKind::InvalidConfig);
    }
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("writes");
    let error = generate(&options(&file, Format::Csv, 1)).expect_err("is refused");
    assert!(error.message.contains("file"), "{error}");
}
