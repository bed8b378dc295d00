//! What people do in a simulated world, with the rights of an administrator.

use super::log::Who;
use super::script::PersonAction;
use super::state::Inner;
use engine_core::model::{JobState, NodeName};
use engine_runtime::ports::Write;

impl Inner {
    /// Has a person act; the error is what Slurm told them.
    pub(crate) fn act(&mut self, login: &str, action: PersonAction) -> Result<(), String> {
        let who = Who::person(login);
        let now = self.now;
        let place =
            |w: &Self, node: &NodeName| w.find(node).ok_or_else(|| format!("there is no node {node}"));
        let write = match action {
            PersonAction::Drain { node, reason } => {
                let n = place(self, &node)?;
                self.drain(&who, n, &reason, now)
            }
            PersonAction::Resume { node } => {
                let n = place(self, &node)?;
                self.resume(&who, n, now)
            }
            PersonAction::SetReason { node, reason } => {
                let n = place(self, &node)?;
                self.set_reason(&who, n, &reason)
            }
            PersonAction::Down { node, reason } => {
                let n = place(self, &node)?;
                self.set_down(&who, n, &reason)
            }
            PersonAction::Reboot { node, asap, then_resume } => {
                let n = place(self, &node)?;
                self.ask_reboot(&who, n, asap, then_resume);
                Write::Accepted
            }
            PersonAction::Maintenance { name, node, duration } => {
                let n = place(self, &node)?;
                let end = super::state::later(now, duration);
                self.reserve(&who, &name, n, end)
            }
            PersonAction::DeleteReservation { name } => self.unreserve(&who, &name),
            PersonAction::SuspendJob { job } => return self.suspend(&who, job),
            PersonAction::ResumeJob { job } => return self.unsuspend(&who, job),
            PersonAction::CancelJob { job } => {
                self.finish(job, JobState::Cancelled, &who, "is cancelled");
                Write::Accepted
            }
            PersonAction::StopHolder { node, gpu } => {
                let n = place(self, &node)?;
                let found = self.nodes[n].gpus.iter_mut().find(|g| g.index == gpu);
                let stopped = found.and_then(|g| g.holder.take());
                let p = stopped.ok_or_else(|| format!("nothing holds GPU {gpu} of {node}"))?;
                self.note(&who, Some(n), format!("ends {} (pid {})", p.name, p.pid));
                Write::Accepted
            }
        };
        match write {
            Write::Accepted => Ok(()),
            Write::Refused(r) => {
                self.note(&who, None, format!("is told: {}", r.text));
                Err(r.text)
            }
            Write::Ambiguous(text) => Err(text),
        }
    }
}
