//! Every format over values of many types, snapshots as files.

use arrow::array::{
    BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int64Array, ListArray, StringArray,
    StringViewArray, StructArray,
};
use arrow::datatypes::{DataType, Int32Type};

use super::*;

fn text(format: Format, width: Option<usize>, batches: &[RecordBatch], schema: &SchemaRef) -> String {
    let mut renderer = Renderer::new(format, schema, width, Vec::new());
    for batch in batches {
        renderer.write(batch).expect("writes");
    }
    String::from_utf8(renderer.finish().expect("finishes")).expect("is text")
}

fn many_types() -> RecordBatch {
    let point = StructArray::from(vec![(
        Arc::new(Field::new("x", DataType::Int64, true)),
        Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) as ArrayRef,
    )]);
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let price = Decimal128Array::from(vec![Some(12345), None, Some(-5)]).with_precision_and_scale(12, 2).expect("fits");
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("id", Arc::new(Int64Array::from(vec![1, -20, 300])), true),
        ("name", Arc::new(StringArray::from(vec![Some("plain, with comma"), None, Some("宽 \"quoted\" | bar\nline")])), true),
        ("view", Arc::new(StringViewArray::from(vec![Some("a"), Some(""), None])), true),
        ("price", Arc::new(price), true),
        ("share", Arc::new(Float64Array::from(vec![Some(0.5), Some(f64::NAN), None])), true),
        ("day", Arc::new(Date32Array::from(vec![Some(0), Some(20_000), None])), true),
        ("is_new", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])), true),
        ("kind", Arc::new(["x", "y", "x"].into_iter().collect::<DictionaryArray<Int32Type>>()), true),
        ("point", Arc::new(point), true),
        ("list", Arc::new(list), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).expect("is a batch")
}

fn numbers(range: std::ops::Range<i64>) -> RecordBatch {
    RecordBatch::try_from_iter([("n", Arc::new(range.collect::<Int64Array>()) as ArrayRef)]).expect("is a batch")
}

const ALL: [(Format, &str); 5] = [
    (Format::Table, "table"),
    (Format::Csv, "csv"),
    (Format::Json, "json"),
    (Format::Jsonl, "jsonl"),
    (Format::Markdown, "markdown"),
];

#[test]
fn every_format_writes_every_type() {
    let batch = many_types();
    for (format, name) in ALL {
        insta::assert_snapshot!(format!("types_{name}"), text(format, None, std::slice::from_ref(&batch), &batch.schema()));
    }
}

#[test]
fn no_rows_still_show_the_columns() {
    let schema = many_types().schema();
    for (format, name) in ALL {
        insta::assert_snapshot!(format!("empty_{name}"), text(format, None, &[], &schema));
    }
}

#[test]
fn a_statement_without_columns_writes_nothing() {
    for (format, _) in ALL {
        assert_eq!(text(format, None, &[], &Arc::new(Schema::empty())), "");
    }
}

#[test]
fn the_header_comes_once_over_many_batches() {
    let batches = [numbers(0..1), numbers(1..2)];
    let schema = numbers(0..0).schema();
    assert_eq!(text(Format::Csv, None, &batches, &schema), "n\n0\n1\n");
    assert_eq!(text(Format::Markdown, None, &batches, &schema), "| n |\n| ---: |\n| 0 |\n| 1 |\n");
    assert_eq!(text(Format::Json, None, &batches, &schema), "[{\"n\":0},{\"n\":1}]\n");
    assert_eq!(text(Format::Jsonl, None, &batches, &schema), "{\"n\":0}\n{\"n\":1}\n");
}

#[test]
fn forty_rows_are_shown_and_more_are_folded() {
    let schema = numbers(0..0).schema();
    let whole = text(Format::Table, None, &[numbers(0..25), numbers(25..40)], &schema);
    assert_eq!(whole.lines().count(), 40 + 5);
    assert!(!whole.contains('·'));
    insta::assert_snapshot!(
        "folded",
        text(Format::Table, None, &[numbers(0..25), numbers(25..41), numbers(41..100_000)], &schema)
    );
}

#[test]
fn folding_does_not_depend_on_the_batches() {
    let schema = numbers(0..0).schema();
    let expected = text(Format::Table, None, &[numbers(0..1000)], &schema);
    for size in [1, 7, 19, 20, 21, 40, 41, 500] {
        let batches: Vec<RecordBatch> = (0..1000)
            .step_by(size)
            .map(|start| {
                let start = i64::from(start);
                numbers(start..(start + i64::try_from(size).expect("fits")).min(1000))
            })
            .collect();
        assert_eq!(text(Format::Table, None, &batches, &schema), expected, "batches of {size}");
    }
}

#[test]
fn columns_that_do_not_fit_are_counted() {
    let batch = many_types();
    let narrow = text(Format::Table, Some(60), std::slice::from_ref(&batch), &batch.schema());
    assert!(narrow.lines().all(|line| unicode_width::UnicodeWidthStr::width(line) <= 60), "{narrow}");
    insta::assert_snapshot!("narrow", narrow);
}

#[test]
fn an_output_that_is_gone_ends_the_writing() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for (format, name) in ALL {
        let batch = numbers(0..3);
        let mut renderer = Renderer::new(format, &batch.schema(), None, Gone);
        let end = renderer.write(&batch).and_then(|()| renderer.finish().map(drop)).expect_err(name);
        assert!(matches!(end, End::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe), "{name}");
    }
}

#[test]
fn a_plan_is_text_and_not_a_box() {
    let rows = [("plan_type", vec!["logical plan", "stages"]), ("plan", vec!["Sort: n\n  TableScan: t", "Stage 0: 1 partition"])];
    let columns = rows.map(|(name, values)| (name, Arc::new(StringArray::from(values)) as ArrayRef));
    let batch = RecordBatch::try_from_iter(columns).expect("is a batch");
    let expected = "logical plan\n  Sort: n\n    TableScan: t\nstages\n  Stage 0: 1 partition\n";
    assert_eq!(text(Format::Table, Some(10), std::slice::from_ref(&batch), &batch.schema()), expected);
    assert!(text(Format::Csv, None, std::slice::from_ref(&batch), &batch.schema()).starts_with("plan_type,plan\n"));
}
