//! The audit log: one line of JSON for each call that clients make, allowed or not, written when the call is over. Next: `redact.rs`.
//!
//! A call takes its place in the log before it begins, and waits if there is none: its line can then be handed over at any end,
//! also when its client is gone, and none is dropped. A thread of its own writes them, so that a slow disk holds up no other call.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Extensions, Status};
use windrow_auth::{Principal, Role, check_name};
use windrow_core::clock::{Stopwatch, unix_millis};
use windrow_core::ids::JobId;
use windrow_core::{Error, ErrorKind, Result};

use super::redact::without_secrets;
use crate::listener::Peer;
use crate::wire::from_status;

/// Calls that are open and lines that wait to be written, together. More than the calls that all connections of a listener may have
/// open, so that calls which never end leave room for others.
const PLACES_MAX: usize = (1 << 17) + (1 << 12);

/// Bytes of a statement's text in a line.
const TEXT_MAX: usize = 4096;

/// Bytes of a call's path in a line: anybody can call anything.
const PATH_MAX: usize = 200;

/// Bytes that are written at once.
const BURST: usize = 64 << 10;

/// What the writer gets.
enum Message {
    Line(Box<Entry>),
    /// Answered once everything before it is written.
    Flush(oneshot::Sender<()>),
}

/// A log that lines are appended to.
pub(crate) struct AuditLog {
    path: PathBuf,
    messages: mpsc::Sender<Message>,
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog").field("path", &self.path).finish_non_exhaustive()
    }
}

impl AuditLog {
    /// Opens `path` to append to it. A new file is for its owner alone.
    ///
    /// # Errors
    /// `InvalidConfig` if it cannot be written, `ResourcesExhausted` if there is no thread for it.
    pub(super) fn open(path: &Path) -> Result<Arc<Self>> {
        Self::open_with(path, PLACES_MAX)
    }

    fn open_with(path: &Path, places: usize) -> Result<Arc<Self>> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(|source| {
            Error::new(ErrorKind::InvalidConfig, format!("the audit log '{}' cannot be written: {source}", path.display()))
                .with_help("set security.audit_log to a file in a folder that this user can write to")
                .with_source(source)
        })?;
        let (messages, queue) = mpsc::channel(places);
        let writer = Writer { file, path: path.to_owned(), is_torn: false };
        std::thread::Builder::new().name("windrow-audit".to_owned()).spawn(move || writer.run(queue)).map_err(|source| {
            Error::new(ErrorKind::ResourcesExhausted, "no thread to write the audit log").with_source(source)
        })?;
        Ok(Arc::new(Self { path: path.to_owned(), messages }))
    }

    /// The record of a call of `path` that `peer` makes, once there is a place for its line.
    pub(super) async fn begin(&self, path: &str, peer: &Peer) -> Record {
        let Ok(place) = self.messages.clone().reserve_owned().await else {
            tracing::error!(path = %self.path.display(), "nobody writes the audit log any more");
            return Record::default();
        };
        let entry = Entry {
            at: unix_millis(),
            address: peer.address.to_string(),
            who: None,
            role: None,
            claims: None,
            what: what_of(path),
            call: beginning(path, PATH_MAX).to_owned(),
            text: None,
            job: None,
            rows: None,
            received: 0,
            sent: 0,
            ms: 0,
            outcome: Outcome::Abandoned,
            error: None,
        };
        Record(Some(Arc::new(Call {
            place: Mutex::new(Some((place, entry))),
            began: Stopwatch::start(),
            counts: Arc::default(),
        })))
    }

    /// Waits until all lines of calls that are over are written.
    pub(crate) async fn flush(&self) {
        let (written, wait) = oneshot::channel();
        if self.messages.send(Message::Flush(written)).await.is_ok() {
            // An answer that does not come means that nobody writes any more, which was said already.
            let _ = wait.await;
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// It was answered.
    Done,
    /// Its caller may not do it, or is not known.
    Refused,
    /// It may be done, and did not succeed.
    Failed,
    /// Its client left before the end of the answer.
    Abandoned,
}

/// A line.
#[derive(Debug, Serialize)]
struct Entry {
    /// When the call began, in milliseconds since 1970.
    at: u64,
    /// Where it came from.
    address: String,
    /// Whom its credential belongs to.
    who: Option<String>,
    role: Option<Role>,
    /// The name that came with a password that was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<String>,
    what: &'static str,
    call: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    /// Bytes that came and that were answered.
    received: u64,
    sent: u64,
    /// How long it took.
    ms: u64,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorKind>,
}

/// What a call is, as far as its path says. The services behind the layer know better.
fn what_of(path: &str) -> &'static str {
    match path.rsplit('/').next().unwrap_or_default() {
        _ if path == crate::control::CONNECT_PATH => "join",
        "Handshake" => "login",
        "ListFlights" | "ListActions" => "list",
        "DoAction" => "action",
        "DoGet" => "fetch",
        "GetSchema" => "schema",
        _ => "call",
    }
}

