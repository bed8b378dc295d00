//! Two engine processes on one journal, killed again and again: never two runs on one node, and nothing begun by a
//! process that lost its run.

use crate::sample::{Site, at, ended, finished, intent, node, noted, plan, proposed, run, started};
use engine_core::model::{NodeName, RunId};
use engine_core::run::{Actor, Effect, EffectState, End, EventKind, Resolution, fold};
use engine_runtime::journal::{Journal, JournalError, Lease, OpenMode, SqliteJournal};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SITE: &str = "SLURMEDIC_TEST_TWO_SITE";
const NAME: &str = "SLURMEDIC_TEST_TWO_NAME";
const NODES: [&str; 3] = ["gpu001", "gpu002", "gpu003"];
const EFFECTS: [(Effect, &str); 4] = [
    (Effect::Lock, "lock"),
    (Effect::Step(0), "slurm.drain"),
    (Effect::Step(1), "slurm.wait_idle"),
    (Effect::Unlock, "unlock"),
];

/// The nodes as the world has them: a file for each one that is taken, with the run that took it.
struct World(PathBuf);

impl World {
    /// What a run does to its node. Finding another run on it is what must never be.
    fn enter(&self, node: &NodeName, run: &RunId) {
        let file = self.0.join(node.as_str());
        match std::fs::OpenOptions::new().write(true).create_new(true).open(&file) {
            Ok(mut f) => f.write_all(run.as_str().as_bytes()).unwrap(),
            Err(_) => {
                let there = std::fs::read_to_string(&file).unwrap_or_default();
                // Its own mark, from before its engine was killed; or one that was being written when it was.
                if there != run.as_str() && !there.is_empty() {
                    std::fs::write(self.0.join("violation"), format!("{run} met {there} on {node}")).unwrap();
                }
                std::fs::write(&file, run.as_str()).unwrap();
            }
        }
    }

    fn leave(&self, node: &NodeName, run: &RunId) {
        let file = self.0.join(node.as_str());
        if std::fs::read_to_string(&file).is_ok_and(|there| there == run.as_str()) {
            std::fs::remove_file(file).unwrap();
        }
    }
}

/// Carries a claimed run on from wherever it stands, as an engine does: intent, act, outcome.
async fn carry(j: &SqliteJournal, world: &World, run: &RunId) -> Result<(), JournalError> {
    let events = j.load(run).await?;
    let state = fold(&events).unwrap();
    let (mut seq, node) = (state.seq, state.plan.target.node.clone());
    if state.status.is_terminal() {
        return Ok(());
    }
    let digest = plan(run, &node).digest().unwrap();
    for kind in [
        EventKind::ApprovalRequested { people: 1, expires_at: at(3600) },
        EventKind::Approved { by: Actor::person("jon"), digest, expires_at: at(3600), ticket: None },
        EventKind::Started { engine: "e1".to_owned() },
    ]
    .into_iter()
    .skip(seq as usize - 1)
    {
        j.append(run, seq, at(seq), vec![kind]).await?;
        seq += 1;
    }
    for (effect, action) in EFFECTS {
        let found = state.effects.get(&effect);
        let open = matches!(found, Some(EffectState::Open { .. }));
        if found.is_some() && !open {
            continue;
        }
        if effect == Effect::Lock {
            match j.take_lease(&node, run, at(seq)).await? {
                Lease::Taken { .. } => {}
                _ if open => panic!("a lock with an intent was lost"),
                _ => {
                    j.append(run, seq, at(seq), vec![ended(End::Rejected)]).await?;
                    return Ok(());
                }
            }
        }
        if !open {
            j.append(run, seq, at(seq), vec![intent(effect, action)]).await?;
            seq += 1;
        }
        match effect {
            Effect::Lock => world.enter(&node, run),
            Effect::Unlock => {
                world.leave(&node, run);
                j.drop_lease(&node, run).await?;
            }
            _ => {}
        }
        let out = if open {
            EventKind::Resolved {
                effect,
                attempt: 1,
                resolution: Resolution::Applied,
                why: "looked at".to_owned(),
                after: None,
                data: engine_core::run::Load::default(),
            }
        } else {
            finished(effect)
        };
        j.append(run, seq, at(seq), vec![out]).await?;
        seq += 1;
    }
    j.append(run, seq, at(seq), vec![ended(End::Succeeded)]).await?;
    Ok(())
}

