//! Connections and messages that are no good: each costs its own connection, and nobody else anything.

use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{Action, FlightData, FlightDescriptor, Ticket};
use prost::Message;
use tokio::io::AsyncWrite;

use super::house::House;
use super::*;

const MESSAGE: usize = 17 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m15_messages_that_are_too_large_are_refused() {
    let house = House::open().await;
    let ann = house.client("ann", Role::Admin).await;
    let mut cases = Cases::of("M15");
    let large = || bytes::Bytes::from(vec![b' '; MESSAGE]);
    let statement = CommandStatementQuery { query: " ".repeat(MESSAGE), transaction_id: None }.as_any().encode_to_vec();
    let authorized = |token: MetadataValue<Ascii>| {
        move |mut request: Request<()>| {
            request.metadata_mut().insert("authorization", token.clone());
            Ok(request)
        }
    };
    let mut flight = FlightServiceClient::with_interceptor(channel(&house.server).await, authorized(ann.bearer()))
        .max_encoding_message_size(usize::MAX);
    let put = FlightData { data_body: large(), ..FlightData::default() };
    let answers = [
        ("a statement of 17 MiB", flight.get_flight_info(FlightDescriptor::new_cmd(statement.clone())).await.map(drop)),
        ("the schema of a statement of 17 MiB", flight.get_schema(FlightDescriptor::new_cmd(statement.clone())).await.map(drop)),
        ("a poll of 17 MiB", flight.poll_flight_info(FlightDescriptor::new_cmd(statement)).await.map(drop)),
        ("a ticket of 17 MiB", flight.do_get(Ticket::new(large())).await.map(drop)),
        ("an action of 17 MiB", flight.do_action(Action { r#type: "CloseSession".into(), body: large() }).await.map(drop)),
        (
            "an action whose name has 17 MiB",
            flight.do_action(Action { r#type: "x".repeat(MESSAGE), ..Action::default() }).await.map(drop),
        ),
        ("rows of 17 MiB", flight.do_put(futures::stream::iter([put])).await.map(drop)),
    ];
    for (name, answer) in answers {
        let status = answer.expect_err(name);
        // The server may close the stream before all of it is sent.
        assert!(
            matches!(
                status.code(),
                Code::OutOfRange | Code::ResourceExhausted | Code::Unknown | Code::Internal | Code::Cancelled
            ),
            "{name}: {status:?}"
        );
        cases.case(name);
    }
    house.still_answers("large messages").await;
    cases.are(7);
}

/// A connection that speaks HTTP/2 as far as `PRI` and empty settings.
async fn http2(house: &House) -> TcpStream {
    let mut stream = TcpStream::connect(house.server.address()).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    stream
}

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
}

/// Headers of a call, without compression and in clear.
fn headers() -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(":path", "/arrow.flight.protocol.FlightService/DoPut"), (":authority", "x"), ("te", "trailers")] {
        block.push(0);
        block.push(u8::try_from(name.len()).unwrap());
        block.extend(name.bytes());
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.bytes());
    }
    block
}

/// Writes as long as the other end takes it.
async fn pour(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    // It may be closed before all is written, or not be read any more.
    let _ = timer::deadline(Duration::from_secs(5), stream.write_all(bytes)).await;
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0_u8; 4096];
    let reading = async { while let Ok(1..) = stream.read(&mut buffer).await {} };
    timer::deadline(PATIENCE, reading).await.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m15_floods_and_halves_of_frames_end_their_connection_only() {
    let house = House::open().await;
    let mut cases = Cases::of("M15");
    let many = |count: usize, each: &dyn Fn(usize) -> Vec<u8>| (0..count).flat_map(each).collect::<Vec<u8>>();
    let odd = |n: usize| u32::try_from(2 * n + 1).unwrap();
    let floods: Vec<(&str, Vec<u8>)> = vec![
        (
            "headers and resets, 1,000 times",
            many(1000, &|n| [frame(1, 5, odd(n), &headers()), frame(3, 0, odd(n), &[0, 0, 0, 8])].concat()),
        ),
        (
            "headers with 10,000 continuations",
            [frame(1, 1, 1, &headers()), many(10_000, &|_| frame(9, 0, 1, &[0x88; 16]))].concat(),
        ),
        (
            "headers with 100,000 empty continuations",
            [frame(1, 1, 1, &headers()), many(100_000, &|_| frame(9, 0, 1, &[]))].concat(),
        ),
        ("100,000 pings", many(100_000, &|_| frame(6, 0, 0, &[1; 8]))),
        ("100,000 settings", many(100_000, &|_| frame(4, 0, 0, &[]))),
        ("100,000 empty frames of data", [frame(1, 4, 1, &headers()), many(100_000, &|_| frame(0, 0, 1, &[]))].concat()),
        ("100,000 priorities", many(100_000, &|n| frame(2, 0, odd(n), &[0, 0, 0, 0, 1]))),
        ("100,000 frames of an unknown kind", many(100_000, &|_| frame(0xee, 0, 0, &[]))),
        ("a window beyond its bound", many(2, &|_| frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]))),
        ("a window of nothing", frame(8, 0, 0, &[0, 0, 0, 0])),
        ("1,000 calls at once", many(1000, &|n| frame(1, 5, odd(n), &headers()))),
        ("the same call twice", many(2, &|_| frame(1, 5, 1, &headers()))),
        ("calls in falling order", [frame(1, 5, 5, &headers()), frame(1, 5, 3, &headers())].concat()),
        ("a call with an even number", frame(1, 5, 2, &headers())),
        ("padding longer than its frame", frame(1, 0x0d, 1, &[0xff, 0x83])),
        ("a table of headers of 4 GiB", frame(4, 0, 0, &[0, 1, 0xff, 0xff, 0xff, 0xff])),
        ("a header in a table that is not there", frame(1, 5, 1, &[0xff, 0xff, 0xff, 0xff, 0x0f])),
        ("a header longer than its frame", frame(1, 5, 1, &[0, 0x7f, 0xff, 0xff, 0xff, 0x7f])),
        ("half a call, and nothing more", frame(1, 0, 1, &headers())),
        ("half a frame, and nothing more", frame(1, 5, 1, &headers())[..20].to_vec()),
        ("a message that promises 4 GiB", [frame(1, 4, 1, &headers()), frame(0, 0, 1, &[0, 0xff, 0xff, 0xff, 0xff])].concat()),
    ];
    let mut open = Vec::new();
    for (name, bytes) in floods {
        let mut stream = http2(&house).await;
        pour(&mut stream, &bytes).await;
        open.push(stream);
        house.still_answers(name).await;
        cases.case(name);
    }
    // None of them made a call that was allowed: ten seconds later all are closed, those that just wait as well.
    for mut stream in open {
        assert!(is_closed(&mut stream).await);
    }
    cases.are(21);
}