/// Bytes and rows of a call, as they pass.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    rows: AtomicU64,
    has_rows: std::sync::atomic::AtomicBool,
}

/// A call that has a place in the log. Its line is handed over when nobody holds it any more.
struct Call {
    place: Mutex<Option<(mpsc::OwnedPermit<Message>, Entry)>>,
    began: Stopwatch,
    counts: Arc<Counts>,
}

impl Drop for Call {
    fn drop(&mut self) {
        let Some((place, mut entry)) = self.place.get_mut().take() else { return };
        entry.received = self.counts.received.load(Ordering::Relaxed);
        entry.sent = self.counts.sent.load(Ordering::Relaxed);
        entry.rows = self.counts.has_rows.load(Ordering::Relaxed).then(|| self.counts.rows.load(Ordering::Relaxed));
        entry.ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        place.send(Message::Line(Box::new(entry)));
    }
}

/// What is known of a call, for the services behind the layer to add to. Cheap to clone; without a log it notes nothing.
#[derive(Clone, Default)]
pub(crate) struct Record(Option<Arc<Call>>);

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Record").field(&self.0.is_some()).finish()
    }
}

/// The record of a call, which notes nothing where there is no log.
pub(crate) fn record_of(extensions: &Extensions) -> Record {
    extensions.get::<Record>().cloned().unwrap_or_default()
}

impl Record {
    /// Whether there is a log.
    pub(super) fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(call) = &self.0
            && let Some((_, entry)) = call.place.lock().as_mut()
        {
            change(entry);
        }
    }

    /// Who calls.
    pub(super) fn by(&self, principal: &Principal) {
        self.change(|entry| (entry.who, entry.role) = (Some(principal.name().to_owned()), principal.role()));
    }

    /// Who the caller claims to be, if that is a name at all and not a password in the wrong place.
    pub(super) fn claims(&self, name: &str) {
        if check_name(name).is_ok() {
            self.change(|entry| entry.claims = Some(name.to_owned()));
        }
    }

    /// What the call is.
    pub(crate) fn is(&self, what: &'static str) {
        self.change(|entry| entry.what = what);
    }

    /// The call is about this statement.
    pub(crate) fn text(&self, what: &'static str, text: &str) {
        self.change(|entry| (entry.what, entry.text) = (what, Some(without_secrets(text, TEXT_MAX))));
    }

    /// The call is about this table, by the parts of its name.
    pub(crate) fn table(&self, parts: &[Option<&str>]) {
        self.change(|entry| {
            let name = parts.iter().flatten().copied().collect::<Vec<_>>().join(".");
            entry.text = Some(beginning(&name, PATH_MAX).to_owned());
        });
    }

    /// The call is about this job.
    pub(crate) fn job(&self, job: JobId) {
        self.change(|entry| entry.job = Some(job.0));
    }

    /// Rows that were answered or written.
    pub(crate) fn rows(&self, rows: u64) {
        if let Some(call) = &self.0 {
            call.counts.has_rows.store(true, Ordering::Relaxed);
            call.counts.rows.fetch_add(rows, Ordering::Relaxed);
        }
    }

    /// Where bytes are counted.
    pub(super) fn counts(&self) -> Option<Arc<Counts>> {
        self.0.as_ref().map(|call| Arc::clone(&call.counts))
    }

    /// How the call ended.
    pub(super) fn ended(&self, status: Option<&Status>) {
        self.change(|entry| {
            (entry.outcome, entry.error) = match status.filter(|status| status.code() != Code::Ok) {
                None => (Outcome::Done, None),
                Some(status) => {
                    let kind = from_status(status).kind;
                    (if kind == ErrorKind::Denied { Outcome::Refused } else { Outcome::Failed }, Some(kind))
                }
            };
        });
    }
}

