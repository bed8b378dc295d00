//! The configuration: `key = value` lines and `check` lines. Read whole, every mistake named with its line.

use crate::checks::Check;
use crate::finding::{self, FAULTS};
use crate::mode::Mode;
use crate::time;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest configuration, in bytes.
const MAX_BYTES: u64 = 64 * 1024;
/// The most checks.
const MAX_CHECKS: usize = 64;

/// Where the engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Its UNIX socket, on this host.
    Unix(PathBuf),
    /// Its address, for plain HTTP with a signature.
    Tcp(SocketAddr),
}

/// One check with what holds for every kind.
#[derive(Debug, Clone)]
pub(crate) struct CheckLine {
    /// The line of the file, which the worker reads again.
    pub(crate) text: String,
    /// Kind and what it looks at, e.g. `mount:/home`.
    pub(crate) name: String,
    /// When it runs.
    pub(crate) on: Vec<Mode>,
    /// How long it may take.
    pub(crate) deadline: Option<Duration>,
    /// How long a fault must last before it is reported.
    pub(crate) hold: Duration,
    /// What it does.
    pub(crate) check: Check,
}

/// Everything the file says; what it does not say has the default that `--example` shows.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Name of this node in slurm.conf; SLURMD_NODENAME counts first.
    pub(crate) node: Option<String>,
    /// Where the engine listens; without it reports stay in the spool.
    pub(crate) engine: Option<Engine>,
    /// Path of the request.
    pub(crate) engine_path: String,
    /// File with the key that signs reports.
    pub(crate) secret_file: Option<PathBuf>,
    /// File with the token that the engine gave this host.
    pub(crate) token_file: Option<PathBuf>,
    /// How long a delivery may take.
    pub(crate) engine_deadline: Duration,
    /// Directory of the lock, the verdicts and the spool.
    pub(crate) state_dir: PathBuf,
    /// How long all checks together may take.
    pub(crate) deadline: Duration,
    /// How long one check may take, unless its line says otherwise.
    pub(crate) check_deadline: Duration,
    /// Time between two reports of the same verdict.
    pub(crate) repeat: Duration,
    /// The most reports in the spool.
    pub(crate) spool_entries: usize,
    /// The most bytes in the spool.
    pub(crate) spool_bytes: u64,
    /// Age at which a report in the spool is given up.
    pub(crate) spool_age: Duration,
    /// Whether what is wrong is told to syslog too.
    pub(crate) syslog: bool,
    /// Faults for which the prolog may fail, which makes Slurm drain the node.
    pub(crate) prolog_fail: Vec<String>,
    /// Faults for which the hook may drain this node by itself.
    pub(crate) drain: Vec<String>,
    /// Looks in a row that must find the fault before the hook drains.
    pub(crate) drain_after: u32,
    /// The client that drains.
    pub(crate) scontrol: PathBuf,
    /// SLURM_CONF for it.
    pub(crate) slurm_conf: Option<PathBuf>,
    /// What to look at, in the order of the file.
    pub(crate) checks: Vec<CheckLine>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: None,
            engine: None,
            engine_path: "/api/v1/alerts".to_owned(),
            secret_file: None,
            token_file: None,
            engine_deadline: Duration::from_secs(1),
            state_dir: PathBuf::from("/var/lib/slurmedic/hook"),
            deadline: Duration::from_secs(20),
            check_deadline: Duration::from_secs(2),
            repeat: Duration::from_secs(300),
            spool_entries: 256,
            spool_bytes: 1 << 20,
            spool_age: Duration::from_secs(24 * 3600),
            syslog: true,
            prolog_fail: Vec::new(),
            drain: Vec::new(),
            drain_after: 2,
            scontrol: PathBuf::from("/usr/bin/scontrol"),
            slurm_conf: None,
            checks: Vec::new(),
        }
    }
}

