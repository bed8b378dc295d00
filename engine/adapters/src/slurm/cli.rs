//! Reads through the clients `scontrol`, `squeue` and `sinfo`, as text or as JSON.
//!
//! A read is good when the client ended by itself with code 0, wrote nothing to stderr, and printed something that
//! parses whole. Everything else is an [`Unknown`], an empty output above all.

use super::answer::{MAX_INPUT, ParseError, shorten};
use super::config::{Clients, SlurmConfig};
use super::text::{PENDING_ARGS, SQUEUE_ARGS, TextContext};
use super::{json, text, topology};
use crate::process::{self, Finished, Program, RunError};
use engine_core::known::{Cause, Unknown};
use engine_core::model::{Job, Node, NodeName, Partition, PendingJob, Reservation};
use engine_core::policy::Topology;
use std::path::Path;
use std::time::Duration;

/// The clients of one cluster with the environment they run in.
#[derive(Debug, Clone)]
pub(crate) struct Cli {
    pub(crate) clients: Clients,
    slurm_conf: Option<String>,
    read_deadline: Duration,
}

/// How a release of Slurm is asked for JSON on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JsonForm {
    /// 22.05: only `sinfo` and `squeue` know `--json`, in the shape of v0.0.38; they ignore every filter.
    Sinfo,
    /// 23.02: `--json` without a choice.
    Plain,
    /// 23.11 and later: the data parser by name, e.g. `v0.0.42`.
    Named(String),
}

impl JsonForm {
    fn option(&self) -> String {
        match self {
            Self::Sinfo | Self::Plain => "--json".to_owned(),
            Self::Named(v) => format!("--json={v}"),
        }
    }

    /// Says it as `doctor` shows it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Sinfo => "sinfo --json and squeue --json; reservations and partitions as text".to_owned(),
            Self::Plain | Self::Named(_) => format!("scontrol {0} and squeue {0}", self.option()),
        }
    }
}

impl Cli {
    pub(crate) fn new(config: &SlurmConfig, clients: Clients) -> Self {
        Self {
            clients,
            slurm_conf: config.slurm_conf.as_ref().map(|p| p.display().to_string()),
            read_deadline: config.read_deadline(),
        }
    }

    /// Prepares a client: times in UTC, the configured `slurm.conf`, nothing else from our environment.
    pub(crate) fn program(&self, client: &Path) -> Program {
        let p = Program::new(client).env("TZ", "UTC0").deadline(self.read_deadline).max_output(MAX_INPUT);
        match &self.slurm_conf {
            Some(conf) => p.env("SLURM_CONF", conf),
            None => p,
        }
    }

    pub(crate) fn scontrol<const N: usize>(&self, args: [&str; N]) -> Program {
        self.program(&self.clients.scontrol).args(args)
    }

    /// Runs a read and returns its standard output, or why it cannot be believed.
    pub(crate) async fn read(&self, program: Program) -> Result<String, Unknown> {
        let shown = program.display();
        let done = process::run(&program).await.map_err(|e| not_run(&shown, &e))?;
        believable(&shown, done)
    }

    /// Runs a read whose standard output is parsed by `parse`.
    async fn parsed<T>(
        &self,
        program: Program,
        parse: impl FnOnce(&str) -> Result<T, ParseError>,
    ) -> Result<T, Unknown> {
        let shown = program.display();
        let out = self.read(program).await?;
        parse(&out).map_err(|e| Unknown::new(e.cause(), shorten(&format!("{shown}: {e}"), 600)))
    }

    /// Reads one node as text; the record must be of that node and the only one. Only `-d` tells the GPUs in use.
    pub(crate) async fn text_node(&self, node: &NodeName) -> Result<Node, Unknown> {
        let p = self.scontrol(["-a", "-d", "-o", "show", "node", node.as_str()]);
        let nodes = self.parsed(p, |t| text::parse_nodes(t, &TextContext::utc())).await?;
        only(node, nodes)
    }

    pub(crate) async fn text_nodes(&self) -> Result<Vec<Node>, Unknown> {
        let p = self.scontrol(["-a", "-d", "-o", "show", "nodes"]);
        self.parsed(p, |t| text::parse_nodes(t, &TextContext::utc())).await
    }

