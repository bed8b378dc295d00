//! Configuration of a node's tools: where they are, how services are stopped and started, how long to wait.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, PathBuf};
use std::time::Duration;

/// The tools of one node. Every key has a default; an unknown key is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeToolsConfig {
    /// Absolute path of `dcgmi`; of the same major release as nv-hostengine.
    pub dcgmi: PathBuf,
    /// Absolute path of `nvidia-smi`.
    pub nvidia_smi: PathBuf,
    /// Variables for the tools besides `LC_ALL` and `PATH`, which they get always.
    pub environment: BTreeMap<String, String>,
    /// Seconds after which one call of a tool is given up, 1 to 600. A hung host engine would hold dcgmi for 120.
    pub read_deadline_seconds: u64,
    /// Seconds that a reset may take, 10 to 1800.
    pub reset_deadline_seconds: u64,
    /// Seconds that the host engine may take from its start to its first answer, 1 to 600.
    pub engine_start_seconds: u64,
    /// Command that stops nv-hostengine, as words; empty where this is not possible.
    pub stop_engine: Vec<String>,
    /// Command that starts nv-hostengine, as words; empty where this is not possible.
    pub start_engine: Vec<String>,
    /// Command that stops dcgm-exporter, as words; empty where there is none.
    pub stop_exporter: Vec<String>,
    /// Command that starts dcgm-exporter, as words; empty where there is none.
    pub start_exporter: Vec<String>,
    /// How to find out whether dcgm-exporter answers.
    pub exporter: ExporterCheck,
    /// Command that prints the kernel log for the evidence, as words; empty for none.
    pub kernel_log: Vec<String>,
    /// Whether a cgroup of a Slurm job on the node forbids a reset.
    pub check_job_cgroups: bool,
    /// Where cgroups are mounted.
    pub cgroup_root: PathBuf,
    /// Where the process file system is mounted.
    pub proc_root: PathBuf,
    /// Where sysfs is mounted.
    pub sys_root: PathBuf,
    /// Absolute path of `systemctl`, which restarts services.
    pub systemctl: PathBuf,
    /// Units that may be restarted by an order, without `.service`; any other is refused.
    pub services: Vec<String>,
    /// Lowest user id of people; processes and files of a lower one are never touched.
    pub first_user_id: u32,
    /// Directories below which leftovers may be moved into quarantine; empty for none.
    pub scratch: Vec<PathBuf>,
    /// Absolute path of `scontrol`, for the evidence: Slurm's view of this node.
    pub scontrol: PathBuf,
    /// Log files whose end goes into the evidence.
    pub evidence_logs: Vec<PathBuf>,
    /// What is taken out of the evidence.
    pub redact: Redact,
}

/// What is taken out of texts before they leave the node. Literal texts, no patterns; all but `texts` and `homes`
/// without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redact {
    /// A name that holds one of these has its value taken out: `DB_PASSWORD=...`, `--token ...`, `"secret": ...`.
    pub keys: Vec<String>,
    /// A word that begins with one of these is taken out: forms of well-known tokens.
    pub prefixes: Vec<String>,
    /// Paths below these directories are taken out: homes of users.
    pub homes: Vec<String>,
    /// These texts are taken out wherever they are.
    pub texts: Vec<String>,
}

impl Default for Redact {
    fn default() -> Self {
        Self {
            keys: words(&[
                "password",
                "passwd",
                "passphrase",
                "secret",
                "token",
                "api_key",
                "api-key",
                "apikey",
                "access_key",
                "private_key",
                "credential",
                "authorization",
                "cookie",
            ]),
            prefixes: words(&[
                "ghp_",
                "github_pat_",
                "glpat-",
                "hf_",
                "sk-",
                "xoxb-",
                "xoxp-",
                "akia",
                "eyj",
                "nvapi-",
            ]),
            homes: words(&["/home", "/users"]),
            texts: Vec::new(),
        }
    }
}

/// How to find out whether dcgm-exporter answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExporterCheck {
    /// The site has none.
    #[default]
    None,
    /// By reading its metrics at this URL.
    Url(String),
    /// By a command that exits 0 if it runs, as words.
    Command(Vec<String>),
}

/// Says whether a text is the name of a unit without its type: letters, digits, `@_-.`, no leading dash or dot.
pub(crate) fn is_unit(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 200
        && !text.starts_with(['-', '.'])
        && !text.ends_with(".service")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"@_-.".contains(&b))
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

impl Default for NodeToolsConfig {
    fn default() -> Self {
        Self {
            dcgmi: PathBuf::from("/usr/bin/dcgmi"),
            nvidia_smi: PathBuf::from("/usr/bin/nvidia-smi"),
            environment: BTreeMap::new(),
            read_deadline_seconds: 15,
            reset_deadline_seconds: 180,
            engine_start_seconds: 60,
            stop_engine: words(&["/usr/bin/systemctl", "stop", "nvidia-dcgm.service"]),
            start_engine: words(&["/usr/bin/systemctl", "start", "nvidia-dcgm.service"]),
            stop_exporter: Vec::new(),
            start_exporter: Vec::new(),
            exporter: ExporterCheck::None,
            kernel_log: words(&["/usr/bin/dmesg"]),
            check_job_cgroups: true,
            cgroup_root: PathBuf::from("/sys/fs/cgroup"),
            proc_root: PathBuf::from("/proc"),
            sys_root: PathBuf::from("/sys"),
            systemctl: PathBuf::from("/usr/bin/systemctl"),
            services: words(&["nvidia-dcgm", "dcgm-exporter", "nvidia-persistenced", "nvidia-fabricmanager"]),
            first_user_id: 1000,
            scratch: Vec::new(),
            scontrol: PathBuf::from("/usr/bin/scontrol"),
            evidence_logs: [
                "/var/log/nvidia-dcgm/nv-hostengine.log",
                "/var/log/nvidia-dcgm/nvvs.log",
                "/var/log/fabricmanager.log",
            ]
            .map(PathBuf::from)
            .to_vec(),
            redact: Redact::default(),
        }
    }
}

