//! The port for nodes whose agents fetch their orders.

use super::mailbox::{Mailbox, Waited};
use crate::ports::{ActuatorStatus, Clock, NodeActuator, WorkOrder, WorkResult};
use async_trait::async_trait;
use engine_core::model::NodeName;
use jiff::SignedDuration;
use std::sync::Arc;
use std::time::Duration;

/// An agent that was not heard for so long is taken for absent.
const SILENT: SignedDuration = SignedDuration::from_secs(90);
/// How long an order waits for its agent to fetch it: an agent asks again at once, but may just be starting.
const TAKE: Duration = Duration::from_secs(45);
/// Time beyond the order's own limit for the way back.
const GRACE: Duration = Duration::from_secs(45);

/// Nodes with agents.
#[derive(Debug)]
pub struct AgentNodes {
    mailbox: Arc<Mailbox>,
    clock: Arc<dyn Clock>,
}

impl AgentNodes {
    /// Builds the port over a mailbox.
    pub fn new(mailbox: Arc<Mailbox>, clock: Arc<dyn Clock>) -> Self {
        Self { mailbox, clock }
    }
}

#[async_trait]
impl NodeActuator for AgentNodes {
    async fn status(&self, node: &NodeName) -> ActuatorStatus {
        let ready = match self.mailbox.seen(node) {
            None => Err(format!("the agent of {node} has not been heard since the engine started")),
            Some(seen) => {
                let age = self.clock.now().duration_since(seen.at);
                if age > SILENT {
                    Err(format!("the agent of {node} was last heard {} s ago", age.as_secs()))
                } else {
                    Ok(())
                }
            }
        };
        ActuatorStatus { by: "agent".to_owned(), ready }
    }

    async fn perform(&self, order: &WorkOrder) -> WorkResult {
        let limit =
            if order.limit > SignedDuration::ZERO { order.limit.unsigned_abs() } else { Duration::ZERO };
        if limit.is_zero() {
            return WorkResult::Refused("the order leaves no time".to_owned());
        }
        let node = &order.node;
        match self.mailbox.send(order.clone(), TAKE.min(limit), limit + GRACE).await {
            Waited::Result(result) => result,
            Waited::NotTaken => WorkResult::Refused(format!(
                "no agent on {node} fetched the order, and none can any more: is `slurmedic agent` running there?"
            )),
            Waited::Full => WorkResult::Refused(format!("too many orders wait for {node}")),
            Waited::Unanswered => WorkResult::Ambiguous(format!(
                "the agent of {node} took the order and did not answer in time"
            )),
        }
    }
}
