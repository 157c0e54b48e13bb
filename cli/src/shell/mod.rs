//! The interactive shell: reads a statement with history and completion, runs it, and asks for the next.
//!
//! `validate.rs` says when Enter runs, `complete.rs` what Tab offers, `highlight.rs` what is coloured, `commands.rs` what begins
//! with a dot; `render.rs` and `progress.rs` are shared with scripts.

mod commands;
mod complete;
mod highlight;
pub(crate) mod progress;
pub(crate) mod render;
mod validate;

use std::borrow::Cow;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reedline::{
    ColumnarMenu, Emacs, FileBackedHistory, KeyCode, KeyModifiers, MenuBuilder, Prompt, PromptEditMode, PromptHistorySearch,
    Reedline, ReedlineEvent, ReedlineMenu, Signal, default_emacs_keybindings,
};
use windrow::{Error, Session};

use crate::args::SqlOptions;
use crate::end::End;
use crate::interrupt::Interrupt;
use crate::statement::Manner;
use crate::{sql, terminal};
use commands::Next;
use complete::{KnownNames, NameCompleter};
use render::Format;

/// Statements the history keeps.
const HISTORY_MAX: usize = 10_000;
const MENU: &str = "completion";

/// Runs the shell until the user leaves.
pub(crate) async fn run(session: &Session, options: &SqlOptions, interrupt: &mut Interrupt) -> Result<(), End> {
    let names = KnownNames::default();
    let leave = leave_on_signals()?;
    let mut editor = editor(&names, leave);
    let mut manner = Manner {
        format: options.format.unwrap_or(Format::Table),
        timing: options.timing.is_some(),
        summary: true,
        progress: std::io::stderr().is_terminal(),
        name: "query".to_owned(),
    };
    greet(session).await;
    let end = ask(session, &mut editor, &mut manner, &names, interrupt).await;
    names.stop().await;
    end
}

/// Reads and runs until the user leaves.
async fn ask(
    session: &Session,
    editor: &mut Reedline,
    manner: &mut Manner,
    names: &KnownNames,
    interrupt: &mut Interrupt,
) -> Result<(), End> {
    loop {
        names.refresh(session);
        // The editor blocks until a line is there; the runtime moves its other work elsewhere meanwhile.
        let signal = tokio::task::block_in_place(|| editor.read_line(&WindrowPrompt));
        let text = match signal {
            Ok(Signal::Success(text)) => text,
            Ok(Signal::CtrlC) => continue,
            Ok(Signal::CtrlD) => return Ok(()),
            // Only our own flag breaks the prompt.
            Ok(Signal::ExternalBreak(_)) => return Err(End::Left),
            Ok(_) => continue,
            Err(error) => return Err(Error::internal(format!("the terminal cannot be read: {error}")).into()),
        };
        match perform(session, &text, manner, names, interrupt).await {
            // Whoever asked has read why already.
            Ok(Next::Prompt) | Err(End::Told | End::Interrupted) => {}
            Ok(Next::Leave) => return Ok(()),
            Err(end @ (End::Left | End::Output(_))) => return Err(end),
            Err(end) => drop(end.tell()),
        }
    }
}

async fn perform(
    session: &Session,
    text: &str,
    manner: &mut Manner,
    names: &KnownNames,
    interrupt: &mut Interrupt,
) -> Result<Next, End> {
    let line = text.trim();
    if line.starts_with('.') || validate::leaves(line) {
        return commands::run(session, line, manner, names, interrupt).await;
    }
    sql::script(session, text, manner, false, interrupt).await.map(|()| Next::Prompt)
}

/// What is connected to, and how to get help.
async fn greet(session: &Session) {
    let cluster = match session.status().await {
        Ok(status) => {
            let slots: u32 = status.executors.iter().map(|executor| executor.slots).sum();
            let memory: u64 = status.executors.iter().map(|executor| executor.memory_limit).sum();
            format!("{}, {}", terminal::plural(u64::from(slots), "slot"), terminal::size(memory))
        }
        Err(error) => error.to_string(),
    };
    let place = session.url().unwrap_or("engine in this process");
    terminal::note(&format!(
        "windrow {}  {place}, {cluster}\n.help for help, Tab completes, Ctrl-C cancels, Ctrl-D leaves",
        env!("CARGO_PKG_VERSION")
    ));
}

/// A flag that ends the prompt when the process is asked to leave.
fn leave_on_signals() -> Result<Arc<AtomicBool>, Error> {
    let flag = Arc::new(AtomicBool::new(false));
    let mut interrupt = Interrupt::listen()?;
    let raised = Arc::clone(&flag);
    tokio::spawn(async move {
        while interrupt.asked().await != crate::interrupt::Asked::Leave {}
        raised.store(true, Ordering::Relaxed);
    });
    Ok(flag)
}

fn editor(names: &KnownNames, leave: Arc<AtomicBool>) -> Reedline {
    let menu = ColumnarMenu::default().with_name(MENU).with_columns(4).with_column_padding(2);
    let mut keys = default_emacs_keybindings();
    let complete = ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(MENU.to_owned()), ReedlineEvent::MenuNext]);
    keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, complete);
    keys.add_binding(KeyModifiers::SHIFT, KeyCode::BackTab, ReedlineEvent::MenuPrevious);
    let editor = Reedline::create()
        .with_completer(Box::new(NameCompleter::new(names.clone())))
        .with_quick_completions(true)
        .with_partial_completions(true)
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_validator(Box::new(validate::StatementValidator))
        .with_ansi_colors(terminal::colour())
        .with_history_exclusion_prefix(Some(" ".to_owned()))
        .with_break_signal(leave);
    let editor = if terminal::colour() { editor.with_highlighter(Box::new(highlight::SqlHighlighter)) } else { editor };
    match history() {
        Ok(history) => editor.with_history(Box::new(history)),
        Err(reason) => {
            terminal::note(&format!("the history is not kept: {reason}"));
            editor
        }
    }
}

/// The history in `$XDG_STATE_HOME/windrow/history` or `~/.local/state/windrow/history`.
fn history() -> Result<FileBackedHistory, String> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| std::env::home_dir().map(|home| home.join(".local/state"))).ok_or("there is no home folder")?;
    FileBackedHistory::with_file(HISTORY_MAX, state.join("windrow/history")).map_err(|error| error.to_string())
}

struct WindrowPrompt;

impl Prompt for WindrowPrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed("windrow")
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("      -> ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        Cow::Owned(format!("(search '{}') ", search.term))
    }
}