/// Picks up what dead processes left. Returns how many runs.
async fn recover(j: &SqliteJournal, world: &World) -> Result<usize, JournalError> {
    let mut count = 0;
    for run in j.orphans().await? {
        if j.claim(&run).await? {
            carry(j, world, &run).await?;
            count += 1;
        }
    }
    Ok(count)
}

/// Not a test of its own: an engine process of the test below, told by environment variables.
#[test]
#[ignore = "run as a child process by other tests"]
fn engine() {
    let Ok(site) = std::env::var(SITE) else { return };
    let name = std::env::var(NAME).unwrap();
    let world = World(Path::new(&site).join("nodes"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let j = SqliteJournal::open(&Path::new(&site).join("journal.db"), OpenMode::ReadWrite).unwrap();
        let mut seen = 0_u64;
        for i in 0_usize.. {
            let recovered = recover(&j, &world).await.unwrap();
            let r = run(&format!("{name}-{i}"));
            let target =
                node(NODES[(i + name.len() + name.as_bytes()[name.len() - 1] as usize) % NODES.len()]);
            j.append(&r, 0, at(0), vec![proposed(&r, &target)]).await.unwrap();
            if j.claim(&r).await.unwrap() {
                carry(&j, &world, &r).await.unwrap();
            }
            seen += 1;
            println!("\nruns {seen} recovered {recovered}");
            std::io::stdout().flush().unwrap();
        }
    });
}

/// Another process, which dies with the test that started it.
struct Process(Child);

impl Process {
    fn start(test: &str, site: &Site, name: &str, out: Stdio) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(SITE, site.dir.path())
            .env(NAME, name)
            .stdout(out)
            .spawn();
        Self(child.unwrap())
    }

    fn gave_up(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    /// With SIGKILL: it has no chance to leave anything in order.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(site: &Site, name: &str) -> Process {
    Process::start("two_processes::engine", site, name, Stdio::null())
}

/// Reads the one order of all events and makes sure that from the intent of a run's lock to the intent of its unlock no
/// other run begins anything on its node. Returns how many runs had their node.
fn one_at_a_time(site: &Site) -> usize {
    let db = site.raw();
    let mut q = db.prepare("SELECT run, body FROM events ORDER BY pos").unwrap();
    let rows = q.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?))).unwrap();
    let mut nodes: BTreeMap<String, NodeName> = BTreeMap::new();
    let mut on: BTreeMap<NodeName, String> = BTreeMap::new();
    let mut count = 0;
    for row in rows {
        let (run, body) = row.unwrap();
        match serde_json::from_str::<EventKind>(&body).unwrap() {
            EventKind::Proposed { plan, .. } => {
                nodes.insert(run, plan.target.node.clone());
            }
            EventKind::Intent { effect: Effect::Lock, .. } => {
                let there = on.insert(nodes[&run].clone(), run.clone());
                assert_eq!(there, None, "{run} began on {} beside another run", nodes[&run]);
                count += 1;
            }
            EventKind::Intent { effect: Effect::Unlock, .. } => {
                assert_eq!(on.remove(&nodes[&run]), Some(run));
            }
            EventKind::Intent { .. } => assert_eq!(on.get(&nodes[&run]), Some(&run)),
            _ => {}
        }
    }
    assert_eq!(on.len(), 0, "every run gave its node back: {on:?}");
    count
}

