//! Bytes in place of messages, sent to every method by somebody who may call it: errors, and a server that goes on.

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementUpdate,
    ProstMessageExt, TableDefinitionOptions,
};
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::{Buf, BufMut};
use prost::Message as _;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::house::{Guest, House};
use super::*;

/// Sends and receives bytes as they are.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining()).to_vec()))
    }
}

/// Calls a method with these messages; the error it ends with, if it ends with one.
async fn send(channel: &Channel, method: &str, guest: &Guest, messages: Vec<Vec<u8>>) -> Option<Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let mut request = Request::new(futures::stream::iter(messages));
    request.metadata_mut().insert("authorization", guest.bearer());
    let path = PathAndQuery::try_from(format!("/arrow.flight.protocol.FlightService/{method}")).unwrap();
    let answer = async {
        let mut answer = grpc.streaming(request, path, Raw).await?.into_inner();
        while answer.message().await?.is_some() {}
        Ok::<_, Status>(())
    };
    timer::deadline(PATIENCE, answer).await.expect("an answer in time").err()
}

/// Length and number of a field of bytes.
fn field(number: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![number << 3 | 2];
    let mut length = body.len();
    while length > 0x7f {
        message.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    message.push(u8::try_from(length).unwrap());
    message.extend(body);
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m17_bytes_that_are_no_message_are_errors_for_every_method() {
    let house = House::open().await;
    let guest = house.client("root", Role::Admin).await;
    let channel = channel(&house.server).await;
    let mut cases = Cases::of("M17");
    let mut seeded = windrow_core::rand::seeded(16);
    let nested = (0..20_000).fold(Vec::new(), |inner: Vec<u8>, _| if inner.len() > 60_000 { inner } else { field(1, &inner) });
    let any = |url: &str, value: &[u8]| field(2, &[field(1, url.as_bytes()), field(2, value)].concat());
    let query = "type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery";
    let messages: Vec<(&str, Vec<u8>)> = vec![
        ("ones", vec![0xff; 64]),
        ("zeros", vec![0; 64]),
        ("a length of 2^63", [&[0x0a][..], &[0xff; 9], &[0x01]].concat()),
        ("a length behind the end", vec![0x0a, 0x7f, 1]),
        ("a varint without end", vec![0x08; 1].into_iter().chain(vec![0x80; 64]).collect()),
        ("a group without end", vec![0x0b; 512]),
        ("messages in each other", nested),
        ("text that is not UTF-8", field(1, &[0xc3, 0x28, 0xff])),
        ("an unknown command", any("type.googleapis.com/nothing.Here", b"x")),
        ("a command that is none", any(query, &[0xff; 32])),
        ("a command of a path", any("file:///etc/passwd", b"x")),
        ("a statement that is not UTF-8", any(query, &field(1, &[0xff, 0xfe]))),
    ];
    for method in FLIGHT {
        for (name, message) in &messages {
            let ended = send(&channel, method, &guest, vec![message.clone()]).await;
            if let Some(status) = &ended {
                assert!(!status.message().contains("panicked") && status.code() != Code::Unknown, "{method}, {name}: {status:?}");
            }
            cases.case(format!("{method}: {name}"));
        }
        for _ in 0..20 {
            let random: Vec<u8> = (0..seeded.usize(1..200)).map(|_| seeded.u8(..)).collect();
            send(&channel, method, &guest, vec![random.clone(), random]).await;
        }
        house.still_answers(method).await;
    }
    cases.are(10 * 12);
}

fn batch() -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..4));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..4).map(|n| format!("text {n}"))));
    RecordBatch::try_from_iter([("a", numbers), ("b", texts)]).unwrap()
}

async fn rows(command: Vec<u8>) -> Vec<FlightData> {
    FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command)))
        .build(futures::stream::iter([Ok(batch())]))
        .try_collect()
        .await
        .unwrap()
}

