//! Does dcgm-exporter answer with metrics? Its `/health` says yes while its engine is gone, so the metrics count.

use super::{METRICS, Said, Scene};
use crate::config::Params;
use crate::finding::{EXPORTER_DOWN, Finding};
use std::net::SocketAddr;

/// One exporter.
#[derive(Debug, Clone)]
pub(crate) struct Exporter {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    path: String,
}

impl Exporter {
    /// Reads the settings.
    pub(super) fn read(p: &mut Params) -> Result<Self, String> {
        let address = p.address("address")?.ok_or("check exporter needs address=127.0.0.1:9400")?;
        let path = p.text("path").unwrap_or_else(|| METRICS.to_owned());
        Ok(Self { address, path })
    }

    /// Looks.
    pub(super) fn look(&self, scene: &Scene) -> Said {
        let down = |why: String| {
            let text = format!("dcgm-exporter at {}: {why}", self.address);
            Said::found(Finding::now(EXPORTER_DOWN, self.address.to_string(), text))
        };
        match scene.metrics(self.address, &self.path) {
            Err(e) => down(e),
            Ok(text) => match text.lines().filter(|l| l.starts_with("DCGM_")).count() {
                0 => down("it answers without a single metric".to_owned()),
                n => Said::fine(format!("{n} metrics")),
            },
        }
    }
}
