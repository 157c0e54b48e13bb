//! The live line on stderr while a query runs long: shown after half a second, cleared at its end.

use std::io::Write;
use std::time::Duration;

use windrow::Progress;

use crate::terminal;

/// Shorter queries show nothing: a line that flickers tells nobody anything.
const SHOWN_AFTER: Duration = Duration::from_millis(500);

/// One line that is written over.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    is_wanted: bool,
    is_shown: bool,
}

impl ProgressLine {
    /// A line that is not shown yet, and never if it is not wanted.
    pub(crate) fn new(is_wanted: bool) -> Self {
        Self { is_wanted, is_shown: false }
    }

    /// Shows how far the query is.
    pub(crate) fn show(&mut self, progress: &Progress, elapsed: Duration) {
        if !self.is_wanted || elapsed < SHOWN_AFTER {
            return;
        }
        let mut text = line(progress, elapsed);
        if let Some(width) = terminal::width() {
            text.truncate(text.char_indices().nth(width.saturating_sub(1)).map_or(text.len(), |(at, _)| at));
        }
        self.is_shown = true;
        let mut output = std::io::stderr().lock();
        drop(write!(output, "\r\x1b[2K{text}").and_then(|()| output.flush()));
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            let mut output = std::io::stderr().lock();
            drop(write!(output, "\r\x1b[2K").and_then(|()| output.flush()));
        }
    }

    /// Takes the line away for good: rows are about to be written below it.
    pub(crate) fn end(&mut self) {
        self.clear();
        self.is_wanted = false;
    }
}

fn line(progress: &Progress, elapsed: Duration) -> String {
    if progress.tasks_total == 0 {
        return format!("planning  {:.1} s", elapsed.as_secs_f64());
    }
    let stage = (progress.stages_done + 1).min(progress.stages_total);
    let mut text = format!(
        "stage {stage}/{}  tasks {}/{}  {} rows",
        progress.stages_total,
        progress.tasks_done,
        progress.tasks_total,
        terminal::count(progress.rows)
    );
    for (name, bytes) in [("shuffle", progress.shuffle_bytes), ("spill", progress.spill_bytes)] {
        if bytes > 0 {
            text.push_str(&format!("  {name} {}", terminal::size(bytes)));
        }
    }
    for (name, count) in [("retries", progress.retries), ("computed again", progress.reruns)] {
        if count > 0 {
            text.push_str(&format!("  {name} {count}"));
        }
    }
    text.push_str(&format!("  {:.1} s", elapsed.as_secs_f64()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_known() {
        let elapsed = Duration::from_millis(1240);
        assert_eq!(line(&Progress::default(), elapsed), "planning  1.2 s");
        let progress = Progress {
            stages_done: 2,
            stages_total: 5,
            tasks_done: 38,
            tasks_total: 100,
            rows: 1_200_000_000,
            shuffle_bytes: 210_000_000,
            retries: 1,
            ..Progress::default()
        };
        assert_eq!(line(&progress, elapsed), "stage 3/5  tasks 38/100  1.2 bn rows  shuffle 210 MB  retries 1  1.2 s");
        let over = Progress { stages_done: 5, stages_total: 5, tasks_done: 100, ..progress };
        assert!(line(&over, elapsed).starts_with("stage 5/5  tasks 100/100"));
    }
}
