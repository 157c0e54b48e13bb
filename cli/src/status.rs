//! `windrow status` and `.status`: executors and jobs as two small tables, or as JSON.

use std::io::Write;

use windrow::{ClusterStatus, ConnectOptions, ExecutorState, ExecutorStatus, JobState, JobStatus};

use crate::args::StatusArguments;
use crate::end::End;
use crate::terminal::{self, size};

/// Characters of a job's SQL that a line shows.
const SQL_SHOWN: usize = 60;

/// Runs `windrow status`.
pub(crate) async fn run(arguments: StatusArguments) -> Result<(), End> {
    let login = arguments.login.login(Some(&arguments.connect)).map_err(End::starting)?;
    let options = ConnectOptions { url: Some(arguments.connect), login, ..ConnectOptions::default() };
    let session = options.connect().await.map_err(End::connecting)?;
    let status = session.status().await?;
    session.close().await;
    let text = if arguments.json {
        let json = serde_json::to_string_pretty(&status)
            .map_err(|source| windrow::Error::internal("the status does not encode").with_source(source))?;
        json + "\n"
    } else {
        text(&status)
    };
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

/// The status for people.
pub(crate) fn text(status: &ClusterStatus) -> String {
    let mut text = String::new();
    let alive = status.executors.iter().filter(|executor| executor.state == ExecutorState::Alive);
    let slots: u32 = alive.clone().map(|executor| executor.slots).sum();
    text.push_str(&format!(
        "{}, {}, {}\n",
        terminal::plural(alive.count() as u64, "executor"),
        terminal::plural(u64::from(slots), "slot"),
        terminal::plural(status.jobs.iter().filter(|job| !job.progress.state.is_over()).count() as u64, "running job")
    ));
    if !status.executors.is_empty() {
        let header = ["executor", "state", "pid", "slots", "memory", "shuffle", "disk", "address"];
        text.push_str(&columns(&header, status.executors.iter().map(executor_row)));
        for executor in status.executors.iter().filter(|executor| !executor.deaths.is_empty()) {
            text.push_str(&format!("{} died: {}\n", executor.name, executor.deaths.join("; ")));
        }
    }
    if !status.jobs.is_empty() {
        text.push('\n');
        let header = ["job", "state", "stages", "tasks", "rows", "shuffle", "retries", "query"];
        text.push_str(&columns(&header, status.jobs.iter().map(job_row)));
    }
    text
}

fn executor_row(executor: &ExecutorStatus) -> Vec<String> {
    let state = match executor.state {
        ExecutorState::Alive => "alive",
        ExecutorState::Suspect => "suspect",
        ExecutorState::Leaving => "leaving",
        ExecutorState::Dead => "dead",
        ExecutorState::Left => "left",
    };
    vec![
        executor.name.clone(),
        state.to_owned(),
        if executor.pid == 0 { "-".to_owned() } else { executor.pid.to_string() },
        format!("{}/{}", executor.slots_used, executor.slots),
        format!("{}/{}", size(executor.memory_bytes), size(executor.memory_limit)),
        size(executor.store_bytes),
        size(executor.disk_bytes),
        if executor.address.is_empty() { "in process".to_owned() } else { executor.address.clone() },
    ]
}

/// A job as cells.
pub(crate) fn job_row(job: &JobStatus) -> Vec<String> {
    let progress = &job.progress;
    let state = match progress.state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    };
    let one_line = job.sql.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut sql: String = one_line.chars().take(SQL_SHOWN).collect();
    if sql.len() < one_line.len() {
        sql.push('…');
    }
    if let Some(error) = &job.error {
        sql.push_str(&format!("  ({})", error.lines().next().unwrap_or_default()));
    }
    vec![
        job.id.to_string(),
        state.to_owned(),
        format!("{}/{}", progress.stages_done, progress.stages_total),
        format!("{}/{}", progress.tasks_done, progress.tasks_total),
        terminal::count(progress.rows),
        size(progress.shuffle_bytes),
        progress.retries.to_string(),
        sql,
    ]
}

/// Lines of columns, two blanks apart.
pub(crate) fn columns(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines = vec![header.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use windrow::Progress;
    use windrow_core::ids::{ExecutorId, Incarnation, JobId};

    use super::*;

    #[test]
    fn a_cluster_reads_as_two_tables() {
        let executor = |name: &str, state| ExecutorStatus {
            name: name.to_owned(),
            id: ExecutorId(0),
            incarnation: Incarnation(1),
            pid: 4711,
            slots: 2,
            slots_used: 1,
            memory_limit: 4_000_000_000,
            memory_bytes: 12_000_000,
            store_bytes: 0,
            disk_bytes: 0,
            address: "127.0.0.1:40001".to_owned(),
            deaths: if state == ExecutorState::Dead { vec!["ended by signal 6".to_owned()] } else { Vec::new() },
            state,
        };
        let job = |id, state, sql: &str, error: Option<&str>| JobStatus {
            id: JobId(id),
            user: String::new(),
            sql: sql.to_owned(),
            submitted: 1_700_000_000_000,
            progress: Progress { state, stages_done: 1, stages_total: 3, tasks_done: 4, tasks_total: 9, ..Progress::default() },
            error: error.map(str::to_owned),
        };
        let status = ClusterStatus {
            executors: vec![executor("local-0", ExecutorState::Alive), executor("local-1", ExecutorState::Dead)],
            jobs: vec![
                job(
                    7,
                    JobState::Running,
                    "SELECT\n  count(*)\nFROM lineitem JOIN orders ON l_orderkey = o_orderkey WHERE true",
                    None,
                ),
                job(8, JobState::Failed, "SELECT 1/0", Some("division by zero\nat stage 0")),
            ],
            counters: Vec::new(),
        };
        insta::assert_snapshot!("status", text(&status));
        insta::assert_snapshot!("status_empty", text(&ClusterStatus::default()));
    }
}
