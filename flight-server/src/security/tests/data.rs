//! Files that lie: a query over one is an error or an answer, and the executor goes on.

use std::path::Path;

use super::house::{Guest, House};
use super::*;

/// A query over a file: rows or one error, in time.
async fn query(guest: &mut Guest, path: &Path) -> Result<usize, Status> {
    let sql = format!("SELECT * FROM '{}'", path.display());
    timer::deadline(PATIENCE, guest.rows(&sql)).await.expect("an answer in time")
}

async fn is_error(guest: &mut Guest, path: &Path, bytes: &[u8], name: &str) {
    std::fs::write(path, bytes).unwrap();
    let status = query(guest, path).await.expect_err(name);
    assert!(!status.message().is_empty() && status.code() != Code::Unavailable, "{name}: {status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m16_parquet_files_that_lie_are_errors() {
    let house = House::open().await;
    let mut bob = house.client("bob", Role::Writer).await;
    let good = house.data().join("good.parquet");
    let sql = format!(
        "COPY (SELECT x AS a, 'text ' || x AS b FROM generate_series(1, 500) AS t(x)) TO '{}' STORED AS PARQUET",
        good.display()
    );
    bob.update(&sql).await.unwrap();
    assert_eq!(query(&mut bob, &good).await.unwrap(), 500);
    let bytes = std::fs::read(&good).unwrap();
    let bad = house.data().join("bad.parquet");
    let mut cases = Cases::of("M16");
    let with = |at: usize, part: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + part.len()].copy_from_slice(part);
        bytes
    };
    let (end, footer) = (bytes.len(), u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap()) as usize);
    let lies: Vec<(&str, Vec<u8>)> = vec![
        ("a beginning and nothing else", b"PAR1".to_vec()),
        ("a beginning and an end", b"PAR1PAR1".to_vec()),
        ("zeros", vec![0; 4096]),
        ("half of it", bytes[..end / 2].to_vec()),
        ("without its last byte", bytes[..end - 1].to_vec()),
        ("without its first byte", bytes[1..].to_vec()),
        ("a footer of 4 GiB", with(end - 8, &[0xff; 4])),
        ("a footer of 2 GiB", with(end - 8, &i32::MAX.to_le_bytes())),
        ("a footer longer than the file", with(end - 8, &u32::try_from(end).unwrap().to_le_bytes())),
        ("a footer of nothing", with(end - 8, &[0; 4])),
        ("a footer of zeros", with(end - 8 - footer, &vec![0; footer])),
        ("a footer of ones", with(end - 8 - footer, &vec![0xff; footer])),
        ("a first page of ones", with(4, &[0xff; 64])),
        ("a first page of zeros", with(4, &[0; 64])),
    ];
    for (name, bytes) in lies {
        is_error(&mut bob, &bad, &bytes, name).await;
        cases.case(name);
    }
    // A page header's sizes are the first numbers in it, each of a few bytes: the largest that there can be.
    for (name, at) in [("a page of 2 GiB", 7), ("a page of 2 GiB when unpacked", 5), ("a page of 2^31 values", 9)] {
        std::fs::write(&bad, with(at, &[0xfe, 0xff, 0xff, 0xff, 0x0f])).unwrap();
        let _ = query(&mut bob, &bad).await;
        cases.case(name);
    }
    house.still_answers("forged parquet").await;
    let mut seeded = windrow_core::rand::seeded(16);
    for number in 0..40 {
        let mut flipped = bytes.clone();
        // Half of them in the footer, where each byte counts.
        let at = if number % 2 == 0 { seeded.usize(..end) } else { seeded.usize(end - footer - 8..end) };
        flipped[at] ^= 1 << seeded.u32(..8);
        std::fs::write(&bad, flipped).unwrap();
        // Sums of pages find what no length shows: rows that are there are right ones, or there are none.
        let _ = query(&mut bob, &bad).await;
    }
    cases.case("40 flipped bits");
    house.still_answers("flipped bits of parquet").await;
    cases.are(18);
}

