//! The standard error of a child process, line by line, into this process's log.

use tokio::io::{AsyncRead, AsyncReadExt};

/// A longer line is cut into lines of this many bytes.
const LINE_MAX: usize = 16 * 1024;

/// Calls `each` for every line until the end of `input`, or until it cannot be read any more.
pub(crate) async fn read_lines(mut input: impl AsyncRead + Unpin, mut each: impl FnMut(String)) {
    let mut line = Vec::new();
    let mut chunk = [0_u8; 4096];
    while let Ok(count @ 1..) = input.read(&mut chunk).await {
        for &byte in &chunk[..count] {
            if byte != b'\n' {
                line.push(byte);
            }
            if byte == b'\n' || line.len() == LINE_MAX {
                hand_over(&mut line, &mut each);
            }
        }
    }
    hand_over(&mut line, &mut each);
}

fn hand_over(line: &mut Vec<u8>, each: &mut impl FnMut(String)) {
    let text = String::from_utf8_lossy(line).trim_end().to_owned();
    line.clear();
    if !text.is_empty() {
        each(text);
    }
}

/// Logs a child's line at the level that it names itself.
pub(crate) fn log(executor: &str, line: &str) {
    let names = |level: &str| line.split_whitespace().take(3).any(|word| word.trim_end_matches(':').eq_ignore_ascii_case(level));
    if names("ERROR") {
        tracing::error!(executor, "{line}");
    } else if names("WARN") || names("WARNING") {
        tracing::warn!(executor, "{line}");
    } else {
        tracing::info!(executor, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE_MAX, read_lines};

    async fn lines(input: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        read_lines(input, |line| lines.push(line)).await;
        lines
    }

    #[tokio::test]
    async fn lines_come_one_by_one_and_the_last_needs_no_end() {
        assert_eq!(lines(b"one\r\n\ntwo \xff\nthree").await, ["one", "two \u{fffd}", "three"]);
        assert!(lines(b"").await.is_empty());
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        let lengths: Vec<usize> = lines(&vec![b'x'; 2 * LINE_MAX + 1]).await.iter().map(String::len).collect();
        assert_eq!(lengths, [LINE_MAX, LINE_MAX, 1]);
    }
}
