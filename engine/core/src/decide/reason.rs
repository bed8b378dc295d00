//! Reason codes: why nothing is done, or why a person is asked.

use serde::Serialize;

/// Why nothing is done, or why a person is asked. The words are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// The cluster has no such node.
    UnknownNode,
    /// The alert is too old.
    StaleAlert,
    /// It is the same again.
    Duplicate,
    /// Somebody else took the node out.
    ForeignDrain,
    /// Somebody has the node in maintenance.
    MaintReservation,
    /// A reboot or a change of power goes on.
    RebootInProgress,
    /// Everything is frozen.
    BreakerOpen,
    /// Too much is out of service already.
    BudgetExhausted,
    /// Another run works on the node.
    LeaseHeld,
    /// A program's own mistake.
    AppFault,
    /// Nothing is wrong.
    Informational,
    /// What is known does not suffice.
    InsufficientEvidence,
    /// Nobody knows the code.
    UnknownCode,
    /// The node was repaired too often.
    RepeatOffender,
    /// Something was changed, and this follows from it.
    ConfigChangeSuspected,
    /// A file system is sick, and this follows from it.
    StorageIncident,
    /// Power, cooling or a switch is sick, and this follows from it.
    FacilityIncident,
    /// slurmctld does not answer.
    ControllerUnreachable,
    /// The text of the alert does not come from where it says.
    UntrustedText,
    /// It is over.
    Resolved,
}

impl ReasonCode {
    /// Returns the stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownNode => "unknown_node",
            Self::StaleAlert => "stale_alert",
            Self::Duplicate => "duplicate",
            Self::ForeignDrain => "foreign_drain",
            Self::MaintReservation => "maint_reservation",
            Self::RebootInProgress => "reboot_in_progress",
            Self::BreakerOpen => "breaker_open",
            Self::BudgetExhausted => "budget_exhausted",
            Self::LeaseHeld => "lease_held",
            Self::AppFault => "app_fault",
            Self::Informational => "informational",
            Self::InsufficientEvidence => "insufficient_evidence",
            Self::UnknownCode => "unknown_code",
            Self::RepeatOffender => "repeat_offender",
            Self::ConfigChangeSuspected => "config_change_suspected",
            Self::StorageIncident => "storage_incident",
            Self::FacilityIncident => "facility_incident",
            Self::ControllerUnreachable => "controller_unreachable",
            Self::UntrustedText => "untrusted_text",
            Self::Resolved => "resolved",
        }
    }
}