/// Reads the file. Mistakes come beside what could be read, so that a report about them finds its way.
pub(crate) fn load(path: &Path) -> (Config, Vec<String>) {
    let shown = path.display();
    let read = std::fs::metadata(path).and_then(|m| {
        if !m.is_file() {
            return Err(std::io::Error::other("it is no regular file"));
        }
        if m.len() > MAX_BYTES {
            return Err(std::io::Error::other(format!("it has more than {} KiB", MAX_BYTES / 1024)));
        }
        std::fs::read_to_string(path)
    });
    match read {
        Err(e) => (
            Config::default(),
            vec![format!(
                "{shown}: {e}: nothing is checked; `slurmedic-hook --example` prints a file to begin with"
            )],
        ),
        Ok(text) => {
            let (config, mistakes) = parse(&text);
            (config, mistakes.into_iter().map(|(line, why)| format!("{shown}:{line}: {why}")).collect())
        }
    }
}

/// Reads a text; mistakes with their line numbers.
pub(crate) fn parse(text: &str) -> (Config, Vec<(usize, String)>) {
    let mut config = Config::default();
    let mut wrong = Vec::new();
    let mut keys = BTreeSet::new();
    let mut names = BTreeSet::new();
    for (number, line) in text.lines().enumerate().map(|(i, l)| (i + 1, l.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let done = if line == "check" || line.starts_with("check ") || line.starts_with("check\t") {
            check_line(line).and_then(|check| {
                if config.checks.len() >= MAX_CHECKS {
                    return Err(format!("there are more than {MAX_CHECKS} checks"));
                }
                if !names.insert(check.name.clone()) {
                    return Err(format!("{} is checked already; give one of them label=OTHER", check.name));
                }
                config.checks.push(check);
                Ok(())
            })
        } else {
            match line.split_once('=') {
                None => Err("neither `key = value` nor `check KIND key=value ...`".to_owned()),
                Some((key, value)) => {
                    let (key, value) = (key.trim(), value.trim());
                    if keys.insert(key.to_owned()) {
                        set(&mut config, key, value)
                    } else {
                        Err(format!("{key} is set twice"))
                    }
                }
            }
        };
        if let Err(why) = done {
            wrong.push((number, why));
        }
    }
    (config, wrong)
}

fn set(config: &mut Config, key: &str, value: &str) -> Result<(), String> {
    let duration = |min: Duration| match time::duration(value) {
        Some(d) if d >= min && d <= Duration::from_secs(7 * 24 * 3600) => Ok(d),
        Some(_) => Err(format!("{key} = {value} is too short or too long")),
        None => Err(format!("{key} = {value} is no time; write 500ms, 2s, 5m or 1h")),
    };
    let path = || match Path::new(value) {
        p if p.is_absolute() => Ok(p.to_path_buf()),
        _ => Err(format!("{key} = {value} is not an absolute path")),
    };
    let (tick, second) = (Duration::from_millis(10), Duration::from_secs(1));
    match key {
        "node" => config.node = Some(node_name(value).ok_or_else(|| format!("{value:?} is no node name"))?),
        "engine" => config.engine = Some(engine(value)?),
        "engine_path" if value.starts_with('/') && value.bytes().all(|b| b.is_ascii_graphic()) => {
            config.engine_path = value.to_owned();
        }
        "engine_path" => return Err(format!("engine_path = {value:?} does not begin with /")),
        "secret_file" => config.secret_file = Some(path()?),
        "token_file" => config.token_file = Some(path()?),
        "engine_deadline" => config.engine_deadline = duration(tick)?,
        "state_dir" => config.state_dir = path()?,
        "deadline" => config.deadline = duration(tick)?.min(Duration::from_secs(50)),
        "check_deadline" => config.check_deadline = duration(tick)?,
        "repeat" => config.repeat = duration(second)?,
        "spool_entries" => config.spool_entries = number(key, value, 1, 10_000)? as usize,
        "spool_bytes" => config.spool_bytes = number(key, value, 4_096, 64 << 20)?,
        "spool_age" => config.spool_age = duration(second)?,
        "syslog" => config.syslog = yes(key, value)?,
        "prolog_fail" => config.prolog_fail = local_faults(key, value)?,
        "drain" => config.drain = local_faults(key, value)?,
        "drain_after" => config.drain_after = number(key, value, 1, 100)? as u32,
        "scontrol" => config.scontrol = path()?,
        "slurm_conf" => config.slurm_conf = Some(path()?),
        _ => return Err(format!("there is no key {:?}", crate::talk::tame(key))),
    }
    Ok(())
}

fn engine(value: &str) -> Result<Engine, String> {
    if let Some(path) = value.strip_prefix("unix:") {
        return match Path::new(path) {
            p if p.is_absolute() => Ok(Engine::Unix(p.to_path_buf())),
            _ => Err(format!("engine = {value}: the socket needs an absolute path")),
        };
    }
    let address = value.strip_prefix("http://").unwrap_or(value);
    address.trim_end_matches('/').parse().map(Engine::Tcp).map_err(|_| {
        format!(
            "engine = {value}: write unix:/path/of/socket or http://10.0.0.5:8650, with a numeric address, as a hook must not wait for name service"
        )
    })
}

fn local_faults(key: &str, value: &str) -> Result<Vec<String>, String> {
    value
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|w| !w.is_empty())
        .map(|word| match finding::is_local(word) {
            Some(true) => Ok(word.to_owned()),
            Some(false) => Err(format!(
                "{key}: {word} may hit many nodes at once, or says nothing about this one: only the engine may act on it"
            )),
            None => {
                let local: Vec<&str> = FAULTS.iter().filter(|(_, l)| *l).map(|(w, _)| *w).collect();
                Err(format!("{key}: {word:?} is none of {}", local.join(", ")))
            }
        })
        .collect()
}