/// Sends rows; what came of it.
async fn put(guest: &mut Guest, messages: Vec<FlightData>) -> Result<(), Status> {
    let mut request = Request::new(futures::stream::iter(messages));
    request.metadata_mut().insert("authorization", guest.bearer());
    let sending = async {
        let mut answers = guest.client.inner_mut().do_put(request).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    };
    timer::deadline(PATIENCE, sending).await.expect("an answer in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m16_rows_that_lie_are_errors_by_every_route_and_nothing_is_written() {
    let house = House::open().await;
    let mut bob = house.client("bob", Role::Writer).await;
    let location = house.data().join("table/");
    std::fs::create_dir(&location).unwrap();
    bob.update(&format!("CREATE EXTERNAL TABLE t (a BIGINT, b VARCHAR) STORED AS PARQUET LOCATION '{}/'", location.display()))
        .await
        .unwrap();
    let prepare = arrow_flight::sql::ActionCreatePreparedStatementRequest { query: "SELECT $1, $2".into(), transaction_id: None };
    let answer = bob.act("CreatePreparedStatement", prepare.as_any().encode_to_vec()).await.unwrap().remove(0);
    let any = arrow_flight::sql::Any::decode(answer).unwrap();
    let handle = arrow_flight::sql::ActionCreatePreparedStatementResult::decode(any.value).unwrap().prepared_statement_handle;
    let ingest = CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions { if_not_exist: 2, if_exists: 2 }),
        table: "t".to_owned(),
        schema: None,
        catalog: None,
        temporary: false,
        transaction_id: None,
        options: std::collections::HashMap::default(),
    };
    let routes = [
        ("binding", CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() }.as_any().encode_to_vec()),
        ("updating", CommandPreparedStatementUpdate { prepared_statement_handle: handle }.as_any().encode_to_vec()),
        ("ingesting", ingest.as_any().encode_to_vec()),
    ];
    let mut cases = Cases::of("M16");
    for (route, command) in routes {
        let good = rows(command).await;
        let [schema, values] = good.as_slice() else { panic!("two messages") };
        let cut = |len: usize| FlightData { data_body: values.data_body.slice(..len), ..values.clone() };
        let header = |at: usize, byte: u8| {
            let mut bytes = values.data_header.to_vec();
            let at = at.min(bytes.len() - 1);
            bytes[at] = byte;
            FlightData { data_header: bytes.into(), ..values.clone() }
        };
        let cases_of: Vec<(&str, Vec<FlightData>)> = vec![
            ("no body", vec![schema.clone(), cut(0)]),
            ("half a body", vec![schema.clone(), cut(values.data_body.len() / 2)]),
            ("a header of ones", vec![schema.clone(), FlightData { data_header: vec![0xff; 200].into(), ..values.clone() }]),
            (
                "a header that is cut",
                vec![schema.clone(), FlightData { data_header: values.data_header.slice(..40), ..values.clone() }],
            ),
            ("two schemas", vec![schema.clone(), schema.clone(), values.clone()]),
            ("rows, then half of them", vec![schema.clone(), values.clone(), cut(64)]),
        ];
        for (name, messages) in cases_of {
            let status = put(&mut bob, messages).await.expect_err(name);
            assert!(!matches!(status.code(), Code::Unknown | Code::Unavailable | Code::Internal), "{route}, {name}: {status:?}");
            cases.case(format!("{route}: {name}"));
        }
        // Whatever a byte of the header becomes: an error or an answer.
        for at in (0..values.data_header.len()).step_by(7) {
            if route != "ingesting" {
                let _ = put(&mut bob, vec![schema.clone(), header(at, 0x7f)]).await;
            }
        }
        cases.case(format!("{route}: changed bytes of a header"));
        house.still_answers(route).await;
    }
    assert_eq!(bob.rows("SELECT * FROM t").await.unwrap(), 0, "nothing was written");
    let update = CommandStatementUpdate { query: "SELECT 1".into(), transaction_id: None }.as_any().encode_to_vec();
    let mut endless = rows(update).await;
    endless.extend(std::iter::repeat_n(FlightData::default(), 10_000));
    let _ = put(&mut bob, endless).await;
    cases.case("10,000 empty messages behind a statement");
    house.still_answers("empty messages").await;
    cases.are(22);
}