    /// Reads jobs as text: those of one node, or all.
    pub(crate) async fn text_jobs(&self, node: Option<&NodeName>) -> Result<Vec<Job>, Unknown> {
        let mut p = self.program(&self.clients.squeue).args(SQUEUE_ARGS);
        if let Some(n) = node {
            p = p.arg("-w").arg(n.as_str());
        }
        self.parsed(p, |t| text::parse_squeue(t, &TextContext::utc())).await
    }

    /// Reads pending jobs with what they asked for; only squeue's text has it in every release.
    pub(crate) async fn pending(&self) -> Result<Vec<PendingJob>, Unknown> {
        let p = self.program(&self.clients.squeue).args(PENDING_ARGS);
        self.parsed(p, |t| text::parse_pending(t, &TextContext::utc())).await
    }

    /// Reads the topology; `None` where slurmctld says that there is none, which it does on stderr with exit code 0.
    pub(crate) async fn topology(&self) -> Result<Option<Topology>, Unknown> {
        let p = self.scontrol(["show", "topology"]);
        let shown = p.display();
        let done = process::run(&p).await.map_err(|e| not_run(&shown, &e))?;
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        if done.exit.success() && topology::is_none(&out, &err) {
            return Ok(None);
        }
        let out = believable(&shown, done)?;
        let parsed = topology::parse_topology(&out);
        parsed.map(Some).map_err(|e| Unknown::new(e.cause(), shorten(&format!("{shown}: {e}"), 600)))
    }

    pub(crate) async fn text_reservations(&self) -> Result<Vec<Reservation>, Unknown> {
        let p = self.scontrol(["-a", "-o", "show", "reservations"]);
        self.parsed(p, |t| text::parse_reservations(t, &TextContext::utc())).await
    }

    pub(crate) async fn text_partitions(&self) -> Result<Vec<Partition>, Unknown> {
        let p = self.scontrol(["-a", "-o", "show", "partitions"]);
        self.parsed(p, text::parse_partitions).await
    }

    fn sinfo(&self) -> Result<Program, Unknown> {
        match &self.clients.sinfo {
            Some(path) => Ok(self.program(path).args(["-a", "--json"])),
            None => Err(Unknown::new(
                Cause::ReadFailed,
                "sinfo was not found; set slurm.sinfo to its absolute path",
            )),
        }
    }

    /// Reads one node as JSON. An unknown name gives an empty list and exit code 0: that is never believed.
    pub(crate) async fn json_node(&self, form: &JsonForm, node: &NodeName) -> Result<Node, Unknown> {
        let nodes = match form {
            JsonForm::Sinfo => {
                let mut all = self.json_nodes(form).await?;
                all.retain(|n| n.name == *node);
                all
            }
            JsonForm::Plain | JsonForm::Named(_) => {
                let p = self.scontrol(["-a", &form.option(), "show", "node", node.as_str()]);
                self.parsed(p, |t| json::parse_nodes(t.as_bytes())).await?.value
            }
        };
        only(node, nodes)
    }

    pub(crate) async fn json_nodes(&self, form: &JsonForm) -> Result<Vec<Node>, Unknown> {
        let p = match form {
            JsonForm::Sinfo => self.sinfo()?,
            _ => self.scontrol(["-a", &form.option(), "show", "nodes"]),
        };
        Ok(self.parsed(p, |t| json::parse_nodes(t.as_bytes())).await?.value)
    }

    /// Reads every job as JSON: up to 23.11 filters are ignored, so that none is asked for.
    pub(crate) async fn json_jobs(&self, form: &JsonForm) -> Result<Vec<Job>, Unknown> {
        let p = self.program(&self.clients.squeue).args(["-a", "-t", "all"]).arg(form.option());
        Ok(self.parsed(p, |t| json::parse_jobs(t.as_bytes())).await?.value)
    }

    pub(crate) async fn json_reservations(&self, form: &JsonForm) -> Result<Vec<Reservation>, Unknown> {
        if *form == JsonForm::Sinfo {
            return self.text_reservations().await;
        }
        let p = self.scontrol(["-a", &form.option(), "show", "reservations"]);
        Ok(self.parsed(p, |t| json::parse_reservations(t.as_bytes())).await?.value)
    }

    pub(crate) async fn json_partitions(&self, form: &JsonForm) -> Result<Vec<Partition>, Unknown> {
        if *form == JsonForm::Sinfo {
            return self.text_partitions().await;
        }
        let p = self.scontrol(["-a", &form.option(), "show", "partitions"]);
        Ok(self.parsed(p, |t| json::parse_partitions(t.as_bytes())).await?.value)
    }
}