/// Accepts what may be a node name in Slurm, and nothing with meaning for a shell, a host list or a path.
pub(crate) fn node_name(text: &str) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let first = text.chars().next()?;
    let ok = first.is_ascii_alphanumeric() && text.len() <= 63 && text.chars().all(good);
    (ok && !text.eq_ignore_ascii_case("all")).then(|| text.to_owned())
}

fn number(key: &str, value: &str, min: u64, max: u64) -> Result<u64, String> {
    match value.parse() {
        Ok(n) if (min..=max).contains(&n) => Ok(n),
        _ => Err(format!("{key} = {value} is not a whole number from {min} to {max}")),
    }
}

fn yes(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("{key} = {value} is neither yes nor no")),
    }
}

/// The `key=value` words of a check line. Each is taken once; what is left at the end is a mistake.
#[derive(Debug)]
pub(crate) struct Params {
    kind: String,
    words: Vec<(String, String)>,
}

impl Params {
    /// Takes a text.
    pub(crate) fn text(&mut self, key: &str) -> Option<String> {
        let at = self.words.iter().position(|(k, _)| k == key)?;
        Some(self.words.remove(at).1)
    }

    /// Takes a text that must be there.
    pub(crate) fn needed(&mut self, key: &str) -> Result<String, String> {
        self.text(key).ok_or_else(|| format!("check {} needs {key}=", self.kind))
    }

    /// Takes an absolute path.
    pub(crate) fn path(&mut self, key: &str) -> Result<Option<PathBuf>, String> {
        match self.text(key).map(PathBuf::from) {
            Some(p) if !p.is_absolute() => Err(format!("{key}={} is not an absolute path", p.display())),
            other => Ok(other),
        }
    }

    /// Takes a whole number.
    pub(crate) fn number(&mut self, key: &str, max: u64) -> Result<Option<u64>, String> {
        self.text(key).map(|v| number(key, &v, 0, max)).transpose()
    }

    /// Takes a time.
    pub(crate) fn duration(&mut self, key: &str) -> Result<Option<Duration>, String> {
        let Some(value) = self.text(key) else { return Ok(None) };
        time::duration(&value)
            .map(Some)
            .ok_or_else(|| format!("{key}={value} is no time; write 500ms, 2s, 5m"))
    }

