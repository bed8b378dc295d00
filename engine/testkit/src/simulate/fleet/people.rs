//! The people of a site with a policy: who is on call, the lead who stops and releases, and hardware service.

use super::agenda::What;
use super::office::{ELSEWHERE, Office};
use crate::simulate::agenda::{Answer, Incident};
use crate::simulate::mortal::mix;
use crate::simulate::stage;
use crate::world::PersonAction;
use engine_core::incident::{Alert, Fingerprint, FleetEvent, Phase, QueuedWork, Scope};
use engine_core::model::{NodeName, RunId};
use engine_core::run::{Actor, Status};
use engine_runtime::ports::Clock as _;
use jiff::SignedDuration;
use std::sync::Arc;

/// Time after which an alert that lasts is sent again.
const REPEAT: SignedDuration = SignedDuration::from_mins(5);
/// Times an alert is sent at the most: a day and a half.
const POSTS: u32 = 430;
/// Posts for which an alert lasts that nothing on the node bears out.
const FALSE_ALARM: u32 = 3;

/// Answers a request: the first person, and where one is not enough, a second.
pub(super) async fn answer(office: Arc<Office>, place: usize, run: RunId, node: NodeName) {
    let Some(incident) = office.incident_on(&node) else { return };
    office.clock.sleep(incident.thinks).await;
    for person in ["oncall", "lead"] {
        let Some(desk) = office.desk(place) else { return };
        let waits = desk.engine.state(&run).await.is_ok_and(|s| s.status == Status::AwaitingApproval);
        if !waits {
            return;
        }
        let by = Actor::person(person);
        // What was decided meanwhile, or cannot be written now, is not asked of them again.
        match incident.answer {
            Answer::Yes => drop(desk.engine.approve(&run, by).await),
            Answer::No => drop(desk.engine.deny(&run, &by, "not today").await),
            Answer::Nothing => return,
        }
        office.clock.sleep(SignedDuration::from_secs(45)).await;
    }
}

/// Lets a breaker that tripped go on, after a look at the site.
pub(super) async fn release(office: Arc<Office>, place: usize, scope: Scope) {
    let drawn = mix(office.seed, &scope.to_string(), office.now().as_second() as u64);
    office.clock.sleep(SignedDuration::from_secs(300 + (drawn % 2_400) as i64)).await;
    let queued = if drawn & 1 == 0 { QueuedWork::JudgeAnew } else { QueuedWork::Drop };
    let Some(desk) = office.desk(place) else { return };
    let by = Actor::person("lead");
    // Somebody may have released it before.
    drop(desk.log.note(FleetEvent::Released { scope, by, why: "looked at it".to_owned(), queued }).await);
}

/// Stops something at every desk, and lets it go on later.
pub(super) async fn stop(office: Arc<Office>, what: What, long: SignedDuration, queued: QueuedWork) {
    let Some(scope) = office.scope(what) else { return };
    let by = || Actor::person("lead");
    for desk in office.desks() {
        let why = "power work".to_owned();
        drop(desk.log.note(FleetEvent::Stopped { scope: scope.clone(), by: by(), why }).await);
    }
    office.clock.sleep(long).await;
    for desk in office.desks() {
        let (scope, why) = (scope.clone(), "done".to_owned());
        drop(desk.log.note(FleetEvent::Released { scope, by: by(), why, queued }).await);
    }
}

/// Takes nodes out of service and gives them back.
pub(super) async fn work(office: Arc<Office>, nodes: Vec<usize>, long: SignedDuration) {
    let names: Vec<NodeName> = nodes.iter().filter_map(|n| office.world.node_names_at(*n)).collect();
    let mut taken = Vec::new();
    for node in names {
        if stage::is_in_service(&office.world, &node) {
            let drain = PersonAction::Drain { node: node.clone(), reason: "rack work".to_owned() };
            drop(office.world.person_now("admin1", drain));
            taken.push(node);
        }
        office.clock.sleep(SignedDuration::from_secs(20)).await;
    }
    office.clock.sleep(long).await;
    for node in taken {
        // An engine's own drain is left to it.
        let ours = office.world.reason_run(&node).is_some();
        if !ours && !stage::is_in_service(&office.world, &node) {
            drop(office.world.person_now("admin1", PersonAction::Resume { node }));
        }
    }
}

fn alert(office: &Office, node: &NodeName, gpu: u32, firing: bool) -> Option<Alert> {
    Some(Alert {
        source: "exporter".to_owned(),
        fingerprint: Fingerprint::new(&format!("ecc/{node}/{gpu}")).ok()?,
        fault: "gpu-ecc-uncorrectable".to_owned(),
        node: node.clone(),
        gpu: Some(gpu.to_string()),
        firing,
        seen_at: office.now(),
        summary: "a\"7'; scontrol update nodename=ALL state=resume {{ 7*7 }}".to_owned(),
    })
}

/// Breaks what an incident breaks and follows it until nobody has to do with it any more.
pub(super) async fn live(office: Arc<Office>, incident: Incident) {
    follow(&office, incident).await;
    office.end_case();
}

async fn follow(office: &Office, incident: Incident) {
    let Some(node) = office.world.node_names_at(incident.node) else { return };
    if stage::not_for_engines(&office.world, &node, &incident) {
        return;
    }
    office.know(&node, &incident);
    stage::set(&office.world, &office.clock, &node, &incident).await;
    office.clock.sleep(incident.noticed_after).await;
    stage::interfere(&office.world, &node, &incident);
    for post in 0..POSTS {
        let sick = !office.world.ailments(&node).is_empty();
        let firing = sick || post < FALSE_ALARM;
        tell(office, &node, &incident, firing).await;
        match with_whom(office, &node).await {
            Whom::Person => {
                office.clock.sleep(incident.repair_after).await;
                stage::repair(&office.world, &office.clock, &office.warden, &node, incident.gpu).await;
            }
            Whom::Nobody if !sick && post >= FALSE_ALARM => break,
            Whom::Nobody | Whom::Engine => {}
        }
        office.clock.sleep(REPEAT).await;
    }
    // What is left, such as a drain that nobody stands for by the record, is looked after by people.
    stage::repair(&office.world, &office.clock, &office.warden, &node, incident.gpu).await;
    office.world.forget_orders(&node);
}

async fn tell(office: &Office, node: &NodeName, incident: &Incident, firing: bool) {
    let mut told = vec![incident.engine];
    if incident.told_elsewhere {
        told.push(ELSEWHERE);
    }
    for engine in told {
        if let (Some(intake), Some(alert)) =
            (office.intake(engine), alert(office, node, incident.gpu, firing))
        {
            // An engine that dies meanwhile hears of it with the next post.
            drop(intake.take(vec![alert]).await);
        }
    }
}

/// Who has the incident of a node.
enum Whom {
    Engine,
    Person,
    Nobody,
}

async fn with_whom(office: &Office, node: &NodeName) -> Whom {
    let mut whom = Whom::Nobody;
    for desk in office.desks() {
        if desk.log.sync().await.is_err() {
            return Whom::Engine;
        }
        let phase = desk.log.read(|f| f.on_node(node).map(|i| i.phase.clone())).await;
        match phase {
            None => {}
            Some(Phase::WithPerson { .. }) => whom = Whom::Person,
            Some(_) => return Whom::Engine,
        }
    }
    whom
}
