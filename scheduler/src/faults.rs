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
    /// When one of two copies has committed a partition, the other may commit it too.
    TwoWinners,
    /// When an attempt ends, its copy does not take over its partitions.
    TwinForgotten,
    /// An attempt that its executor does not name is not missed.
    LaunchNotMissed,
    /// Of a stage whose rows vary only what was lost runs again.
    VaryingMixed,
    /// A stage that was to repeat itself is believed to have done so.
    RepeatTrusted,
    /// A result may go on after a part of it that was sent has been voided.
    ResultContradicted,
    /// A backoff has no timer.
    BackoffForgotten,
    /// An executor that is lost stays reserved.
    ReservationLeaked,
    /// A repeated report counts again.
    DoneTwiceCounted,
    /// A launch leaves out what one producer attempt made.
    InputForgotten,
    /// A partition that was present when enough executors died is blamed, without a run on its own.
    BlamedByPresence,
    /// A job that ends stays in the queue for executors of its own.
    QueueEntryLeaked,
    /// A job that ends lets no other in.
    AdmissionForgotten,
    /// A kept result that was read and is lost is not computed again.
    KeptForgotten,
    /// A kept result that was read and is lost is computed again though its rows may move between its partitions.
    KeptRedealt,
    /// A job with a kept result holds on to what the result was made from.
    KeptWhole,
    /// What somebody waits for does not begin while its job is held.
    AwaitedForgotten,
}

impl Fault {
    /// Every one of them.
    pub const ALL: [Self; 23] = [
        Self::StaleIncarnationAccepted,
        Self::GenerationNotRaised,
        Self::SlotLeakedOnCancel,
        Self::ReleasedEarly,
        Self::SliceSplit,
        Self::WakeUpForgotten,
        Self::TwoWinners,
        Self::TwinForgotten,
        Self::LaunchNotMissed,
        Self::VaryingMixed,
        Self::RepeatTrusted,
        Self::ResultContradicted,
        Self::BackoffForgotten,
        Self::ReservationLeaked,
        Self::DoneTwiceCounted,
        Self::InputForgotten,
        Self::BlamedByPresence,
        Self::QueueEntryLeaked,
        Self::AdmissionForgotten,
        Self::KeptForgotten,
        Self::KeptRedealt,
        Self::KeptWhole,
        Self::AwaitedForgotten,
    ];
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