#[tokio::test]
async fn two_engines_that_are_killed_never_have_two_runs_on_one_node() {
    let site = Site::new();
    let world = World(site.dir.path().join("nodes"));
    std::fs::create_dir(&world.0).unwrap();
    drop(site.open());
    let mut engines = [start(&site, "a0"), start(&site, "b0")];
    let count = |sql: &str| site.raw().query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap();
    let resolved = || count("SELECT count(*) FROM events WHERE kind = 'resolved'");
    let begun = Instant::now();
    let mut kills = 0;
    // Until it has shown something, on a busy machine too.
    while begun.elapsed() < Duration::from_secs(5)
        || (resolved() < 3 && begun.elapsed() < Duration::from_secs(40))
    {
        // Uneven on purpose, so that a process dies at another point each time.
        tokio::time::sleep(Duration::from_millis(140 + kills * 37 % 110)).await;
        let who = (kills % 2) as usize;
        assert!(!engines[who].gave_up(), "an engine process gave up");
        kills += 1;
        let name = format!("{}{kills}", ["a", "b"][who]);
        drop(std::mem::replace(&mut engines[who], start(&site, &name)));
    }
    drop(engines);
    let j = site.open();
    let left = recover(&j, &world).await.unwrap();
    assert_eq!(std::fs::read_to_string(world.0.join("violation")).ok(), None);
    assert_eq!(j.leases().await.unwrap(), []);
    assert_eq!(std::fs::read_dir(&world.0).unwrap().count(), 0, "no node is left marked");
    assert_eq!(j.orphans().await.unwrap(), []);
    let report = j.verify().await.unwrap();
    assert_eq!(report.broken, None);
    let had = one_at_a_time(&site);
    let recovered = resolved();
    let met = count("SELECT count(*) FROM runs WHERE status LIKE '%rejected%'");
    println!(
        "{kills} kills, {had} runs had their node, {met} met another, {recovered} intents resolved, {left} left"
    );
    assert!(had > 20 && met > 0 && recovered > 0, "{had} {met} {recovered}: the test shows too little");
}

/// Not a test of its own: takes the run over, begins a step in it, and lives on until it is killed.
#[test]
#[ignore = "run as a child process by other tests"]
fn usurper() {
    let Ok(site) = std::env::var(SITE) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let j = SqliteJournal::open(&Path::new(&site).join("journal.db"), OpenMode::ReadWrite).unwrap();
        let r = run("r1");
        assert!(j.claim(&r).await.unwrap());
        j.take_lease(&node("gpu001"), &r, at(9)).await.unwrap();
        j.append(&r, 6, at(9), vec![intent(Effect::Step(0), "slurm.drain")]).await.unwrap();
        j.append(&r, 7, at(9), vec![finished(Effect::Step(0))]).await.unwrap();
        println!("\nready");
        std::io::stdout().flush().unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
    });
}

#[tokio::test]
async fn a_process_that_lost_its_run_begins_nothing_more_in_it() {
    let site = Site::new();
    let (j, r) = (site.open(), run("r1"));
    j.append(&r, 0, at(0), started(&r, &node("gpu001"))).await.unwrap();
    assert!(j.claim(&r).await.unwrap());
    j.take_lease(&node("gpu001"), &r, at(1)).await.unwrap();
    j.append(&r, 4, at(1), vec![intent(Effect::Lock, "lock"), finished(Effect::Lock)]).await.unwrap();
    // As if the host had been restored from an image while this process was frozen: it is taken for dead.
    let lock = site.dir.path().join("journal.db.engines").join(format!("{}.lock", j.engine()));
    std::fs::remove_file(lock).unwrap();
    site.raw().execute("UPDATE engines SET boot = 'earlier' WHERE engine = ?1", [j.engine()]).unwrap();
    let mut other = Some(Process::start("two_processes::usurper", &site, "", Stdio::piped()));
    let out = other.as_mut().and_then(|p| p.0.stdout.take()).unwrap();
    let mut lines = BufReader::new(out).lines();
    assert!(lines.any(|l| l.unwrap() == "ready"), "the other process did not take the run over");
    // It knows exactly where the run stands, and still may not begin the next step; nor after the other has died.
    let next = || vec![intent(Effect::Step(1), "slurm.wait_idle")];
    for alive in [true, false] {
        if !alive {
            drop(other.take());
        }
        let refused = j.append(&r, 8, at(10), next()).await;
        assert!(matches!(&refused, Err(JournalError::TakenOver(run)) if *run == r), "{refused:?}");
        let hidden = vec![noted("x"), intent(Effect::Step(1), "slurm.wait_idle")];
        assert!(matches!(j.append(&r, 8, at(10), hidden).await, Err(JournalError::TakenOver(_))));
        assert_eq!(j.claim(&r).await.unwrap(), !alive, "it must claim the run anew");
        if !alive {
            j.append(&r, 8, at(11), next()).await.unwrap();
        }
    }
    assert_eq!(j.verify().await.unwrap().broken, None);
}
