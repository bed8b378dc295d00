//! Tickets: issued for one person and one plan, and brought back from a chat or a mail.

use crate::authority::Authority;
use crate::caller::Caller;
use crate::desk::Desk;
use crate::documents::TicketIssued;
use crate::peer::{groups_of, is_name};
use crate::problem::{Problem, ProblemKind};
use crate::secret::random_hex;
use engine_core::model::RunId;
use engine_core::policy::Deed;
use engine_core::run::Status;
use engine_runtime::approval::{BadTicket, Ticket, TicketKey};
use jiff::{SignedDuration, Timestamp};

/// The longest life of a ticket.
pub const MAX_TICKET_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Issues tickets and takes them back.
#[derive(Debug, Clone)]
pub struct TicketDesk {
    key: TicketKey,
}

impl TicketDesk {
    /// Takes the site's key.
    pub fn new(key: Vec<u8>) -> Result<Self, BadTicket> {
        Ok(Self { key: TicketKey::new(key)? })
    }

    /// Makes sure that a caller may have a ticket made: for oneself whoever may say yes, for others an admin, since a
    /// ticket speaks in the name of its person.
    pub fn may_issue(authority: &Authority, caller: &Caller, person: &str) -> Result<(), Problem> {
        let deed = if person == caller.name { Deed::Approve } else { Deed::Policy };
        authority.permit(caller, deed)
    }

    /// Makes a ticket for a run that waits for a yes.
    pub async fn issue(
        &self,
        desk: &Desk,
        run: &RunId,
        person: &str,
        life: SignedDuration,
        now: Timestamp,
    ) -> Result<TicketIssued, Problem> {
        if !is_name(person) {
            return Err(Problem::usage("a person is named by their login name"));
        }
        if life <= SignedDuration::ZERO || life > MAX_TICKET_LIFE {
            return Err(Problem::usage("a ticket lives for more than nothing and at most 7 days"));
        }
        let state = desk.engine().state(run).await?;
        if !matches!(state.status, Status::Proposed | Status::AwaitingApproval) {
            return Err(Problem::new(
                ProblemKind::Conflict,
                format!("run {run} is {}: it waits for no yes", state.status.as_str().replace('_', " ")),
            ));
        }
        let end = now.saturating_add(life).unwrap_or(now);
        let expires_at = state.approval_expires_at.map_or(end, |until| until.min(end));
        let nonce = random_hex(16).map_err(|e| Problem::failed("the ticket", &e))?;
        let ticket = Ticket {
            run: run.clone(),
            digest: state.digest.clone(),
            person: person.to_owned(),
            expires_at,
            nonce,
        };
        let text = self.key.sign(&ticket).map_err(|e| Problem::failed("the ticket", &e))?;
        Ok(TicketIssued {
            format: "slurmedic/ticket/1".to_owned(),
            run: run.clone(),
            digest: state.digest,
            person: ticket.person,
            expires_at,
            ticket: text,
        })
    }

    /// Reads a ticket that came back: signed by this site, not expired, of a person who may say yes now.
    pub async fn open(&self, authority: &Authority, text: &str, now: Timestamp) -> Result<Ticket, Problem> {
        let ticket = self.key.open(text, now).map_err(|e| match e {
            BadTicket::Expired => Problem::new(ProblemKind::Unauthenticated, e.to_string())
                .with_hint("`slurmedic ticket RUN` makes a new one"),
            e => Problem::new(ProblemKind::Unauthenticated, e.to_string()),
        })?;
        let person = ticket.person.clone();
        let groups = tokio::task::spawn_blocking(move || groups_of(&person)).await.unwrap_or_default();
        if !authority.person_may(&ticket.person, &groups, Deed::Approve) {
            let error = format!("{} may not approve any more: the policy gives no such role", ticket.person);
            return Err(Problem::new(ProblemKind::NotPermitted, error));
        }
        Ok(ticket)
    }
}
