//! Names and statements for paths of every kind.

use std::fs;
use std::path::Path;

use windrow_core::ErrorKind;

use super::{Look, create_table, create_table_text, table_name};

#[test]
fn a_path_names_its_table() {
    let cases = [
        ("data.csv", "data"),
        ("/a/b/Orders.PARQUET", "orders"),
        ("a/lineitem.tbl.csv.gz", "lineitem_tbl"),
        ("a/events.jsonl.zst", "events"),
        ("a/b.c/", "b_c"),
        ("orders/*.parquet", "orders"),
        ("orders/year=*/*.csv", "orders"),
        ("../sales", "sales"),
        ("2024 sales-eu.csv", "_2024_sales_eu"),
        ("s3://bucket/tables/part.parquet", "part"),
        ("https://host/x.csv", "x"),
        ("größe.csv", "größe"),
        (".", "data"),
        ("*.csv", "data"),
    ];
    for (path, expected) in cases {
        assert_eq!(table_name(path), expected);
    }
}

#[test]
fn a_path_becomes_a_statement() {
    let cases = [
        ("a.parquet", "STORED AS PARQUET LOCATION '/home/a.parquet'"),
        ("/x/a.parquet", "STORED AS PARQUET LOCATION '/x/a.parquet'"),
        ("./b/../it's.csv", "STORED AS CSV LOCATION '/home/it''s.csv' OPTIONS ('format.has_header' 'true')"),
        ("a.tsv", "STORED AS CSV LOCATION '/home/a.tsv' OPTIONS ('format.has_header' 'true', 'format.delimiter' '\t')"),
        ("a.CSV.GZ", "STORED AS CSV LOCATION '/home/a.CSV.GZ' OPTIONS ('format.has_header' 'true', 'format.compression' 'gzip')"),
        ("a.json.bz2", "STORED AS JSON LOCATION '/home/a.json.bz2' OPTIONS ('format.compression' 'bzip2')"),
        ("a.jsonl.xz", "STORED AS JSON LOCATION '/home/a.jsonl.xz' OPTIONS ('format.compression' 'xz')"),
        ("a.ndjson.zst", "STORED AS JSON LOCATION '/home/a.ndjson.zst' OPTIONS ('format.compression' 'zstd')"),
        ("d/*.parquet", "STORED AS PARQUET LOCATION '/home/d/*.parquet'"),
        ("s3://bucket/a.parquet", "STORED AS PARQUET LOCATION 's3://bucket/a.parquet'"),
        ("https://host/a.csv", "STORED AS CSV LOCATION 'https://host/a.csv' OPTIONS ('format.has_header' 'true')"),
    ];
    for (path, expected) in cases {
        let text = create_table("my \"t\"", path, Path::new("/home"), Look::Elsewhere).unwrap();
        assert_eq!(text, format!("CREATE OR REPLACE EXTERNAL TABLE temp.\"my \"\"t\"\"\" {expected}"));
    }
}

#[test]
fn an_unknown_extension_is_refused_with_those_known() {
    let cases = ["notes.txt", "data", "a.parquet.gz", "http://host/a"];
    for path in cases {
        let error = create_table("t", path, Path::new("/home"), Look::Elsewhere).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert!(error.context.help.unwrap().contains(".ndjson"));
    }
}

#[test]
fn a_missing_file_is_reported_with_the_nearest_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("orders.csv"), "a\n1\n").unwrap();
    let error = create_table_text("t", "ordrs.csv", folder.path()).unwrap_err();
    assert_eq!((error.kind, error.context.suggestion.as_deref()), (ErrorKind::NotFound, Some("orders.csv")));
}

#[test]
fn a_folder_is_read_as_its_first_data_file() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (path, text) in [("hive/_SUCCESS", ""), ("hive/y=1/a.parquet", "x"), ("tabs/a.tsv.gz", "x"), ("empty/readme.txt", "")] {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), text).unwrap();
    }
    let text = |path: &str| create_table_text("t", path, root);
    let root_text = root.to_str().unwrap();
    assert!(text("hive").unwrap().ends_with(&format!("STORED AS PARQUET LOCATION '{root_text}/hive/'")));
    assert!(text("tabs/").unwrap().contains(&format!("LOCATION '{root_text}/tabs/**/*.tsv.gz'")));
    assert_eq!(text("empty").unwrap_err().kind, ErrorKind::NotFound);
}

#[test]
fn a_json_file_that_begins_with_a_bracket_is_one_array() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("array.json"), " \n[{\"a\": 1}]").unwrap();
    fs::write(folder.path().join("lines.json"), "{\"a\": [1]}\n").unwrap();
    assert!(create_table_text("t", "array.json", folder.path()).unwrap().contains("'format.newline_delimited' 'false'"));
    assert!(!create_table_text("t", "lines.json", folder.path()).unwrap().contains("newline_delimited"));
}