/// Writes lines until nobody can send any.
struct Writer {
    file: File,
    path: PathBuf,
    /// The file may end in the middle of a line.
    is_torn: bool,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        while let Some(first) = queue.blocking_recv() {
            let (mut lines, mut count, mut waiting) = (Vec::new(), 0_usize, Vec::new());
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Line(entry) => {
                        line(&entry, &mut lines);
                        count += 1;
                    }
                    Message::Flush(written) => waiting.push(written),
                }
                next = if lines.len() < BURST { queue.try_recv().ok() } else { None };
            }
            if let Err(error) = self.write(&lines) {
                tracing::error!(path = %self.path.display(), %error, count, "lines of the audit log are lost");
            }
            for written in waiting {
                // Whoever waited may be gone.
                let _ = written.send(());
            }
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.file.write_all(b"\n")?;
        }
        self.is_torn = true;
        self.file.write_all(lines)?;
        self.is_torn = false;
        Ok(())
    }
}

/// Appends an entry as one line, in which nothing is a control character: JSON lets some pass that a terminal obeys.
fn line(entry: &Entry, lines: &mut Vec<u8>) {
    let Ok(json) = serde_json::to_string(entry) else { return };
    if json.chars().any(char::is_control) {
        let escaped = json.chars().map(|c| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() });
        lines.extend(escaped.collect::<String>().into_bytes());
    } else {
        lines.extend(json.into_bytes());
    }
    lines.push(b'\n');
}

/// The longest beginning of `text` of at most `max` bytes.
pub(super) fn beginning(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use windrow_executor::timer;

    use super::*;

    #[tokio::test]
    async fn security_m24_a_call_waits_for_a_place_and_no_line_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        let log = AuditLog::open_with(&path, 2).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let peer = Peer::nobody();
        let (first, second) = (log.begin("/a/One", &peer).await, log.begin("/a/Two", &peer).await);
        let third = log.begin("/a/Three", &peer);
        tokio::pin!(third);
        assert!(timer::deadline(Duration::from_millis(20), &mut third).await.is_none(), "there is no place");
        drop(first);
        let third = timer::deadline(Duration::from_secs(60), third).await.unwrap();
        third.ended(None);
        drop((second, third));
        timer::deadline(Duration::from_secs(60), log.flush()).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        for (call, outcome) in [("One", "abandoned"), ("Two", "abandoned"), ("Three", "done")] {
            let line = text.lines().find(|line| line.contains(call)).unwrap();
            assert!(line.contains(&format!("\"outcome\":\"{outcome}\"")), "{line}");
        }
    }

    #[tokio::test]
    async fn security_m24_a_log_goes_on_where_it_ended_and_cannot_be_opened_where_nothing_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        std::fs::write(&path, "before\n").unwrap();
        let log = AuditLog::open(&path).unwrap();
        let record = log.begin("/a/One", &Peer::nobody()).await;
        record.text("statement", "SELECT '\u{1b}[2J\u{9b}31m\n'");
        drop(record);
        log.flush().await;
        let text = std::fs::read_to_string(&path).unwrap();
        let [before, line] = text.lines().collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(before, "before");
        assert!(!line.chars().any(char::is_control), "{line:?}");
        let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(parsed["text"], "SELECT '\u{1b}[2J\u{9b}31m\n'");
        for unfit in [folder.path().to_owned(), folder.path().join("none/audit")] {
            let error = AuditLog::open(&unfit).unwrap_err();
            assert!(error.kind == ErrorKind::InvalidConfig && error.context.help.is_some(), "{error}");
        }
    }
}
