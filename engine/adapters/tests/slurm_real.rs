//! The Slurm backend against a real slurmctld, read as text, as JSON and through slurmrestd by both its doors.
//!
//! Uses the lab that `SLURMEDIC_TEST_LAB` names (a directory of `tests/lab/slurm-lab`), else starts one of its own,
//! which ends with this process. A machine without Slurm fails these tests: `--skip with_slurm::` leaves them out.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what it finds by failing")]

mod with_slurm {
    use engine_adapters::slurm::{ReadVia, RestConfig, SlurmBackend, SlurmConfig, Verdict};
    use engine_core::known::Known;
    use engine_core::model::{Job, JobState, Node, NodeFlag, NodeName, NodeState, Reservation};
    use engine_runtime::ports::{LockReservation, RefusalKind, Scheduler as _, Write};
    use jiff::{SignedDuration, Timestamp};
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};
    use tokio::sync::{Mutex, MutexGuard};

    /// Tests take turns: some stop slurmctld.
    static TURN: Mutex<()> = Mutex::const_new(());

    struct Lab {
        dir: PathBuf,
        /// Its standard input keeps a lab of our own alive, and ends with this process.
        _hold: Option<Child>,
    }

    fn script() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/lab/slurm-lab")
    }

    fn lab() -> &'static Lab {
        static LAB: OnceLock<Lab> = OnceLock::new();
        LAB.get_or_init(|| {
            if let Some(dir) = std::env::var_os("SLURMEDIC_TEST_LAB") {
                let dir = PathBuf::from(dir);
                assert!(dir.join("etc/slurm.conf").is_file(), "SLURMEDIC_TEST_LAB is {}: no lab", dir.display());
                return Lab { dir, _hold: None };
            }
            let missing = Command::new(script()).arg("missing").output().unwrap();
            assert!(
                missing.status.success(),
                "these tests need a real Slurm and the machine lacks {:?}: run tests/run, which installs it, or leave \
                 them out with --skip with_slurm::",
                String::from_utf8_lossy(&missing.stdout)
            );
            // `slurm-lab hold` removes the directory when our end of the pipe closes.
            let dir = tempfile::Builder::new().prefix("slurmedic-lab.").tempdir().unwrap().keep();
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
            let mut hold = Command::new(script())
                .args(["hold", "4"])
                .env("SLURM_LAB_DIR", &dir)
                .env("SLURM_LAB_MESSAGE_TIMEOUT", "5")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(std::fs::File::create(dir.join("hold.log")).unwrap())
                .spawn()
                .unwrap();
            let mut first = String::new();
            BufReader::new(hold.stdout.take().unwrap()).read_line(&mut first).unwrap();
            let log = std::fs::read_to_string(dir.join("hold.log")).unwrap_or_default();
            assert!(first == "ready\n", "the lab did not start:\n{log}");
            Lab { dir, _hold: Some(hold) }
        })
    }

    impl Lab {
        fn verb(&self, args: &[&str]) -> String {
            let out = Command::new(script()).args(args).env("SLURM_LAB_DIR", &self.dir).output().unwrap();
            assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap()
        }

        fn client(&self, name: &str, args: &[&str]) -> String {
            let mut c = Command::new(self.dir.join("bin").join(name));
            c.args(args)
                .env("SLURM_CONF", self.dir.join("etc/slurm.conf"))
                .env("TZ", "UTC0")
                .current_dir("/");
            let out = c.output().unwrap();
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
        }

        fn config(&self, read_via: ReadVia) -> SlurmConfig {
            let bin = self.dir.join("bin");
            SlurmConfig {
                scontrol: Some(bin.join("scontrol")),
                squeue: Some(bin.join("squeue")),
                sinfo: Some(bin.join("sinfo")),
                slurm_conf: Some(self.dir.join("etc/slurm.conf")),
                read_via,
                ..SlurmConfig::default()
            }
        }

        fn text(&self) -> SlurmBackend {
            SlurmBackend::new(self.config(ReadVia::Auto)).unwrap()
        }

        fn rest(&self, rest: RestConfig) -> SlurmBackend {
            SlurmBackend::new(SlurmConfig { rest: Some(rest), ..self.config(ReadVia::Rest) }).unwrap()
        }

        fn rest_tcp(&self, token: &Path) -> SlurmBackend {
            let base: u16 =
                std::fs::read_to_string(self.dir.join("run/base-port")).unwrap().trim().parse().unwrap();
            self.rest(RestConfig {
                url: Some(format!("http://127.0.0.1:{}", base + 1)),
                socket: None,
                token_file: Some(token.to_owned()),
                user: Some("root".to_owned()),
            })
        }

        fn rest_unix(&self) -> SlurmBackend {
            let socket = Some(self.dir.join("run/rest/slurmrestd.sock"));
            self.rest(RestConfig { url: None, socket, token_file: None, user: None })
        }
    }

    /// Waits for this test's turn and brings the cluster back to four idle nodes.
    async fn turn() -> (MutexGuard<'static, ()>, &'static Lab) {
        let guard = TURN.lock().await;
        let lab = lab();
        lab.verb(&["signal", "slurmctld", "CONT"]);
        lab.client("scancel", &["--user", &user()]);
        let b = lab.text();
        eventually("the cluster is clean", async || {
            for r in b.reservations().await.map_err(|u| u.to_string())?.value {
                b.delete_reservation(&r.name).await;
            }
            let nodes = b.nodes().await.map_err(|u| u.to_string())?.value;
            for n in nodes.iter().filter(|n| n.flags.has(NodeFlag::Drain) || n.state == NodeState::Down) {
                b.resume(&n.name).await;
            }
            if nodes.iter().all(|n| n.state == NodeState::Idle)
                && b.reservations().await.is_ok_and(|r| r.value.is_empty())
            {
                return Ok(());
            }
            Err(nodes.iter().map(|n| format!("{}: {:?}", n.name, n.state)).collect::<Vec<_>>().join(", "))
        })
        .await;
        (guard, lab)
    }

    fn user() -> String {
        nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name
    }

    async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match ask().await {
                Ok(t) => return t,
                Err(e) if Instant::now() > end => panic!("not in time: {what}: {e}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    async fn node(b: &SlurmBackend, text: &str) -> Node {
        b.node(&name(text)).await.unwrap().value
    }

    /// Starts a job that sleeps on a node, and waits until it runs.
    async fn job_on(lab: &Lab, b: &SlurmBackend, node: &str) -> u64 {
        let id =
            lab.client("sbatch", &["--parsable", "-w", node, "--output=/dev/null", "--wrap", "sleep 300"]);
        let id: u64 = id.trim().parse().unwrap_or_else(|_| panic!("{id}"));
        eventually("the job runs", async || {
            let jobs = b.jobs_on(&name(node)).await.map_err(|u| u.to_string())?.value;
            let job = jobs.iter().find(|j| j.id == id).ok_or("not listed")?;
            if job.state == Known::Known(JobState::Running) {
                Ok(())
            } else {
                Err(format!("{:?}", job.state))
            }
        })
        .await;
        id
    }

    fn kind(w: Write) -> RefusalKind {
        if let Write::Refused(r) = w { r.kind } else { panic!("{w:?}") }
    }

    fn lock_for(node: &str) -> LockReservation {
        let end = Timestamp::from_second(Timestamp::now().as_second() + 1811).unwrap();
        LockReservation { name: format!("slurmedic-{node}"), node: name(node), end }
    }

    fn node_facts(n: &Node) -> String {
        format!(
            "{} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            n.name,
            n.base,
            n.flags,
            n.state,
            n.reason,
            n.partitions,
            n.features,
            n.gres,
            n.gpus_configured,
            n.gpus_allocated,
            n.cpus,
            n.cpus_allocated,
            n.memory_mib,
            n.slurmd_version
        )
    }

    fn job_facts(j: &Job) -> String {
        format!(
            "{} {:?} {:?} {:?} {:?} {:?} {:?}",
            j.id, j.state, j.flags, j.user, j.partition, j.nodes, j.start
        )
    }

    fn reservation_facts(r: &Reservation) -> String {
        let mut flags = r.flags.known().unwrap().clone();
        flags.sort();
        format!("{} {:?} {:?} {:?} {flags:?} {:?}", r.name, r.start, r.end, r.nodes, r.users)
    }

    #[tokio::test]
    async fn every_way_of_reading_gives_the_same() {
        let (_turn, lab) = turn().await;
        let b = lab.text();
        let id = job_on(lab, &b, "gpu002").await;
        assert_eq!(b.drain(&name("gpu003"), "it's \"drained\" | state=idle").await, Write::Accepted);
        assert_eq!(b.create_lock(&lock_for("gpu004")).await, Write::Accepted);
        let mut token = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut token, lab.verb(&["token", "root"]).as_bytes()).unwrap();
        let others = [
            ("JSON", SlurmBackend::new(lab.config(ReadVia::Json)).unwrap()),
            ("slurmrestd over TCP", lab.rest_tcp(token.path())),
            ("slurmrestd over its socket", lab.rest_unix()),
        ];
        for (what, other) in &others {
            let c = other.controller().await.unwrap_or_else(|u| panic!("{what}: {u}")).value;
            assert!(c.version.is_known() && c.cluster == Known::Known("lab".into()), "{what}: {c:?}");
            // The clients and slurmrestd ask one after the other: flags that settle by themselves may differ once.
            eventually(what, async || {
                let facts = async |b: &SlurmBackend| -> Result<Vec<String>, String> {
                    let e = |u: engine_core::known::Unknown| u.to_string();
                    let mut all: Vec<String> =
                        b.nodes().await.map_err(e)?.value.iter().map(node_facts).collect();
                    all.push(node_facts(&b.node(&name("gpu003")).await.map_err(e)?.value));
                    let mut jobs = b.jobs().await.map_err(e)?.value;
                    jobs.sort_by_key(|j| j.id);
                    all.extend(jobs.iter().map(job_facts));
                    all.extend(b.jobs_on(&name("gpu002")).await.map_err(e)?.value.iter().map(job_facts));
                    all.extend(b.reservations().await.map_err(e)?.value.iter().map(reservation_facts));
                    for p in b.partitions().await.map_err(e)?.value {
                        all.push(format!("{} {:?} {:?} {:?}", p.name, p.nodes, p.state, p.is_default));
                    }
                    Ok(all)
                };
                let (text, there) = (facts(&b).await?, facts(other).await?);
                if text == there {
                    return Ok(());
                }
                let differ: Vec<String> = text
                    .iter()
                    .zip(&there)
                    .filter(|(a, b)| a != b)
                    .map(|(a, b)| format!("\n  {a}\n  {b}"))
                    .collect();
                Err(format!("{} and {} facts{}", text.len(), there.len(), differ.concat()))
            })
            .await;
            let on = other.jobs_on(&name("gpu002")).await.unwrap().value;
            assert!(on.iter().any(|j| j.id == id && j.holds_node()), "{what}");
            assert!(
                other.jobs_on(&name("gpu001")).await.unwrap().value.iter().all(|j| !j.holds_node()),
                "{what}"
            );
            // A node that does not exist is an error, and never a node without jobs.
            assert!(
                other.node(&name("gpu999")).await.is_err() && other.jobs_on(&name("gpu999")).await.is_err(),
                "{what}"
            );
        }
        assert!(b.node(&name("gpu999")).await.is_err() && b.jobs_on(&name("gpu999")).await.is_err());
    }

    #[tokio::test]
    async fn drain_and_resume() {
        let (_turn, lab) = turn().await;
        let b = lab.text();
        let reason = "[slurmedic:t@1.0.0#r1] it's \"x\"; state=resume $(id) | 'q";
        assert_eq!(b.drain(&name("gpu001"), reason).await, Write::Accepted);
        let first = node(&b, "gpu001").await;
        assert_eq!(first.state, NodeState::Drained);
        let seen = first.reason.known().unwrap().clone().unwrap();
        assert_eq!(seen.text, reason);
        assert_eq!(seen.user, Known::Known(user()));
        let age = Timestamp::now().duration_since(*seen.at.known().unwrap());
        assert!(age.abs() < SignedDuration::from_secs(5), "the time of the reason is not read as UTC: {age}");
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(b.drain(&name("gpu001"), reason).await, Write::Accepted);
        assert_eq!(node(&b, "gpu001").await.reason, first.reason, "the same drain again changes nothing");
        assert_eq!(b.resume(&name("gpu001")).await, Write::Accepted);
        eventually("gpu001 is idle", async || {
            let n = node(&b, "gpu001").await;
            if n.state == NodeState::Idle { Ok(()) } else { Err(format!("{:?}", n.state)) }
        })
        .await;
        assert_eq!(kind(b.resume(&name("gpu001")).await), RefusalKind::InvalidState);
        assert_eq!(kind(b.drain(&name("gpu999"), "x").await), RefusalKind::NotFound);
        assert_eq!(kind(b.resume(&name("gpu999")).await), RefusalKind::NotFound);
    }

    #[tokio::test]
    async fn the_lock_is_a_test_and_set() {
        let (_turn, lab) = turn().await;
        let b = lab.text();
        let lock = lock_for("gpu002");
        assert_eq!(b.create_lock(&lock).await, Write::Accepted);
        let seen = b.reservations().await.unwrap().value;
        let r = seen.iter().find(|r| r.name == lock.name).unwrap();
        assert_eq!(r.end, Known::Known(lock.end), "the end is kept to the second");
        assert_eq!(r.nodes, Known::Known(vec![lock.node.clone()]));
        assert!(r.is_maintenance() && r.covers(&lock.node, Timestamp::now()));
        assert_eq!(kind(b.create_lock(&lock).await), RefusalKind::AlreadyExists);
        // Of many at once exactly one wins.
        assert_eq!(b.delete_reservation(&lock.name).await, Write::Accepted);
        let all = tokio::join!(b.create_lock(&lock), b.create_lock(&lock), b.create_lock(&lock));
        assert_eq!([all.0, all.1, all.2].iter().filter(|w| **w == Write::Accepted).count(), 1);
        assert_eq!(b.delete_reservation(&lock.name).await, Write::Accepted);
        assert_eq!(kind(b.delete_reservation(&lock.name).await), RefusalKind::NotFound);
        let other = LockReservation { node: name("gpu999"), name: "slurmedic-gpu999".into(), ..lock };
        assert_eq!(kind(b.create_lock(&other).await), RefusalKind::NotFound);
    }

    #[tokio::test]
    async fn a_hung_controller_makes_writes_ambiguous_and_reads_unknown() {
        let (_turn, lab) = turn().await;
        let b =
            SlurmBackend::new(SlurmConfig { read_deadline_seconds: 2, ..lab.config(ReadVia::Auto) }).unwrap();
        b.controller().await.unwrap();
        lab.verb(&["signal", "slurmctld", "STOP"]);
        let start = Instant::now();
        let (n1, n2, n3, lock4) = (name("gpu001"), name("gpu002"), name("gpu003"), lock_for("gpu004"));
        let (node, jobs, all, res, drained, locked) = tokio::join!(
            b.node(&n1),
            b.jobs_on(&n2),
            b.nodes(),
            b.reservations(),
            b.drain(&n3, "applied later"),
            b.create_lock(&lock4),
        );
        let took = start.elapsed();
        lab.verb(&["signal", "slurmctld", "CONT"]);
        assert!(node.is_err() && jobs.is_err() && all.is_err() && res.is_err());
        assert!(matches!(drained, Write::Ambiguous(_)), "{drained:?}");
        assert!(matches!(locked, Write::Ambiguous(_)), "{locked:?}");
        assert!(took < Duration::from_secs(40), "{took:?}");
        // The drain that "failed" is applied all the same: why nothing but a read-back decides.
        eventually("the drain shows up", async || {
            let n = b.node(&name("gpu003")).await.map_err(|u| u.to_string())?.value;
            if n.flags.has(NodeFlag::Drain) { Ok(()) } else { Err(format!("{:?}", n.state)) }
        })
        .await;
    }

    #[tokio::test]
    async fn a_dead_controller_is_never_an_empty_cluster() {
        let (_turn, lab) = turn().await;
        let mut token = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut token, lab.verb(&["token", "root"]).as_bytes()).unwrap();
        let all = [
            lab.text(),
            SlurmBackend::new(lab.config(ReadVia::Json)).unwrap(),
            lab.rest_tcp(token.path()),
            lab.rest_unix(),
        ];
        for b in &all {
            b.controller().await.unwrap();
        }
        lab.verb(&["stop", "slurmctld", "KILL"]);
        let n1 = name("gpu001");
        let [a, b, c, d] = &all;
        let reads = async |b: &SlurmBackend| {
            let (jobs, on, nodes, res) = tokio::join!(b.jobs(), b.jobs_on(&n1), b.nodes(), b.reservations());
            [jobs.is_err(), on.is_err(), nodes.is_err(), res.is_err()]
        };
        let (ra, rb, rc, rd, drained) =
            tokio::join!(reads(a), reads(b), reads(c), reads(d), a.drain(&n1, "x"));
        lab.verb(&["start", "slurmctld"]);
        assert_eq!([ra, rb, rc, rd], [[true; 4]; 4]);
        assert!(matches!(drained, Write::Ambiguous(_)), "{drained:?}");
        eventually("slurmctld answers", async || a.controller().await.map(|_| ()).map_err(|u| u.to_string()))
            .await;
    }

    #[tokio::test]
    async fn a_user_without_rights_is_told_so() {
        let (_turn, lab) = turn().await;
        if !nix::unistd::geteuid().is_root() {
            // Only root can become somebody else: the refusals themselves are held by captures in the unit tests.
            println!("not root: the refusals of an ordinary user were not tried on this Slurm");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let wrapper = dir.path().join("scontrol");
        let real = lab.dir.join("bin/scontrol");
        let text = format!(
            "#!/bin/sh\nexec setpriv --reuid=nobody --regid=nogroup --clear-groups '{}' \"$@\"\n",
            real.display()
        );
        std::fs::write(&wrapper, text).unwrap();
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let b =
            SlurmBackend::new(SlurmConfig { scontrol: Some(wrapper), ..lab.config(ReadVia::Auto) }).unwrap();
        assert_eq!(kind(b.drain(&name("gpu001"), "x").await), RefusalKind::NotPermitted);
        assert_eq!(kind(b.create_lock(&lock_for("gpu001")).await), RefusalKind::NotPermitted);
        assert_eq!(node(&b, "gpu001").await.state, NodeState::Idle);
    }

    #[tokio::test]
    async fn doctor_finds_nothing_wrong() {
        let (_turn, lab) = turn().await;
        let socket = Some(lab.dir.join("run/rest/slurmrestd.sock"));
        let rest = RestConfig { url: None, socket, token_file: None, user: None };
        let b = SlurmBackend::new(SlurmConfig { rest: Some(rest), ..lab.config(ReadVia::Auto) }).unwrap();
        let lines = b.doctor().await;
        for l in &lines {
            println!("{:?} {}: {} {}", l.verdict, l.what, l.found, l.advice);
        }
        assert!(lines.iter().all(|l| l.verdict == Verdict::Ok), "{lines:#?}");
        for what in
            ["clients", "controller", "text", "JSON", "slurmrestd", "chosen for reading", "rights", "clock"]
        {
            assert!(lines.iter().any(|l| l.what == what), "{what}");
        }
    }

    /// Prints what a read and a write cost here; asserts nothing but that they are far from any deadline.
    #[tokio::test]
    async fn costs() {
        let (_turn, lab) = turn().await;
        let b = lab.text();
        b.controller().await.unwrap();
        let mut times = [const { Vec::new() }; 4];
        for i in 0..20 {
            let start = Instant::now();
            b.node(&name("gpu001")).await.unwrap();
            times[0].push(start.elapsed());
            let start = Instant::now();
            b.jobs_on(&name("gpu001")).await.unwrap();
            times[1].push(start.elapsed());
            let start = Instant::now();
            assert_eq!(b.drain(&name("gpu001"), &format!("round {i}")).await, Write::Accepted);
            b.node(&name("gpu001")).await.unwrap();
            times[2].push(start.elapsed());
            let start = Instant::now();
            lab.text().controller().await.unwrap();
            times[3].push(start.elapsed());
        }
        for (what, t) in ["node", "jobs_on", "drain and read-back", "probe"].iter().zip(&mut times) {
            t.sort();
            println!("{what}: median {:?}, worst {:?}", t[t.len() / 2], t[t.len() - 1]);
            assert!(t[t.len() / 2] < Duration::from_secs(2), "{what}");
        }
    }
}
