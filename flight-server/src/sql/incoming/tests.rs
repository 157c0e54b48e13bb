//! Messages that lie: each is an error or a right answer, whatever was changed in it.

use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Int64Array, ListArray, NullArray, StringArray, StringViewArray, StructArray};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::{IpcMessage, SchemaAsIpc};
use futures::{TryStreamExt, stream};
use windrow_core::cases::Cases;

use super::*;

/// Rows, a number that occurs nowhere else in a message.
const ROWS: usize = 777;

fn batch() -> RecordBatch {
    let numbers: ArrayRef = Arc::new((0..ROWS).map(|n| (n % 5 > 0).then_some(n as i64)).collect::<Int64Array>());
    let texts: ArrayRef = Arc::new((0..ROWS).map(|n| Some(format!("text {n}"))).collect::<StringArray>());
    let views: ArrayRef =
        Arc::new((0..ROWS).map(|n| Some(format!("a text that is no short one: {n}"))).collect::<StringViewArray>());
    let lists: ArrayRef =
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>((0..ROWS).map(|n| Some(vec![Some(n as i64), None]))));
    let codes: ArrayRef = Arc::new((0..ROWS).map(|n| Some(["a", "b", "c"][n % 3])).collect::<DictionaryArray<Int32Type>>());
    let parts = StructArray::try_from(vec![("inner", Arc::clone(&numbers))]).unwrap();
    RecordBatch::try_from_iter([
        ("numbers", numbers),
        ("texts", texts),
        ("views", views),
        ("lists", lists),
        ("codes", codes),
        ("parts", Arc::new(parts) as ArrayRef),
    ])
    .unwrap()
}

async fn messages_of(batch: RecordBatch, options: IpcWriteOptions) -> Vec<FlightData> {
    FlightDataEncoderBuilder::new()
        .with_options(options)
        .with_dictionary_handling(DictionaryHandling::Resend)
        .build(stream::iter([Ok(batch)]))
        .try_collect()
        .await
        .unwrap()
}

/// A schema, a dictionary and rows.
async fn messages() -> Vec<FlightData> {
    let messages = messages_of(batch(), IpcWriteOptions::default()).await;
    assert_eq!(messages.len(), 3);
    messages
}

async fn decode(messages: Vec<FlightData>) -> Result<Vec<RecordBatch>> {
    Incoming::new(stream::iter(messages.into_iter().map(Ok))).try_collect().await
}

/// Changes the header of a message.
fn forge(message: &FlightData, change: impl FnOnce(&mut [u8])) -> FlightData {
    let mut header = message.data_header.to_vec();
    change(&mut header);
    FlightData { data_header: header.into(), ..message.clone() }
}

