//! The engine dies at every write of the whole way from alert to repaired node, and another one goes on.

use crate::scene::Scene;
use engine_core::run::End;
use engine_runtime::journal::CrashPoint;

/// Kills the engine before and after its n-th write, for every n there is; the next engine brings all to the same end.
#[tokio::test]
async fn whatever_write_it_dies_at_the_node_is_repaired_once() {
    let mut crashes = 0;
    for point in [CrashPoint::Before, CrashPoint::After] {
        for n in 1.. {
            let first = Scene::new(4).await;
            first.break_gpu(1);
            first.journal.crash_after(n, point);
            let died = first
                .play(async {
                    // The source sends again until somebody takes it, as alert sources do.
                    drop(first.intake.take(vec![first.alert(1, true)]).await);
                    first.wait(600).await;
                    first.journal.is_dead()
                })
                .await;
            if !died {
                break;
            }
            crashes += 1;
            let second = first.reborn("engine-2").await;
            let story = format!("{point:?} write {n}");
            second
                .play(async {
                    drop(second.intake.take(vec![second.alert(1, true)]).await);
                    second.wait(1_500).await;
                })
                .await;
            let ends = second.ends().await;
            let resets = second.world.resets().len();
            assert!(resets <= 1, "{story}: {resets} resets, {ends:?}");
            assert!(!ends.contains_key(&None), "{story}: a run is open: {ends:?}");
            let good = ends.get(&Some(End::Succeeded)) == Some(&1);
            let held = ends.get(&Some(End::Held)).copied().unwrap_or(0) == 1;
            assert!(good || held, "{story}: {ends:?}");
            second.is_clean().await;
        }
    }
    println!("{crashes} crashes, each followed by another engine");
    assert!(crashes >= 28, "{crashes}");
}