/// A call whose messages are compressed: nothing that comes in is unpacked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m15_compressed_calls_are_refused_unread() {
    let house = House::open().await;
    let ann = house.client("ann", Role::Reader).await;
    let mut cases = Cases::of("M15");
    for encoding in ["gzip", "deflate", "zstd", "br", "identity, gzip", "nonsense"] {
        let mut grpc = tonic::client::Grpc::new(channel(&house.server).await);
        grpc.ready().await.unwrap();
        let mut request = Request::new(());
        request.metadata_mut().insert("authorization", ann.bearer());
        request.metadata_mut().insert("grpc-encoding", encoding.parse().unwrap());
        let path = PathAndQuery::from_static("/arrow.flight.protocol.FlightService/GetFlightInfo");
        let answer: Result<Response<()>, Status> = grpc.unary(request, path, PostcardCodec::<(), ()>::default()).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unimplemented, "{encoding}");
        cases.case(encoding);
    }
    house.still_answers("compressed calls").await;
    cases.are(6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m15_many_half_open_connections_leave_room_for_others() {
    let house = House::open().await;
    let mut cases = Cases::of("M15");
    let mut half = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(house.server.address()).await.unwrap();
        stream.write_all(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..number % 25]).await.unwrap();
        half.push(stream);
    }
    house.still_answers("200 half-open connections").await;
    cases.case("200 connections that stop in the preface");
    let mut slow = TcpStream::connect(house.server.address()).await.unwrap();
    let mut dripping = Box::pin(async move {
        let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[]), frame(1, 5, 1, &headers())].concat();
        for byte in bytes {
            if slow.write_all(&[byte]).await.is_err() {
                return true;
            }
            timer::sleep(Duration::from_millis(200)).await;
        }
        is_closed(&mut slow).await
    });
    let (dropped, closed) = tokio::join!(timer::deadline(PATIENCE, &mut dripping), async {
        let mut closed = 0;
        for stream in &mut half {
            closed += usize::from(is_closed(stream).await);
        }
        closed
    });
    assert_eq!((dropped, closed), (Some(true), 200));
    cases.case("a byte at a time");
    house.still_answers("slow connections").await;
    cases.are(2);
}
