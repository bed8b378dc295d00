//! The fake tools of `tests/fakes`: state directories and what was asked of them.

use super::cmd::{Done, run};
use super::{read, root, scratch};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// A state directory with its links; removed when dropped.
pub(crate) struct Fake {
    dir: TempDir,
}

impl Fake {
    /// Makes a GPU node with eight healthy GPUs under a DCGM of this version.
    pub(crate) fn gpu_node(name: &str, dcgm: &str) -> Self {
        let fake = Self { dir: scratch("fake") };
        fake.set(&["new", "--name", name, "--dcgm", dcgm]);
        fake
    }

    /// Makes wrappers in front of the real Slurm clients.
    pub(crate) fn slurm(conf: &Path, real: &Path) -> Self {
        let fake = Self { dir: scratch("fake") };
        let mut make = Command::new(root().join("tests/fakes/slurm-client"));
        run(make.arg("new").arg(fake.path()).arg(conf).arg(real), LIMIT).ok();
        fake
    }

    /// The state directory.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The absolute path of one of its tools.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.path().join("bin").join(name)
    }

    /// Changes the state of a GPU node: the words of `gpu-node STATE …`.
    pub(crate) fn set(&self, words: &[&str]) -> String {
        run(Command::new(root().join("tests/fakes/gpu-node")).arg(self.path()).args(words), LIMIT).ok()
    }

    /// Writes one value of the state, e.g. `gpu/2/dbe`.
    pub(crate) fn put(&self, key: &str, value: &str) {
        let file = self.path().join(key);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, format!("{value}\n")).unwrap();
    }

    /// Appends a line to the script.
    pub(crate) fn rule(&self, tool: &str, pattern: &str, count: &str, action: &str) {
        let file = self.path().join("script");
        std::fs::write(&file, read(&file) + &format!("{tool}\t{pattern}\t{count}\t{action}\n")).unwrap();
    }

    /// Writes a shell script for the action `hook`: somebody who acts in the middle of a call.
    ///
    /// A child writes it: a file that this process had open for writing could still be open in a fake that
    /// another test starts at the same moment, and then cannot be executed.
    pub(crate) fn hook(&self, name: &str, body: &str) -> PathBuf {
        let file = self.path().join(name);
        let script = "printf '#!/bin/sh\nset -e\n%s\n' \"$1\" >\"$0\" && chmod 755 \"$0\"";
        run(Command::new("/bin/sh").args(["-c", script]).arg(&file).arg(body), LIMIT).ok();
        file
    }

    /// Waits until a call stands at a barrier.
    pub(crate) fn await_barrier(&self, name: &str) {
        let reached = self.path().join(format!("barrier.{name}.reached"));
        super::eventually(&format!("barrier {name}"), LIMIT, || {
            if reached.exists() { Ok(()) } else { Err(format!("calls so far: {:?}", self.calls())) }
        });
    }

    /// Lets the calls at a barrier go on.
    pub(crate) fn open_barrier(&self, name: &str) {
        self.put(&format!("barrier.{name}.go"), "go");
    }

    /// Calls a tool with an empty environment, as the engine does.
    pub(crate) fn call(&self, tool: &str, args: &[&str]) -> Done {
        self.call_for(tool, args, LIMIT)
    }

    /// The same with a limit.
    pub(crate) fn call_for(&self, tool: &str, args: &[&str], limit: Duration) -> Done {
        run(Command::new(self.tool(tool)).env_clear().args(args), limit)
    }

    /// Every call so far: tool and arguments joined by blanks.
    pub(crate) fn calls(&self) -> Vec<String> {
        read(self.path().join("calls.log"))
            .lines()
            .map(|l| l.split('\t').skip(2).collect::<Vec<_>>().join(" "))
            .collect()
    }

    /// How many resets really happened.
    pub(crate) fn resets(&self) -> usize {
        read(self.path().join("resets.log")).lines().count()
    }

    /// Calls that the fakes did not expect, and anything that went wrong inside them.
    pub(crate) fn unexpected(&self) -> String {
        read(self.path().join("unexpected.log"))
    }
}