/// `bytes`, packed by the program of this name.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut child = std::process::Command::new("gzip")
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writing = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let packed = child.wait_with_output().unwrap().stdout;
    writing.join().unwrap();
    packed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m16_text_files_that_lie_are_errors_or_rows_and_cost_nobody_else_anything() {
    let house = House::open().await;
    let mut ann = house.client("ann", Role::Reader).await;
    let mut cases = Cases::of("M16");
    let bomb = gzip(&vec![0; 2 << 20]);
    assert!(bomb.len() < 64 << 10, "{} bytes", bomb.len());
    let rows = gzip("a,b\n1,x\n2,y\n".as_bytes());
    let header = |columns: usize| (0..columns).map(|n| format!("c{n}")).collect::<Vec<_>>().join(",");
    let files: Vec<(&str, &str, Vec<u8>)> = vec![
        ("CSV that is no UTF-8", "a.csv", b"a,b\n\xff\xfe,\xc3\x28\n".to_vec()),
        ("CSV of zeros", "b.csv", vec![0; 4096]),
        ("CSV with an open quote", "c.csv", b"a,b\n\"1,2\n3,4\n".to_vec()),
        ("CSV with more values than columns", "d.csv", b"a,b\n1,2,3,4,5\n".to_vec()),
        ("CSV with a line of a megabyte", "e.csv", [b"a,b\n".to_vec(), vec![b'x'; 1 << 20]].concat()),
        ("CSV with 1,000 columns and no row", "f.csv", format!("{}\n", header(1_000)).into_bytes()),
        ("CSV that is a program", "g.csv", std::fs::read("/proc/self/exe").unwrap()[..64 << 10].to_vec()),
        ("CSV of quotes", "h.csv", vec![b'"'; 64 << 10]),
        ("a number beyond all types", "i.csv", format!("a\n{}\n", "9".repeat(5000)).into_bytes()),
        ("gzip that is cut", "j.csv.gz", rows[..rows.len() - 6].to_vec()),
        ("gzip that is none", "k.csv.gz", b"a,b\n1,2\n".to_vec()),
        (
            "gzip with a flipped bit",
            "l.csv.gz",
            rows.iter().enumerate().map(|(at, byte)| if at == 12 { byte ^ 8 } else { *byte }).collect(),
        ),
        ("gzip of a thousand times its size", "m.csv.gz", bomb),
        ("JSON 100,000 deep", "n.json", format!("{{\"a\":{}1{}}}\n", "[".repeat(100_000), "]".repeat(100_000)).into_bytes()),
        ("JSON objects 100,000 deep", "o.json", format!("{}1{}\n", "{\"a\":".repeat(100_000), "}".repeat(100_000)).into_bytes()),
        ("JSON that is cut", "p.json", b"{\"a\": [1, 2".to_vec()),
        ("JSON that is no object", "q.json", b"[1]\n\"x\"\n7\nnull\n".to_vec()),
        ("JSON of several types", "r.json", b"{\"a\":1}\n{\"a\":\"x\"}\n{\"a\":[{}]}\n".to_vec()),
        ("a JSON number beyond all types", "s.json", b"{\"a\":1e999999}\n{\"a\":-9999999999999999999999}\n".to_vec()),
        ("JSON with one name twice", "t.json", b"{\"a\":1,\"a\":{\"a\":2}}\n".to_vec()),
        ("JSON that is no UTF-8", "u.json", b"{\"a\":\"\xff\xfe\xed\xa0\x80\"}\n".to_vec()),
        ("an empty CSV", "v.csv", Vec::new()),
        ("an empty JSON", "w.json", Vec::new()),
        ("an empty gzip", "x.csv.gz", Vec::new()),
    ];
    for (name, file, bytes) in files {
        let path = house.data().join(file);
        std::fs::write(&path, bytes).unwrap();
        if let Err(status) = query(&mut ann, &path).await {
            assert!(!matches!(status.code(), Code::Unavailable | Code::Unknown), "{name}: {status:?}");
        }
        cases.case(name);
    }
    let alive = house.coordinator.status();
    assert_eq!(alive.executors.len(), 1);
    house.still_answers("files that lie").await;
    cases.are(24);
}