/// Writes over what a part of a message's header says. Its place is found by where the reader finds it.
fn overwrite(message: &FlightData, place: impl FnOnce(&BatchHeader<'_>) -> usize, value: i64) -> FlightData {
    let parsed = root_as_message(&message.data_header).unwrap();
    let at = place(&parsed.header_as_record_batch().unwrap()) - message.data_header.as_ptr() as usize;
    forge(message, |header| header[at..at + 8].copy_from_slice(&value.to_le_bytes()))
}

fn address<T>(of: &T) -> usize {
    std::ptr::from_ref(of) as usize
}

fn buffer_offset(message: &FlightData, buffer: usize, value: i64) -> FlightData {
    overwrite(message, |batch| address(batch.buffers().unwrap().get(buffer)), value)
}

fn buffer_length(message: &FlightData, buffer: usize, value: i64) -> FlightData {
    overwrite(message, |batch| address(batch.buffers().unwrap().get(buffer)) + 8, value)
}

fn node_length(message: &FlightData, node: usize, value: i64) -> FlightData {
    overwrite(message, |batch| address(batch.nodes().unwrap().get(node)), value)
}

fn null_count(message: &FlightData, node: usize, value: i64) -> FlightData {
    overwrite(message, |batch| address(batch.nodes().unwrap().get(node)) + 8, value)
}

fn schema_message(schema: &Schema) -> FlightData {
    let options = IpcWriteOptions::default();
    let message: IpcMessage = SchemaAsIpc::new(schema, &options).try_into().unwrap();
    let bytes = message.0;
    // Without the marker and the length in front of it.
    FlightData { data_header: bytes.slice(8..), ..FlightData::default() }
}

/// The message of a schema of lists in lists, made where there is stack enough for it.
fn nested(depth: usize) -> FlightData {
    let make = move || {
        let inner = (0..depth).fold(DataType::Int64, |of, _| DataType::List(Arc::new(Field::new("item", of, true))));
        schema_message(&Schema::new(vec![Field::new("deep", inner, true)]))
    };
    std::thread::Builder::new().stack_size(256 << 20).spawn(make).unwrap().join().unwrap()
}

#[tokio::test]
async fn what_was_sent_comes_out() {
    let decoded = decode(messages().await).await.unwrap();
    assert_eq!(decoded.len(), 1);
    assert_eq!(decoded[0].columns(), batch().columns());
}

#[tokio::test]
async fn security_m16_lengths_that_are_not_there_are_errors_before_anything_is_decoded() {
    let sent = messages().await;
    let [schema, dictionary, rows] = sent.as_slice() else { panic!("three messages") };
    let of = |rows: FlightData| vec![schema.clone(), dictionary.clone(), rows];
    let body = |len: usize| FlightData { data_body: rows.data_body.slice(..len), ..rows.clone() };
    let huge = 1_i64 << 62;
    let many: Vec<Field> = (0..FIELDS_MAX + 1).map(|n| Field::new(format!("c{n}"), DataType::Null, true)).collect();
    let compressed = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).unwrap();
    let compressed = messages_of(batch(), compressed).await;
    let nulls = RecordBatch::try_from_iter([("n", Arc::new(NullArray::new(ROWS)) as ArrayRef)]).unwrap();
    let nulls = messages_of(nulls, IpcWriteOptions::default()).await;
    let mut endless = vec![schema.clone()];
    let part = FlightData { data_body: vec![0; 8 << 20].into(), ..dictionary.clone() };
    endless.extend((0..9).map(|_| part.clone()));
    let cases_of: Vec<(&str, Vec<FlightData>)> = vec![
        ("a buffer of i64::MAX bytes", of(buffer_length(rows, 1, i64::MAX))),
        ("a buffer of 2^62 bytes", of(buffer_length(rows, 3, huge))),
        ("a buffer of less than nothing", of(buffer_length(rows, 1, -1))),
        ("a buffer one byte too long", of(buffer_length(rows, 0, rows.data_body.len() as i64 + 1))),
        ("a buffer behind the end", of(buffer_offset(rows, 1, rows.data_body.len() as i64 + 64))),
        ("a buffer before the beginning", of(buffer_offset(rows, 1, -64))),
        ("a buffer at i64::MAX", of(buffer_offset(rows, 1, i64::MAX))),
        ("a buffer at i64::MIN", of(buffer_offset(rows, 1, i64::MIN))),
        ("a body of nothing", of(body(0))),
        ("half a body", of(body(rows.data_body.len() / 2))),
        ("a body without its last byte that counts", of(body(rows.data_body.len() - 64))),
        ("a column of i64::MAX values", of(node_length(rows, 0, i64::MAX))),
        ("a column of 2^40 values", of(node_length(rows, 1, 1 << 40))),
        ("a column of less than nothing", of(node_length(rows, 0, -1))),
        ("a column of more values than rows", of(node_length(rows, 0, 1000))),
        ("more nulls than values", of(null_count(rows, 0, 778))),
        ("fewer nulls than none", of(null_count(rows, 0, -1))),
        ("i64::MAX nulls", of(null_count(rows, 0, i64::MAX))),
        ("a column of 2^62 nulls", vec![nulls[0].clone(), node_length(&null_count(&nulls[1], 0, huge), 0, huge)]),
        ("compressed buffers", compressed),
        ("a dictionary without end", endless),
        ("16,385 columns", vec![schema_message(&Schema::new(many))]),
        ("lists 40 deep", vec![nested(40)]),
        ("lists 1,000 deep", vec![nested(1000)]),
    ];
    let mut cases = Cases::of("M16");
    for (name, messages) in cases_of {
        let answer = decode(messages).await;
        let error = answer.map(|batches| batches.len()).expect_err(name);
        assert!(
            matches!(error.kind, ErrorKind::Data | ErrorKind::ResourcesExhausted | ErrorKind::Unsupported),
            "{name}: {:?} {error}",
            error.kind
        );
        assert!(!error.message.is_empty() && error.message.len() < 4096, "{name}: {error}");
        cases.case(name);
    }
    cases.are(24);
}

