//! A sick checker is no sick node (rule 14): a tool that does not answer has an incident of its own.

use crate::scene::Scene;
use engine_core::incident::{Phase, Subject, ToolHealth, Tools};

fn tools(ill: &[&str], well: &[&str]) -> Tools {
    let ill = ill.iter().map(|n| ((*n).to_owned(), ToolHealth::Ill("connection refused".to_owned())));
    let well = well.iter().map(|n| ((*n).to_owned(), ToolHealth::Well));
    ill.chain(well).collect()
}

#[tokio::test]
async fn a_silent_exporter_is_an_incident_that_nobody_plans_for_and_that_ends_by_itself() {
    let scene = Scene::new(8).await;
    let node = scene.node(1).to_string();
    scene
        .play(async {
            scene.work();
            scene.intake.tools("exporter", &tools(&[&node], &[])).await.unwrap();
            scene.intake.tools("exporter", &tools(&[&node], &[])).await.unwrap();
            scene.wait(600).await;
            let open = scene.incidents().await;
            let [incident] = open.as_slice() else { panic!("{open:?}") };
            assert!(
                matches!(&incident.subject, Subject::Tool { tool } if *tool == format!("exporter: {node}"))
            );
            assert!(matches!(&incident.phase, Phase::WithPerson { why } if why == "connection refused"));
            // Another engine, that has not asked anybody yet, knows of it and does not end it.
            let other = scene.reborn("b").await;
            assert_eq!(other.incidents().await, open);
            other
                .intake
                .tools("exporter", &Tools::from([(node.clone(), ToolHealth::Undecided)]))
                .await
                .unwrap();
            assert_eq!(other.incidents().await, open);
            // Its node breaks meanwhile: that is another incident, and repaired as ever.
            scene.break_gpu(1);
            scene.post(1).await;
            scene.wait(3_600).await;
            assert_eq!(scene.incidents().await, open, "the node is repaired, the exporter is not");
            scene.intake.tools("exporter", &tools(&[], &[&node])).await.unwrap();
            assert!(scene.incidents().await.is_empty());
        })
        .await;
    assert_eq!(scene.ends().await.values().sum::<usize>(), 1, "one run, for the GPU");
}
