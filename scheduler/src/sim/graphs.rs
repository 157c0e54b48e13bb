//! The jobs of the model world, drawn from the seed.

use windrow_core::ids::StageId;
use windrow_core::rand::Rng;
use windrow_core::stage::{Alternative, Exchange, InputRead, Repeats, Stage, StageGraph, StageInput};

/// What jobs look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One to six stages of one to nine partitions, of every kind.
    Small,
    /// Three stages, the first of about so many partitions.
    Wide {
        /// How many.
        leaf: u32,
    },
}

fn stage(id: usize, partitions: u32, exchange: Exchange) -> Stage {
    Stage::new(StageId(u32::try_from(id).unwrap_or(u32::MAX)), partitions, exchange)
}

fn input(stage: usize, read: InputRead) -> StageInput {
    StageInput { stage: StageId(u32::try_from(stage).unwrap_or(u32::MAX)), read }
}

/// Draws a graph.
pub(crate) fn draw(rng: &mut Rng, shape: Shape) -> StageGraph {
    let graph = match shape {
        Shape::Small if rng.u32(..6) == 0 => join(rng),
        Shape::Small => small(rng),
        Shape::Wide { leaf } => wide(rng, leaf),
    };
    StageGraph { stages: graph, settings: Vec::new() }
}

fn wide(rng: &mut Rng, leaf: u32) -> Vec<Stage> {
    let middle = if leaf < 10_000 { rng.u32(8..24) } else { rng.u32(2..4) };
    let leaf = rng.u32(leaf / 2..=leaf.saturating_mul(5) / 4);
    let mut stages = vec![stage(0, leaf, Exchange::Hash { partitions: middle })];
    let mut hash = stage(1, middle, Exchange::Merge);
    hash.inputs = vec![input(0, InputRead::Partitioned { offset: 0, count: middle })];
    if rng.u32(..4) == 0 {
        hash.repeats = Repeats::AsSlice;
    }
    stages.push(hash);
    let mut last = stage(2, 1, Exchange::Result);
    last.inputs = vec![input(1, InputRead::Whole)];
    stages.push(last);
    stages
}

/// A join of two stages, of which the second is spared if the first turns out small.
fn join(rng: &mut Rng) -> Vec<Stage> {
    let count = rng.u32(1..=9);
    let hash = Exchange::Hash { partitions: count };
    let segments = InputRead::Partitioned { offset: 0, count };
    let places = if rng.bool() { [0, 1, 2, 3] } else { [2, 3, 0, 1] };
    let [at_build, at_gather, at_filter, at_probe] = places;
    let mut build = stage(at_build, rng.u32(1..=9), hash);
    build.row_limit = (rng.u32(..8) == 0).then(|| rng.u64(1..=9));
    let mut gather = stage(at_gather, count, Exchange::Broadcast);
    gather.inputs = vec![input(at_build, segments)];
    let filter = stage(at_filter, rng.u32(1..=3), Exchange::Broadcast);
    let mut probe = stage(at_probe, count, hash);
    probe.after = Some(build.id);
    if rng.bool() {
        probe.inputs = vec![input(at_filter, InputRead::Whole)];
    }
    let mut join = stage(4, count, Exchange::Merge);
    join.inputs = vec![input(at_build, segments), input(at_probe, segments)];
    let mut other = stage(4, count, Exchange::Merge);
    other.inputs = vec![input(at_gather, InputRead::Whole)];
    other.inputs.extend(probe.inputs.iter().cloned());
    let bytes_max = rng.u64(..30);
    join.alternative = Some(Box::new(Alternative { measured: build.id, bytes_max, spared: probe.id, stage: other }));
    let mut last = stage(5, 1, Exchange::Result);
    last.inputs = vec![input(4, InputRead::Whole)];
    if rng.u32(..4) == 0 {
        // Both forms are needed then.
        last.inputs.push(input(at_probe, segments));
        last.partitions = count;
    }
    let mut stages = vec![build, gather, filter, probe, join, last];
    stages.sort_by_key(|stage| stage.id);
    for stage in &mut stages {
        stage.repeats = repeats(rng);
        if let Some(form) = &mut stage.alternative {
            form.stage.repeats = repeats(rng);
        }
    }
    stages
}

fn repeats(rng: &mut Rng) -> Repeats {
    match rng.u32(..6) {
        0 => Repeats::AsSlice,
        1 => Repeats::Varying,
        _ => Repeats::Repeatable,
    }
}

/// Stages of every kind; each reads one to three earlier ones, and the last reads all that nobody else reads.
fn small(rng: &mut Rng) -> Vec<Stage> {
    let count = rng.usize(1..=6);
    let mut stages: Vec<Stage> = Vec::new();
    for id in 0..count {
        let is_last = id + 1 == count;
        let mut next = stage(id, rng.u32(1..=9), Exchange::Result);
        if !is_last {
            next.exchange = match rng.u32(..3) {
                0 => Exchange::Merge,
                1 => Exchange::Broadcast,
                _ => Exchange::Hash { partitions: rng.u32(1..=9) },
            };
        }
        let unread = |stages: &[Stage], producer: usize| {
            !stages.iter().any(|stage| stage.inputs.iter().any(|input| input.stage.0 as usize == producer))
        };
        for producer in 0..id {
            if rng.u32(..3) == 0 || (is_last && rng.u32(..8) > 0 && unread(&stages, producer)) {
                read(rng, &stages[producer], producer, &mut next);
            }
        }
        next.repeats = repeats(rng);
        next.whole = rng.u32(..8) == 0;
        next.row_limit = (rng.u32(..8) == 0).then(|| rng.u64(1..=9));
        stages.push(next);
    }
    stages
}

/// Lets `consumer` read `producer`; a second hash exchange is read at an offset, as below a union.
fn read(rng: &mut Rng, producer: &Stage, index: usize, consumer: &mut Stage) {
    let edge = match producer.exchange {
        Exchange::Hash { partitions } => {
            let has_hash = consumer.inputs.iter().any(|input| matches!(input.read, InputRead::Partitioned { .. }));
            if has_hash && rng.bool() {
                let offset = consumer.partitions;
                consumer.partitions += partitions;
                InputRead::Partitioned { offset, count: partitions }
            } else {
                consumer.partitions = consumer.partitions.max(partitions);
                InputRead::Partitioned { offset: 0, count: partitions }
            }
        }
        _ if producer.partitions == 1 && rng.u32(..4) == 0 => InputRead::Scalar,
        _ => InputRead::Whole,
    };
    consumer.inputs.push(input(index, edge));
}
