//! Bugs that the simulator plants to show that its checks find them. Nothing outside tests can plant one.

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A new incarnation takes over the attempts and outputs of the one before.
    StaleIncarnationAccepted,
    /// A lost partition runs again in the generation it had.
    GenerationNotRaised,
    /// The slots of a cancelled attempt stay taken.
    SlotLeakedOnCancel,
    /// An output is released when the first consumer partition has committed.
    ReleasedEarly,
    /// A lost partition of a stage that commits by slice runs again without its slice.
    SliceSplit,
    /// An attempt whose executor is gone is not queued again.
    WakeUpForgotten,
}

/// The bug that is planted, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Faults(Option<Fault>);

impl Faults {
    /// Plants a bug.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn plant(fault: Fault) -> Self {
        Self(Some(fault))
    }

    pub(crate) fn has(self, fault: Fault) -> bool {
        self.0 == Some(fault)
    }
}
