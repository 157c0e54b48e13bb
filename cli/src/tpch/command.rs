//! `windrow tpch`: generates and says what came out.

use std::io::Write;

use windrow_core::clock::Stopwatch;

use super::{Options, generate};
use crate::args::TpchArguments;
use crate::end::End;
use crate::{status, terminal};

/// Runs `windrow tpch`.
pub(crate) fn run(arguments: &TpchArguments) -> Result<(), End> {
    let watch = Stopwatch::start();
    let options =
        Options { scale: arguments.scale, output: arguments.output.clone(), format: arguments.format, parts: arguments.parts };
    // The generator blocks its thread, which is all that this subcommand does.
    let tables = tokio::task::block_in_place(|| generate(&options)).map_err(End::starting)?;
    let rows = tables.iter().map(|table| {
        vec![table.table.name().to_owned(), terminal::grouped(table.rows), table.files.to_string(), terminal::size(table.bytes)]
    });
    let mut output = std::io::stdout().lock();
    output.write_all(status::columns(&["table", "rows", "files", "size"], rows).as_bytes())?;
    let bytes = tables.iter().map(|table| table.bytes).sum();
    let folder = arguments.output.display();
    writeln!(output, "\n{} in {:.1} s under {folder}", terminal::size(bytes), watch.elapsed().as_secs_f64())?;
    writeln!(output, "next: windrow bench tpch --data {folder}")?;
    Ok(output.flush()?)
}
