//! Exit codes and drains: nothing happens to a node unless the site listed the fault, and never for a fault of ours.

use crate::support::Site;

fn scontrol(site: &Site, state: &str) {
    // A node whose state is a file; the update is noted and done.
    std::fs::write(site.path("node"), format!("NodeName=gpu003 Arch=x86_64 State={state}\n")).unwrap();
    let dir = site.dir.path().display().to_string();
    site.script(
        "scontrol",
        &format!(
            "case $1 in\n-o) cat {dir}/node ;;\nupdate) echo \"$SLURM_CONF $*\" >>{dir}/updates\n\
             r=${{4#reason=}}\nprintf 'NodeName=gpu003 State=IDLE+DRAIN Reason=%s [root@now]\\n' \"$r\" >{dir}/node ;;\n\
             esac"
        ),
    );
}

fn updates(site: &Site) -> Vec<String> {
    let text = std::fs::read_to_string(site.path("updates")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

const GPUS: &str = "check gpus expect=8 dev=DIR proc=DIR\n";

#[test]
fn a_fault_alone_never_fails_the_prolog() {
    let site = Site::new(GPUS);
    assert_eq!((site.prolog().code, site.faults()), (0, vec!["gpu-count-mismatch".to_owned()]));
}

#[test]
fn the_prolog_fails_for_a_listed_fault_only() {
    let site = Site::new(&format!("prolog_fail = gpu-count-mismatch\n{GPUS}"));
    let done = site.prolog();
    assert_eq!(done.code, 1);
    assert!(done.err.contains("the prolog fails, as prolog_fail asks for"), "{done:?}");
    assert_eq!(site.health().code, 0, "only a prolog ever fails");
    for i in 0..8 {
        std::fs::write(site.path(&format!("nvidia{i}")), "").unwrap();
    }
    assert_eq!(site.prolog().code, 0);
}

#[test]
fn a_check_that_fails_never_fails_the_prolog() {
    let fail = "prolog_fail = gpu-count-mismatch disk-full fs-read-only gpu-off-bus\n";
    let site = Site::new(&format!("{fail}check gpus gres=DIR/absent\ncheck space path=DIR/absent\n"));
    let done = site.prolog();
    assert_eq!((done.code, site.faults()), (0, vec!["hook-check-failed".to_owned(); 2]), "{done:?}");
    let made = std::process::Command::new("mkfifo").arg(site.path("pipe")).status().unwrap();
    assert!(made.success());
    site.configure(&format!("{fail}check mount path=/ read=DIR/pipe deadline=100ms\n"));
    assert_eq!(site.prolog().code, 0);
}

#[test]
fn no_configuration_is_named_and_drains_nothing() {
    let site = Site::new("");
    std::fs::remove_file(site.path("hook.conf")).unwrap();
    std::fs::create_dir(site.path("hook.conf")).unwrap();
    for done in [site.health(), site.prolog()] {
        assert_eq!(done.code, 0);
        assert!(done.err.contains("it is no regular file: nothing is checked"), "{done:?}");
    }
    let mut nowhere = site.command(&[]);
    nowhere.args(["--config", "/no/such/hook.conf"]);
    let done = crate::support::finish(nowhere.spawn().unwrap());
    assert!(done.code == 0 && done.err.contains("/no/such/hook.conf: No such file"), "{done:?}");
}

#[test]
fn wrong_words_end_with_0() {
    let site = Site::new("");
    for args in [&["--nonsense"][..], &["--as", "reboot"], &["gpu003"]] {
        let done = site.by_hand(args);
        assert!(done.code == 0 && done.err.contains("--help"), "{done:?}");
    }
    let mut c = site.command(&[]);
    c.env("SLURM_SCRIPT_CONTEXT", "prolog_slurmctld");
    assert_eq!(crate::support::finish(c.spawn().unwrap()).code, 0);
}

#[test]
fn a_listed_fault_drains_once_and_only_after_the_second_look() {
    let site = Site::new(&format!(
        "drain = gpu-count-mismatch\nscontrol = DIR/scontrol\nslurm_conf = /etc/lab.conf\n{GPUS}"
    ));
    scontrol(&site, "IDLE");
    site.health();
    assert_eq!(updates(&site), Vec::<String>::new());
    let done = site.health();
    assert!(done.err.contains("gpu003 is drained: [slurmedic:hook@"), "{done:?}");
    let all = updates(&site);
    assert_eq!(all.len(), 1);
    assert!(
        all[0].starts_with("/etc/lab.conf update nodename=gpu003 state=drain reason=[slurmedic:hook@"),
        "{all:?}"
    );
    assert!(all[0].contains("] gpu-count-mismatch: 8 GPUs are configured; 0 have a device file"), "{all:?}");
    // A person resumes: that is not answered.
    std::fs::write(site.path("node"), "NodeName=gpu003 State=IDLE\n").unwrap();
    for _ in 0..3 {
        assert_eq!(site.health().code, 0);
    }
    assert_eq!(updates(&site).len(), 1);
}

#[test]
fn a_node_with_a_mark_of_somebody_is_left_alone() {
    for state in [
        "IDLE+DRAIN Reason=my own [alice@now]",
        "IDLE+MAINTENANCE",
        "DOWN",
        "IDLE+NEW_FLAG",
        "IDLE Reason=look",
    ] {
        let site = Site::new(&format!(
            "drain = gpu-count-mismatch\ndrain_after = 1\nscontrol = DIR/scontrol\n{GPUS}"
        ));
        scontrol(&site, state);
        let done = site.health();
        assert!(done.err.contains("is left alone"), "{state}: {done:?}");
        assert_eq!(updates(&site), Vec::<String>::new(), "{state}");
    }
}

#[test]
fn a_hung_scontrol_does_not_hang_the_hook_and_the_report_went_out_before() {
    let site =
        Site::new(&format!("drain = gpu-count-mismatch\ndrain_after = 1\nscontrol = DIR/scontrol\n{GPUS}"));
    site.script("scontrol", "exec sleep 60");
    let done = site.health();
    assert_eq!(done.code, 0);
    assert!(
        done.err.contains("could not be drained") && done.took < std::time::Duration::from_secs(20),
        "{done:?}"
    );
    assert_eq!(site.faults(), ["gpu-count-mismatch"]);
}

#[test]
fn without_the_option_scontrol_is_never_started() {
    let site = Site::new(&format!("drain_after = 1\nscontrol = DIR/scontrol\n{GPUS}"));
    site.script("scontrol", &format!("touch {}/called", site.dir.path().display()));
    for _ in 0..3 {
        site.health();
    }
    assert!(!site.path("called").exists());
}

#[test]
fn an_xid_of_the_list_drains_at_once_and_only_once() {
    let site = Site::new("drain = gpu-off-bus\nscontrol = DIR/scontrol\ncheck xid log=DIR/kern.log\n");
    scontrol(&site, "MIXED");
    site.log("[ 1.0] NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus.");
    assert_eq!(site.health().code, 0);
    assert!(
        updates(&site)[0].contains("] gpu-off-bus on GPU 00000000:1B:00.0: xid 79"),
        "{:?}",
        updates(&site)
    );
    std::fs::write(site.path("node"), "NodeName=gpu003 State=IDLE\n").unwrap();
    site.health();
    assert_eq!(updates(&site).len(), 1);
}

/// A hook that cannot remember that it drained would drain again after a person's resume.
#[test]
fn what_cannot_be_kept_drains_nothing() {
    let site =
        Site::new(&format!("drain = gpu-count-mismatch\ndrain_after = 1\nscontrol = DIR/scontrol\n{GPUS}"));
    scontrol(&site, "IDLE");
    std::fs::create_dir_all(site.path("state/state")).unwrap();
    let done = site.health();
    assert_eq!(done.code, 0);
    assert!(done.err.contains("is not drained for gpu-count-mismatch: that could not be kept"), "{done:?}");
    assert_eq!(updates(&site), Vec::<String>::new());
}