impl NodeToolsConfig {
    /// Returns the deadline of one call.
    pub fn read_deadline(&self) -> Duration {
        Duration::from_secs(self.read_deadline_seconds)
    }

    /// Says whether the site has an exporter that a healthy node must show.
    pub fn exporter_expected(&self) -> bool {
        self.exporter != ExporterCheck::None
    }

    /// Lists everything that is wrong with it, each with what to do.
    pub fn problems(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut absolute = |key: &str, path: &std::path::Path| {
            if !path.is_absolute() {
                out.push(format!("{key} = {:?} is not an absolute path; give the full path", path.display()));
            }
        };
        absolute("dcgmi", &self.dcgmi);
        absolute("nvidia_smi", &self.nvidia_smi);
        absolute("cgroup_root", &self.cgroup_root);
        absolute("proc_root", &self.proc_root);
        absolute("sys_root", &self.sys_root);
        absolute("systemctl", &self.systemctl);
        absolute("scontrol", &self.scontrol);
        for path in &self.scratch {
            absolute("scratch", path);
        }
        for path in &self.evidence_logs {
            absolute("evidence_logs", path);
        }
        let commands = [
            ("stop_engine", &self.stop_engine),
            ("start_engine", &self.start_engine),
            ("stop_exporter", &self.stop_exporter),
            ("start_exporter", &self.start_exporter),
            ("kernel_log", &self.kernel_log),
        ];
        for (key, command) in commands {
            if let Some(first) = command.first() {
                absolute(key, first.as_ref());
            }
        }
        match &self.exporter {
            ExporterCheck::None => {}
            ExporterCheck::Command(c) => match c.first() {
                Some(first) => absolute("exporter.command", first.as_ref()),
                None => out.push("exporter.command has no words; name a program".to_owned()),
            },
            ExporterCheck::Url(u) if u.starts_with("http://") || u.starts_with("https://") => {}
            ExporterCheck::Url(u) => {
                out.push(format!("exporter.url = {u:?} is not a URL; begin with http://"));
            }
        }
        let ranges = [
            ("read_deadline_seconds", self.read_deadline_seconds, 1, 600),
            ("reset_deadline_seconds", self.reset_deadline_seconds, 10, 1800),
            ("engine_start_seconds", self.engine_start_seconds, 1, 600),
        ];
        for (key, value, from, to) in ranges {
            if !(from..=to).contains(&value) {
                out.push(format!("{key} = {value} is out of range; give {from} to {to}"));
            }
        }
        for unit in self.services.iter().filter(|u| !is_unit(u)) {
            out.push(format!("services: {unit:?} is not the name of a unit; give it without .service"));
        }
        for path in self.scratch.iter().filter(|p| p.components().count() < 2) {
            out.push(format!("scratch: {:?} is the whole file tree; name a directory", path.display()));
        }
        for path in self.scratch.iter().filter(|p| p.components().any(|c| c == Component::ParentDir)) {
            out.push(format!("scratch: {:?} holds `..`; give the plain path", path.display()));
        }
        if self.first_user_id == 0 {
            out.push("first_user_id = 0 is root; give the lowest id of people, such as 1000".to_owned());
        }
        if [&self.redact.keys, &self.redact.prefixes, &self.redact.homes, &self.redact.texts]
            .iter()
            .any(|list| list.iter().any(String::is_empty))
        {
            out.push("redact: an empty text would take out everything; remove it".to_owned());
        }
        if self.stop_engine.is_empty() != self.start_engine.is_empty() {
            out.push("stop_engine and start_engine belong together; give both or neither".to_owned());
        }
        if self.stop_exporter.is_empty() != self.start_exporter.is_empty() {
            out.push("stop_exporter and start_exporter belong together; give both or neither".to_owned());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_fine_and_mistakes_are_all_named() {
        assert_eq!(NodeToolsConfig::default().problems(), Vec::<String>::new());
        let bad = NodeToolsConfig {
            dcgmi: PathBuf::from("dcgmi"),
            stop_engine: words(&["systemctl", "stop", "x"]),
            start_engine: Vec::new(),
            exporter: ExporterCheck::Url("localhost:9400".to_owned()),
            read_deadline_seconds: 0,
            services: words(&["nvidia-dcgm", "--now", "sshd.service"]),
            scratch: vec![PathBuf::from("/"), PathBuf::from("/tmp/../etc")],
            redact: Redact { texts: words(&[""]), ..Redact::default() },
            first_user_id: 0,
            ..NodeToolsConfig::default()
        };
        assert_eq!(bad.problems().len(), 11, "{:#?}", bad.problems());
    }
}
