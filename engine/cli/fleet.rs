//! The fleet's parts put together: its record, the intake, the gate, the dispatcher.

use crate::exit::CliError;
use engine_core::incident::{Alert, IntakeRules, StormRules};
use engine_core::policy::{Layout, Policy};
use engine_playbook::Library;
use engine_runtime::engine::{Engine, Ports};
use engine_runtime::fleet::{
    ByFault, Dispatcher, DispatcherConfig, FleetError, FleetLog, FleetView, Intake, Playbooks, PolicyGate,
    SwitchGate, Watch, shape_of,
};
use engine_runtime::system::SystemSpawn;
use std::sync::Arc;

/// The parts that every process shares through the journal.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    /// The record.
    pub(crate) log: Arc<FleetLog>,
    /// Alerts in.
    pub(crate) intake: Arc<Intake>,
    /// The cluster.
    pub(crate) view: Arc<FleetView>,
    /// The gate.
    pub(crate) gate: Arc<PolicyGate>,
}

impl Fleet {
    /// Puts the parts together on these ports.
    pub(crate) async fn open(
        ports: &Ports,
        policy: Arc<Policy>,
        layout: Layout,
        library: &Library,
    ) -> Result<Self, CliError> {
        let log = FleetLog::open(Arc::clone(&ports.journal), Arc::clone(&ports.clock)).await?;
        let log = Arc::new(log);
        let intake = Intake::new(
            Arc::clone(&log),
            IntakeRules::default(),
            StormRules { breaker: policy.breaker.clone(), ..StormRules::default() },
        );
        let intake = Arc::new(intake);
        let view = FleetView::new(Arc::clone(&ports.scheduler), Arc::clone(&ports.clock), layout);
        let view = Arc::new(view);
        let switches = SwitchGate::new(Arc::clone(&log), Arc::clone(&intake));
        let (journal, clock) = (Arc::clone(&ports.journal), Arc::clone(&ports.clock));
        let playbooks = Arc::new(ByFault::newest(library.playbooks()));
        let gate = Arc::new(PolicyGate::new(switches, policy, Arc::clone(&view), playbooks, journal, clock));
        Ok(Self { log, intake, view, gate })
    }

    /// Puts a gate with another policy, layout and library together, on the same record and intake.
    pub(crate) fn anew(&self, ports: &Ports, policy: Arc<Policy>, layout: Layout, library: &Library) -> Self {
        let (log, intake) = (Arc::clone(&self.log), Arc::clone(&self.intake));
        intake.set_storm(StormRules { breaker: policy.breaker.clone(), ..StormRules::default() });
        let view = FleetView::new(Arc::clone(&ports.scheduler), Arc::clone(&ports.clock), layout);
        let view = Arc::new(view);
        let switches = SwitchGate::new(Arc::clone(&log), Arc::clone(&intake));
        let (journal, clock) = (Arc::clone(&ports.journal), Arc::clone(&ports.clock));
        let playbooks = Arc::new(ByFault::newest(library.playbooks()));
        let gate = Arc::new(PolicyGate::new(switches, policy, Arc::clone(&view), playbooks, journal, clock));
        Self { log, intake, view, gate }
    }

    /// Reads which nodes there are and tells the intake; says what could not be read.
    pub(crate) async fn look(&self) -> Result<usize, CliError> {
        self.take_shape(&self.view.fresh().await)
    }

    /// Does the same and lets a watch see the nodes; returns its alerts too, where the nodes could be read.
    pub(crate) async fn look_watched(&self, watch: &Watch) -> (Result<usize, CliError>, Vec<Alert>) {
        let (fleet, alerts) = self.view.fresh_watched(watch).await;
        (self.take_shape(&fleet), alerts)
    }

    fn take_shape(&self, fleet: &engine_core::policy::Fleet) -> Result<usize, CliError> {
        match (shape_of(fleet), fleet.gaps().first()) {
            (Some(shape), _) => {
                let nodes = shape.len();
                self.intake.set_shape(Arc::new(shape));
                Ok(nodes)
            }
            (None, gap) => {
                let why = gap.map_or_else(|| "nothing was read".to_owned(), ToString::to_string);
                Err(CliError::failed(format!("the nodes of the cluster could not be read: {why}"))
                    .with_hint("`slurmedic doctor` looks at the way to slurmctld"))
            }
        }
    }

    /// Builds the dispatcher on an engine that has this gate.
    pub(crate) fn dispatcher(
        &self,
        engine: Engine,
        playbooks: Arc<dyn Playbooks>,
        config: DispatcherConfig,
    ) -> Dispatcher {
        Dispatcher::new(
            engine,
            Arc::clone(&self.intake),
            Arc::clone(&self.log),
            playbooks,
            Arc::new(SystemSpawn),
            config,
        )
    }
}

impl From<FleetError> for CliError {
    fn from(e: FleetError) -> Self {
        Self::caused("the record of the fleet", e)
    }
}
