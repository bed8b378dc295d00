//! The checks: one file each. They run in the worker, where they may hang without anybody waiting for them.

mod exporter;
mod gpus;
mod gres;
mod ib;
mod leftover;
mod mount;
mod space;
mod throttle;
mod xid;

use crate::config::Params;
use crate::finding::Finding;
use crate::http;
use crate::mode::Mode;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

/// Where an exporter has its metrics.
pub(crate) const METRICS: &str = "/metrics";
/// The most findings of one check; more are counted, not listed.
pub(crate) const MAX_FINDINGS: usize = 64;

/// What a check may need to know.
pub(crate) struct Scene<'a> {
    /// Why it runs.
    pub(crate) mode: Mode,
    /// When its programs and requests must have ended.
    pub(crate) end: Instant,
    /// Where its last look ended, as it said itself.
    pub(crate) cursor: Option<String>,
    /// The name of this node in slurm.conf.
    pub(crate) node: String,
    /// The last scrape of this look, which two checks may want.
    pub(crate) scrape: &'a RefCell<Option<(SocketAddr, Rc<str>)>>,
}

impl Scene<'_> {
    /// Reads an exporter's metrics, once in a look.
    pub(crate) fn metrics(&self, address: SocketAddr, path: &str) -> Result<Rc<str>, String> {
        if let Some((of, text)) = &*self.scrape.borrow()
            && *of == address
            && path == METRICS
        {
            return Ok(Rc::clone(text));
        }
        let text: Rc<str> = http::get(address, path, self.end)?.into();
        if path == METRICS {
            *self.scrape.borrow_mut() = Some((address, Rc::clone(&text)));
        }
        Ok(text)
    }
}

/// What a check says.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// What is wrong.
    pub(crate) findings: Vec<Finding>,
    /// What kept it from looking. Then nothing it did not find counts as over.
    pub(crate) trouble: Option<String>,
    /// A few words for the table of `--dry-run`.
    pub(crate) note: String,
    /// Where its next look begins.
    pub(crate) cursor: Option<String>,
}

impl Said {
    /// Could not look.
    pub(crate) fn trouble(why: impl Into<String>) -> Self {
        Self { trouble: Some(why.into()), ..Self::default() }
    }

    /// Found nothing wrong.
    pub(crate) fn fine(note: impl Into<String>) -> Self {
        Self { note: note.into(), ..Self::default() }
    }

    /// Found one thing.
    pub(crate) fn found(finding: Finding) -> Self {
        Self { findings: vec![finding], ..Self::default() }
    }
}

/// One check with its settings.
#[derive(Debug, Clone)]
pub(crate) enum Check {
    /// A file system is mounted and answers.
    Mount(mount::Mount),
    /// There is space left.
    Space(space::Space),
    /// All GPUs are there.
    Gpus(gpus::Gpus),
    /// The kernel log has XIDs.
    Xid(xid::Xid),
    /// GPUs are throttled.
    Throttle(throttle::Throttle),
    /// InfiniBand ports are up.
    Ib(ib::Ib),
    /// Processes were left over.
    Leftover(leftover::Leftover),
    /// dcgm-exporter answers.
    Exporter(exporter::Exporter),
}

impl Check {
    /// The words of the configuration.
    pub(crate) const KINDS: [&'static str; 8] =
        ["mount", "space", "gpus", "xid", "throttle", "ib", "leftover", "exporter"];

    /// Reads the settings of a kind.
    pub(crate) fn read(kind: &str, p: &mut Params) -> Result<Self, String> {
        Ok(match kind {
            "mount" => Self::Mount(mount::Mount::read(p)?),
            "space" => Self::Space(space::Space::read(p)?),
            "gpus" => Self::Gpus(gpus::Gpus::read(p)?),
            "xid" => Self::Xid(xid::Xid::read(p)?),
            "throttle" => Self::Throttle(throttle::Throttle::read(p)?),
            "ib" => Self::Ib(ib::Ib::read(p)?),
            "leftover" => Self::Leftover(leftover::Leftover::read(p)?),
            "exporter" => Self::Exporter(exporter::Exporter::read(p)?),
            _ => return Err(format!("there is no check {kind:?}: take one of {}", Self::KINDS.join(", "))),
        })
    }

    /// What it looks at, for its name.
    pub(crate) fn about(&self) -> Option<String> {
        match self {
            Self::Mount(c) => Some(c.path.display().to_string()),
            Self::Space(c) => Some(c.path.display().to_string()),
            Self::Exporter(c) => Some(c.address.to_string()),
            Self::Xid(c) => Some(c.log.display().to_string()),
            Self::Gpus(_) | Self::Throttle(_) | Self::Ib(_) | Self::Leftover(_) => None,
        }
    }

    /// Looks.
    pub(crate) fn look(&self, scene: &Scene) -> Said {
        match self {
            Self::Mount(c) => c.look(),
            Self::Space(c) => c.look(),
            Self::Gpus(c) => c.look(scene),
            Self::Xid(c) => c.look(scene),
            Self::Throttle(c) => c.look(scene),
            Self::Ib(c) => c.look(),
            Self::Leftover(c) => c.look(scene),
            Self::Exporter(c) => c.look(scene),
        }
    }

    /// What it means when it does not come to an end: a file system that hangs is a fault of the storage; anything else
    /// that hangs says nothing about the node.
    pub(crate) fn hangs(&self) -> Option<Finding> {
        match self {
            Self::Mount(c) => Some(mount::hang(&c.path)),
            Self::Space(c) => Some(mount::hang(&c.path)),
            _ => None,
        }
    }
}
