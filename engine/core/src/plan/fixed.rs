//! A plan that nobody changes any more.

use super::Plan;
use crate::digest::Digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// A plan as it is on record: copies share it, and its digest is reckoned once.
#[derive(Debug, Clone)]
pub struct FixedPlan(Arc<Fixed>);

#[derive(Debug)]
struct Fixed {
    plan: Plan,
    digest: OnceLock<Digest>,
}

impl FixedPlan {
    /// Digests the whole plan: what an approval is bound to (rule 11).
    pub fn digest(&self) -> Result<Digest, serde_json::Error> {
        if let Some(known) = self.0.digest.get() {
            return Ok(known.clone());
        }
        let digest = self.0.plan.digest()?;
        Ok(self.0.digest.get_or_init(|| digest).clone())
    }
}

impl From<Plan> for FixedPlan {
    fn from(plan: Plan) -> Self {
        Self(Arc::new(Fixed { plan, digest: OnceLock::new() }))
    }
}

impl Deref for FixedPlan {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0.plan
    }
}

impl PartialEq for FixedPlan {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.plan == other.0.plan
    }
}

impl Serialize for FixedPlan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.plan.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FixedPlan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Plan::deserialize(deserializer).map(Self::from)
    }
}