fn not_run(shown: &str, error: &RunError) -> Unknown {
    let cause = if matches!(error, RunError::TimedOut { .. }) { Cause::TimedOut } else { Cause::ReadFailed };
    Unknown::new(cause, shorten(&format!("{shown}: {error}"), 600))
}

/// Decides whether the output of a finished read may be parsed at all.
fn believable(shown: &str, done: Finished) -> Result<String, Unknown> {
    let fail = |why: &str| Err(Unknown::new(Cause::ReadFailed, shorten(&format!("{shown}: {why}"), 600)));
    let stderr = String::from_utf8_lossy(&done.stderr);
    let stdout =
        String::from_utf8(done.stdout).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
    if !done.exit.success() {
        // `Node x not found` comes on stdout.
        let said = if stderr.trim().is_empty() { stdout.as_str() } else { &stderr };
        return fail(&format!("{}: {}", done.exit, shorten(said, 300)));
    }
    if !stderr.trim().is_empty() {
        return fail(&format!("it succeeded, yet complained on stderr: {}", shorten(&stderr, 300)));
    }
    if done.truncated {
        return fail(&format!("it printed more than {MAX_INPUT} bytes"));
    }
    if done.left_behind {
        return fail("a child of it outlived it and held its output open");
    }
    if stdout.trim().is_empty() {
        return Err(Unknown::new(Cause::EmptyAnswer, format!("{shown}: exit code 0 and no output at all")));
    }
    Ok(stdout)
}

/// Takes the one record of the node asked for.
pub(crate) fn only(node: &NodeName, mut nodes: Vec<Node>) -> Result<Node, Unknown> {
    match (nodes.pop(), nodes.len()) {
        (Some(n), 0) if n.name == *node => Ok(n),
        (Some(n), 0) => Err(Unknown::new(
            Cause::Conflicting,
            format!("asked for node {node}, the answer is about {}", n.name),
        )),
        (Some(_), more) => Err(Unknown::new(
            Cause::Conflicting,
            format!("asked for node {node}, the answer has {} nodes", more + 1),
        )),
        (None, _) => {
            Err(Unknown::new(Cause::EmptyAnswer, format!("the answer does not contain node {node}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Exit;

    fn done(code: i32, out: &str, err: &str) -> Finished {
        Finished {
            exit: Exit::Code(code),
            stdout: out.into(),
            stderr: err.into(),
            truncated: false,
            left_behind: false,
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn only_a_clean_end_with_output_is_believed() {
        assert_eq!(believable("x", done(0, "NodeName=n1", "")).unwrap(), "NodeName=n1");
        for (bad, cause, word) in [
            (done(1, "Node nope not found\n", ""), Cause::ReadFailed, "Node nope not found"),
            (done(1, "", "slurm_load_node error: x"), Cause::ReadFailed, "slurm_load_node"),
            (done(0, "JOBID\n", "squeue: error: half of it"), Cause::ReadFailed, "half of it"),
            (done(0, "", ""), Cause::EmptyAnswer, "no output"),
            (done(0, " \n", ""), Cause::EmptyAnswer, "no output"),
            (Finished { exit: Exit::Signal(9), ..done(0, "NodeName=n1", "") }, Cause::ReadFailed, "signal 9"),
            (Finished { truncated: true, ..done(0, "NodeName=n1", "") }, Cause::ReadFailed, "more than"),
            (Finished { left_behind: true, ..done(0, "NodeName=n1", "") }, Cause::ReadFailed, "outlived"),
        ] {
            let u = believable("x", bad).unwrap_err();
            assert!(u.cause == cause && u.detail.contains(word), "{u}");
        }
    }

    #[test]
    fn the_answer_must_be_about_the_node_asked_for() {
        let parse = |t: &str| text::parse_nodes(t, &TextContext::utc()).unwrap();
        let n1 = NodeName::new("n1").unwrap();
        let one = "NodeName=n1 State=IDLE Gres=(null)\n";
        assert_eq!(only(&n1, parse(one)).unwrap().name, n1);
        assert_eq!(only(&n1, parse(&one.replace("n1", "n2"))).unwrap_err().cause, Cause::Conflicting);
        let two = format!("{one}{}", one.replace("n1", "n2"));
        assert_eq!(only(&n1, parse(&two)).unwrap_err().cause, Cause::Conflicting);
        assert_eq!(only(&n1, Vec::new()).unwrap_err().cause, Cause::EmptyAnswer);
    }
}
