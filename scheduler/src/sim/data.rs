//! Symbols for rows. A partition's output is a bag of tokens; a token is a hash of who made it from which tokens, so that a lost, doubled
//! or mixed partition changes the answer.
//!
//! - `Repeatable`: partition `p` makes one token from its position and what it read.
//! - `AsSlice`: the same tokens, but dealt to the partitions of the slice by chance, as work stealing does.
//! - `Varying`: the attempt's number goes into the token. The output carries which attempt it was, and so does everything made from it.
//! - Row limits: the output carries which partitions were there.
//!
//! The answer is right if everything the client received was made from one choice of such attempts and partitions, and equals what a run
//! without faults makes of the same choice.

use std::collections::{BTreeMap, BTreeSet};

use windrow_core::stage::{InputRead, Repeats, StageGraph};

use crate::job::reads;

/// What a partition's output depends on besides the graph: for a stage and partition, the attempt that made it, or that it was there.
pub(crate) type Choice = BTreeMap<(usize, u32), u64>;

/// A partition's output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) tokens: Vec<u64>,
    pub(crate) choice: Choice,
    /// It was made from two different choices.
    pub(crate) is_mixed: bool,
}

/// Scrambles one number into another.
pub(crate) fn mix(sum: u64, value: u64) -> u64 {
    let mut hash = (sum ^ value.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(0xD1B5_4A32_D192_ED03);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

impl Output {
    /// Adds what another output depends on.
    pub(crate) fn depend(&mut self, other: &Self) {
        self.is_mixed |= other.is_mixed;
        for (&key, &value) in &other.choice {
            self.is_mixed |= *self.choice.entry(key).or_insert(value) != value;
        }
    }

    /// Notes one choice.
    pub(crate) fn choose(&mut self, stage: usize, partition: u32, value: u64) {
        self.is_mixed |= *self.choice.entry((stage, partition)).or_insert(value) != value;
    }
}

/// What a partition reads: the sum over inputs and tokens, each scrambled with the segment, so that order does not matter.
pub(crate) fn read_sum<'a>(input: usize, segment: u32, tokens: impl Iterator<Item = &'a u64>) -> u64 {
    let salt = mix(input as u64, u64::from(segment));
    tokens.fold(0, |sum, token| sum.wrapping_add(mix(salt, *token)))
}

/// Which segment of an input a partition reads.
pub(crate) fn segment(read: InputRead, partition: u32) -> u32 {
    match read {
        InputRead::Partitioned { offset, .. } => partition - offset,
        InputRead::Whole | InputRead::Scalar => 0,
    }
}

/// The token of one partition.
pub(crate) fn token(stage: usize, partition: u32, read: u64, nonce: u64) -> u64 {
    mix(mix(stage as u64, u64::from(partition)), mix(read, nonce))
}

/// The sum of a whole result.
pub(crate) fn answer(tokens: &[u64]) -> u64 {
    tokens.iter().fold(0, |sum, token| sum.wrapping_add(mix(7, *token)))
}

/// What a run without faults answers, given what was chosen.
pub(crate) fn expected(graph: &StageGraph, choice: &Choice) -> u64 {
    let mut outputs: Vec<Vec<u64>> = Vec::new();
    let last = graph.stages.len().saturating_sub(1);
    for (index, stage) in graph.stages.iter().enumerate() {
        let there: Option<BTreeSet<u32>> =
            stage.row_limit.map(|_| choice.range((index, 0)..=(index, u32::MAX - 1)).map(|(key, _)| key.1).collect());
        let mut tokens = Vec::new();
        for partition in 0..stage.partitions {
            if there.as_ref().is_some_and(|there| !there.contains(&partition)) {
                continue;
            }
            let mut read = 0_u64;
            for (number, input) in stage.inputs.iter().enumerate().filter(|(_, input)| reads(input, partition)) {
                let producer = &outputs[input.stage.0 as usize];
                read = read.wrapping_add(read_sum(number, segment(input.read, partition), producer.iter()));
            }
            let is_varying = stage.repeats == Repeats::Varying;
            let nonce = if is_varying { choice.get(&(index, partition)).copied().unwrap_or(0) } else { 0 };
            tokens.push(token(index, partition, read, nonce));
        }
        if index == last {
            return answer(&tokens);
        }
        outputs.push(tokens);
    }
    0
}