    /// Takes an address with its port.
    pub(crate) fn address(&mut self, key: &str) -> Result<Option<SocketAddr>, String> {
        let Some(value) = self.text(key) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| format!("{key}={value} is no address; write 127.0.0.1:9400"))
    }
}

/// Reads a `check` line.
pub(crate) fn check_line(line: &str) -> Result<CheckLine, String> {
    let mut words = words(line)?.into_iter().skip(1);
    let kind = words.next().ok_or_else(|| format!("check what? One of {}", Check::KINDS.join(", ")))?;
    let mut params = Params { kind: kind.clone(), words: Vec::new() };
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            return Err(format!("{word:?} is not key=value"));
        };
        if params.words.iter().any(|(k, _)| k == key) {
            return Err(format!("{key} stands twice"));
        }
        params.words.push((key.to_owned(), value.to_owned()));
    }
    let on = match params.text("on") {
        None => Mode::ALL.to_vec(),
        Some(list) => list
            .split(',')
            .map(|w| Mode::parse(w).ok_or_else(|| format!("on={w} is none of health, prolog, epilog")))
            .collect::<Result<_, _>>()?,
    };
    let deadline = params.duration("deadline")?;
    if deadline.is_some_and(|d| d < Duration::from_millis(10)) {
        return Err("deadline is shorter than 10ms".to_owned());
    }
    let hold = params.duration("for")?.unwrap_or_default();
    let label = params.text("label");
    let check = Check::read(&kind, &mut params)?;
    if let Some((key, _)) = params.words.first() {
        return Err(format!("check {kind} has no {key}="));
    }
    let name = match label.or_else(|| check.about()) {
        Some(about) => crate::talk::tame(&format!("{kind}:{about}")),
        None => kind,
    };
    Ok(CheckLine { text: line.to_owned(), name, on, deadline, hold, check })
}

/// Splits at blanks; a value may stand in double quotes. A `#` behind a blank begins a comment.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '#' if !quoted && word.is_none() => break,
            c if c.is_whitespace() && !quoted => out.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    out.extend(word);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_example_loads_and_names_each_kind() {
        let text: String = crate::show::EXAMPLE
            .lines()
            .map(|l| match l.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{l}\n"),
            })
            .collect();
        let (config, wrong) = parse(&text);
        assert_eq!(wrong, []);
        for kind in Check::KINDS {
            assert!(config.checks.iter().any(|c| c.name.starts_with(kind)), "no example of {kind}");
        }
        let (_, wrong) = parse(crate::show::EXAMPLE);
        assert_eq!(wrong, []);
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        let text = "\n# fine\nnonsense\nrepeat = 5\nrepeat = 5m\ncheck\ncheck moon\ncheck mount\n\
                    check mount path=relative\ncheck mount path=/home colour=red\ncheck mount path=/a on=reboot\n\
                    check mount path=\"/b\ndrain = ib-port-down\nprolog_fail = made-up\nengine = gpu001:80\n\
                    check mount path=/c\ncheck mount path=/c\nunknown = 1\nnode = ALL\nstate_dir = x\n";
        let (_, wrong) = parse(text);
        let lines: Vec<usize> = wrong.iter().map(|(n, _)| *n).collect();
        assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20], "{wrong:#?}");
    }

    #[test]
    fn quotes_hold_blanks_and_hashes() {
        let line = check_line("check mount path=\"/a b#c\" # the odd one").unwrap();
        assert_eq!(line.name, "mount:/a b#c");
    }

    proptest::proptest! {
        /// Whatever stands in the file, it is read to its end, and a mistake names a line that is there.
        #[test]
        fn any_text_is_read_to_its_end(text in "(?s)(check |mount |path=/|=|\"|#|\n|deadline = 2s|.){0,60}") {
            let (_, wrong) = parse(&text);
            proptest::prop_assert!(wrong.iter().all(|(n, _)| *n >= 1 && *n <= text.lines().count()));
        }
    }
}
