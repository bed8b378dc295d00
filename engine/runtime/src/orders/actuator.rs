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

/// Nodes with agents, and this host beside them.
#[derive(Debug)]
pub struct AgentNodes {
    mailbox: Arc<Mailbox>,
    clock: Arc<dyn Clock>,
    own: (NodeName, Arc<dyn NodeActuator>),
    take: Duration,
    grace: Duration,
}

impl AgentNodes {
    /// Builds the port over a mailbox. The node `own` is this host, which needs no agent.
    pub fn new(mailbox: Arc<Mailbox>, clock: Arc<dyn Clock>, own: (NodeName, Arc<dyn NodeActuator>)) -> Self {
        Self { mailbox, clock, own, take: TAKE, grace: GRACE }
    }

    /// Sets how long an order waits to be fetched, and how long beyond its own limit for the answer.
    #[must_use]
    pub fn waiting(self, take: Duration, grace: Duration) -> Self {
        Self { take, grace, ..self }
    }
}

#[async_trait]
impl NodeActuator for AgentNodes {
    async fn status(&self, node: &NodeName) -> ActuatorStatus {
        if *node == self.own.0 {
            return self.own.1.status(node).await;
        }
        let ready = match self.mailbox.seen(node) {
            None => Err(format!(
                "the agent of {node} has not been heard by this process: agents talk to the engine that serves"
            )),
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
        if order.node == self.own.0 {
            return self.own.1.perform(order).await;
        }
        let limit =
            if order.limit > SignedDuration::ZERO { order.limit.unsigned_abs() } else { Duration::ZERO };
        if limit.is_zero() {
            return WorkResult::Refused("the order leaves no time".to_owned());
        }
        let node = &order.node;
        match self.mailbox.send(order.clone(), self.take.min(limit), limit + self.grace).await {
            Waited::Result(result) => *result,
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