#[tokio::test]
async fn security_m17_messages_that_do_not_belong_together_are_errors() {
    let sent = messages().await;
    let [schema, dictionary, rows] = sent.as_slice() else { panic!("three messages") };
    let other = Schema::new(vec![Field::new("a", DataType::Utf8, true), Field::new("b", DataType::Int64, true)]);
    let wrong = Schema::new(batch().schema().fields().iter().rev().cloned().collect::<Vec<_>>());
    let empty = FlightData::default();
    let garbage = |bytes: &'static [u8]| FlightData { data_header: bytes.into(), ..FlightData::default() };
    let cases_of: Vec<(&str, Vec<FlightData>)> = vec![
        ("rows before a schema", vec![rows.clone()]),
        ("a dictionary before a schema", vec![dictionary.clone()]),
        ("rows of another schema", vec![schema_message(&other), rows.clone()]),
        ("rows of the columns in another order", vec![schema_message(&wrong), dictionary.clone(), rows.clone()]),
        ("indexes without their dictionary", vec![schema.clone(), rows.clone()]),
        ("a second schema", vec![schema.clone(), schema.clone()]),
        (
            "a dictionary as rows",
            vec![schema.clone(), FlightData { data_body: rows.data_body.clone(), ..dictionary.clone() }, rows.clone()],
        ),
        ("text as a header", vec![garbage(b"SELECT 1")]),
        ("zeros as a header", vec![garbage(&[0; 64])]),
        ("ones as a header", vec![garbage(&[0xff; 64])]),
        (
            "a header cut in the middle",
            vec![FlightData { data_header: schema.data_header.slice(..schema.data_header.len() / 2), ..empty }],
        ),
    ];
    let mut cases = Cases::of("M17");
    for (name, messages) in cases_of {
        let answer = decode(messages).await;
        // A header of zeros is a message of nothing, and other values may stand in a dictionary.
        if let Ok(batches) = answer {
            let is_right = name == "zeros as a header" && batches.is_empty();
            assert!(is_right || name == "a dictionary as rows", "{name}: {batches:?}");
        }
        cases.case(name);
    }
    cases.are(11);
}

#[tokio::test]
async fn security_m17_flipped_bits_are_errors_or_other_values_and_never_a_panic() {
    let sent = messages().await;
    let mut seeded = windrow_core::rand::seeded(17);
    let (mut cases, mut errors) = (Cases::of("M17"), 0);
    for part in ["schema", "dictionary", "rows", "dictionary values", "row values"] {
        for _ in 0..120 {
            let mut messages = sent.clone();
            let message = &mut messages[match part {
                "schema" => 0,
                "dictionary" | "dictionary values" => 1,
                _ => 2,
            }];
            let is_values = part.contains("values");
            let mut bytes = if is_values { message.data_body.to_vec() } else { message.data_header.to_vec() };
            for _ in 0..=seeded.usize(..3) {
                let (at, bit) = (seeded.usize(..bytes.len()), seeded.usize(..8));
                bytes[at] ^= 1 << bit;
            }
            *(if is_values { &mut message.data_body } else { &mut message.data_header }) = bytes.into();
            // A panic in here would end the test.
            match decode(messages).await {
                Ok(batches) => {
                    assert!(batches.iter().map(RecordBatch::num_rows).sum::<usize>() <= 8 * (16 << 20) + EMPTY_ROWS_MAX)
                }
                Err(_error) => errors += 1,
            }
        }
        cases.case(format!("120 flips of {part}"));
    }
    assert!(errors > 100, "{errors}");
    cases.are(5);
}

#[tokio::test]
async fn after_an_error_there_are_no_more_batches() {
    let sent = messages().await;
    let mut incoming =
        Incoming::new(stream::iter([Ok(sent[2].clone()), Ok(sent[0].clone()), Ok(sent[1].clone()), Ok(sent[2].clone())]));
    assert!(incoming.next().await.unwrap().is_err());
    assert!(incoming.next().await.is_none() && incoming.next().await.is_none());
}
