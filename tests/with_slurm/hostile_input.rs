//! Names, texts and playbooks meant to do harm: each is a clear error, in bounded time and memory, and changes nothing.

use crate::support::cmd::{Done, run};
use crate::support::product::{Bench, LIMIT, MAIN, Story};
use crate::support::{read, root};
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn a_node_is_exactly_one_plain_name() {
    let b = Bench::faulty();
    let long = "n".repeat(10_000);
    let names = [
        "gpu[001-999]",
        "gpu[001-002]",
        "ALL",
        "all",
        "gpu001,gpu002",
        "gpu001 gpu002",
        "gpu001\n",
        "gpu001\nstate=resume",
        "\u{1b}[31mgpu001",
        "--all",
        "../gpu001",
        "gpu001;reboot",
        "$(reboot)",
        "{{ node.name }}",
        "gpu001\u{2028}",
        "",
        &long,
    ];
    for name in names {
        for verb in [&["run", MAIN, "--yes", "--approved-by", "alice"][..], &["plan", MAIN], &["runs"]] {
            let node = format!("--node={name}");
            let mut args = verb.to_vec();
            args.push(&node);
            let began = Instant::now();
            let done = b.call(&args);
            let shown: String = name.chars().take(40).collect();
            assert_ne!(done.code, 0, "{shown:?}: {done}");
            if verb[0] != "runs" {
                assert_eq!(done.code, 2, "{shown:?}: {done}");
            }
            assert!(
                done.err.contains("error:") && done.err.len() < 2_000,
                "{shown:?}: {} bytes",
                done.err.len()
            );
            assert!(!done.err.contains('\u{1b}'), "{shown:?} reaches the terminal raw: {done}");
            assert!(began.elapsed() < Duration::from_secs(5), "{shown:?}: {:?}", began.elapsed());
        }
        let done = b.call(&["why", "--", name]);
        assert_ne!(done.code, 0, "{done}");
    }
    // none of them reached Slurm at all
    assert_eq!(b.slurm.calls(), [""; 0]);
    assert_eq!(b.gpu.calls(), [""; 0]);
}

#[test]
fn a_node_that_is_not_there_is_an_error() {
    let b = Bench::faulty();
    let done = b.call(&["run", MAIN, "--node", "gpu999", "--gpu", "2", "--yes", "--approved-by", "alice"]);
    assert_eq!(done.code, 2, "{done}");
    assert!(done.err.contains("there is no node gpu999"), "{done}");
    assert_eq!(b.writes(), [""; 0]);
}

#[test]
fn an_alert_id_is_data_wherever_it_goes() {
    let ids = ["{{ params.idle_wait }} {% for i in range(9) %}x{% endfor %}", "x' reason=\"y\" state=resume"];
    for id in ids {
        let b = Bench::faulty();
        b.gpu.rule("nvidia-smi", "--gpu-reset *", "1", "barrier reset");
        let args = [
            "run",
            MAIN,
            "--node",
            b.node(),
            "--yes",
            "--approved-by",
            "alice",
            "--format",
            "json",
            "--alert-id",
            id,
        ];
        let engine = crate::support::cmd::Running::start(&mut b.medic(&args));
        b.gpu.await_barrier("reset");
        let reason = b.reason();
        assert!(b.lab.state(b.node()).starts_with("IDLE+DRAIN"), "{}", b.lab.state(b.node()));
        let flat: String =
            id.chars().map(|c| if c.is_ascii_graphic() && !"'\"`\\".contains(c) { c } else { ' ' }).collect();
        let flat = flat.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = reason.split_once("] ").map_or("", |(_, t)| t);
        let text = text.split(" [").next().unwrap_or_default();
        assert_eq!(text, format!("DCGM ECC alert {flat}"), "{reason}");
        b.gpu.open_barrier("reset");
        let story = Story::of(engine.finish(LIMIT));
        story.ended("succeeded", 0);
        b.agrees(&story);
        let shown = b.call(&["show", &story.run(), "--facts"]).ok();
        assert!(!shown.contains('\u{1b}'), "{shown}");
        assert!(!shown.lines().any(|l| l.trim_start().starts_with("state=resume")), "{shown}");
    }
    let b = Bench::faulty();
    let long = "x".repeat(10_000);
    let done =
        b.call(&["run", MAIN, "--node", b.node(), "--alert-id", &long, "--yes", "--approved-by", "alice"]);
    assert_eq!(done.code, 2, "{done}");
    assert_eq!(b.writes(), [""; 0]);
}

#[test]
fn names_of_people_gpus_and_parameters_are_checked() {
    let b = Bench::faulty();
    let long = "9".repeat(10_000);
    let with = |more: &[&str]| {
        let mut args = vec!["run", MAIN, "--node", b.node(), "--yes"];
        if !more.contains(&"--approved-by") {
            args.extend(["--approved-by", "alice"]);
        }
        args.extend(more);
        let done = b.call(&args);
        assert!(done.err.contains("error:") || done.code == 10, "{done}");
        assert!(done.err.len() < 3_000, "{} bytes of error", done.err.len());
        done.code
    };
    assert_eq!(with(&["--approved-by", "alice\nbob"]), 2);
    assert_eq!(with(&["--approved-by", ""]), 2);
    assert_eq!(with(&["--gpu", "99"]), 10);
    assert_eq!(with(&["--gpu", "2,3"]), 10);
    assert_eq!(with(&["--gpu", &long]), 10);
    assert_eq!(with(&["--param", "idle_wait"]), 2);
    assert_eq!(with(&["--param", "idle_wait=soon"]), 2);
    assert_eq!(with(&["--param", "idle_wait=1s"]), 2);
    assert_eq!(with(&["--param", "idle_wait=999h"]), 2);
    assert_eq!(with(&["--param", &format!("idle_wait={long}h")]), 2);
    assert_eq!(with(&["--param", "idle_wiat=5m"]), 2);
    assert_eq!(with(&["--param", "idle_wait=5m", "--param", "idle_wait=6m"]), 2);
    assert_eq!(b.writes(), [""; 0]);
}

#[test]
fn a_persons_reason_cannot_break_what_is_shown() {
    let b = Bench::faulty();
    let target = format!("nodename={}", b.node());
    let words = "it's \"bad\" \u{1b}[31mred State=IDLE Reason=none\tand {{ node.name }}";
    b.lab.scontrol(&["update", &target, "state=drain", &format!("reason={words}")]).ok();
    let before = b.reason();
    let story = b.run(MAIN, &[]);
    story.ended("rejected", 10);
    assert_eq!(b.reason(), before);
    for args in
        [&["why", b.node()][..], &["plan", MAIN, "--node", b.node()], &["show", &story.run(), "--facts"]]
    {
        let done = b.call(args);
        assert!(!done.out.contains('\u{1b}') && !done.err.contains('\u{1b}'), "{done}");
    }
    // a reason of two lines makes the output of scontrol ambiguous: whatever is read, nothing is begun
    b.lab.scontrol(&["update", &target, "state=drain", "reason=one\n   State=IDLE Reason=two"]).ok();
    let before = b.reason();
    let done = b.call(&["run", MAIN, "--node", b.node(), "--yes", "--approved-by", "alice"]);
    assert!([1, 10].contains(&done.code), "{done}");
    assert_eq!(b.reason(), before);
    assert_eq!(b.writes(), [""; 0]);
    assert_eq!(b.gpu.resets(), 0);
}

/// Runs `lint` on a text, under a limit of memory and of time.
fn lint(name: &str, text: &[u8]) -> Done {
    let dir = crate::support::scratch("lint");
    let file = dir.path().join(name);
    std::fs::write(&file, text).unwrap();
    let program = env!("CARGO_BIN_EXE_slurmedic");
    // an address space of 2 GiB: what grows without end dies here instead of taking the machine down
    let script = "ulimit -v 2097152; exec \"$@\"";
    let mut c = Command::new("sh");
    c.args(["-c", script, "sh", program, "lint"])
        .arg(&file)
        .env("NO_COLOR", "1")
        .env_remove("SLURMEDIC_CONFIG");
    run(&mut c, Duration::from_secs(20))
}

/// Requires findings with a code, and a bounded answer.
fn found(name: &str, text: &[u8], words: &[&str]) -> Done {
    let began = Instant::now();
    let done = lint(name, text);
    assert_eq!(done.code, 3, "{name}: {done}");
    assert!(began.elapsed() < Duration::from_secs(10), "{name}: {:?}", began.elapsed());
    let said = format!("{}{}", done.out, done.err);
    assert!(said.len() < 200_000, "{name}: {} bytes", said.len());
    let code = said.split(|c: char| !c.is_ascii_alphanumeric()).any(|w| {
        w.len() == 6
            && w[..2].bytes().all(|b| b.is_ascii_uppercase())
            && w[2..].bytes().all(|b| b.is_ascii_digit())
    });
    assert!(code, "{name}: no code: {done}");
    for word in words {
        assert!(said.contains(word), "{name}: no {word:?}: {done}");
    }
    done
}

fn shipped() -> String {
    read(root().join("playbooks").join(MAIN).join("1.3.0.yaml"))
}

#[test]
fn the_shipped_playbook_has_no_findings() {
    let done = lint("1.3.0.yaml", shipped().as_bytes());
    assert!(!format!("{}{}", done.out, done.err).contains("error["), "{done}");
}

#[test]
fn a_playbook_of_a_megabyte_is_refused() {
    found("big.yaml", format!("{}# {}\n", shipped(), "x".repeat(1 << 20)).as_bytes(), &[]);
    let steps: String =
        (0..40_000).map(|i| format!("  - node.collect_evidence: {{ note: n{i} }}\n")).collect();
    found("steps.yaml", format!("{}{steps}", shipped()).as_bytes(), &[]);
}

#[test]
fn brackets_without_end_are_refused() {
    let open = |c: &str, n: usize| c.repeat(n);
    found("flow.yaml", format!("playbook: {}", open("[", 200_000)).as_bytes(), &[]);
    found("maps.yaml", format!("playbook: {}", open("{a: ", 50_000)).as_bytes(), &[]);
    found("both.yaml", format!("steps: {}{}", open("[", 100_000), open("]", 100_000)).as_bytes(), &[]);
    found("dashes.yaml", format!("steps: \n{}x", open("- ", 100_000)).as_bytes(), &[]);
    let deep: String = (0..2_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    found("indent.yaml", deep.as_bytes(), &[]);
    let condition = format!("preconditions:\n  - \"{}true{}\"\n", open("(", 100_000), open(")", 100_000));
    found("paren.yaml", shipped().replace("preconditions:\n", &condition).as_bytes(), &[]);
    let nots = format!("preconditions:\n  - \"{}true\"\n", open("not ", 50_000));
    found("not.yaml", shipped().replace("preconditions:\n", &nots).as_bytes(), &[]);
}

#[test]
fn aliases_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..30 {
        let refs = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    found("bomb.yaml", format!("{bomb}{}", shipped()).as_bytes(), &["anchor"]);
    found("merge.yaml", format!("x: &x {{ owner: me }}\n<<: *x\n{}", shipped()).as_bytes(), &[]);
}

#[test]
fn mistakes_are_named_with_the_word_that_was_meant() {
    let s = shipped();
    let swap = |from: &str, to: &str| {
        assert!(s.contains(from), "the shipped playbook has no {from:?}");
        s.replacen(from, to, 1)
    };
    found("dup.yaml", format!("{s}owner: somebody\n").as_bytes(), &["owner"]);
    found("action.yaml", swap("- slurm.wait_idle:", "- slurm.wait_idel:").as_bytes(), &["slurm.wait_idle"]);
    found("enum.yaml", swap("[IDLE, MIXED", "[IDEL, MIXED").as_bytes(), &["IDEL", "IDLE"]);
    found(
        "fact.yaml",
        swap("gpu.row_remap_failure == false", "gpu.row_remap_falure == false").as_bytes(),
        &["gpu.row_remap_failure"],
    );
    found("type.yaml", swap("gpu.row_remap_failure == false", "gpu.row_remap_failure == 3").as_bytes(), &[]);
    found("key.yaml", swap("owner:", "ownr:").as_bytes(), &["owner"]);
    found("seq.yaml", swap("owner: gpu-oncall", "owner: [gpu-oncall]").as_bytes(), &["owner"]);
    found("time.yaml", swap("timeout: 5m", "timeout: soon").as_bytes(), &[]);
    found("approval.yaml", swap("approval: hitl", "approval: nobody").as_bytes(), &[]);
    found("unverified.yaml", swap("  - health.verify_gpu: { timeout: 300s }\n", "").as_bytes(), &[]);
    // several at once are all told, with their places
    let two = swap("- slurm.wait_idle:", "- slurm.wait_idel:").replace("approval: hitl", "approval: nobody");
    let done = found("two.yaml", two.as_bytes(), &["slurm.wait_idle", "nobody"]);
    assert!(format!("{}{}", done.out, done.err).contains("two.yaml"), "{done}");
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    found("nul.yaml", b"playbook: a\0b\n", &[]);
    found("bytes.yaml", &[0xff, 0xfe, 0x00, 0x01, 0x80, 0x81], &[]);
    found("empty.yaml", b"", &[]);
    found("list.yaml", b"- 1\n- 2\n", &[]);
    found("tag.yaml", b"!!python/object/apply:os.system ['true']\n", &[]);
    found("docs.yaml", format!("{}\n---\n{}", shipped(), shipped()).as_bytes(), &[]);
}

#[test]
fn a_broken_playbook_of_the_site_is_never_run() {
    let b = Bench::faulty();
    let dir = b.file("playbooks/site-broken");
    std::fs::create_dir_all(&dir).unwrap();
    let text = shipped().replace(MAIN, "site-broken").replace("slurm.wait_idle", "slurm.wait_idel");
    std::fs::write(dir.join("1.3.0.yaml"), text).unwrap();
    let done = b.call(&["run", "site-broken", "--node", b.node(), "--yes", "--approved-by", "alice"]);
    assert_eq!(done.code, 2, "{done}");
    assert!(done.err.contains("lint"), "{done}");
    // a version that ran is never another text later
    let story = b.run(crate::support::product::IMPATIENT, &["--param", "idle_wait=10s"]);
    story.ended("succeeded", 0);
    let file = b.file("playbooks").join(crate::support::product::IMPATIENT).join("1.3.0.yaml");
    std::fs::write(&file, read(&file) + "# the same steps, other bytes\n").unwrap();
    b.gpu.set(&["fault", "ecc-dbe", "3"]);
    let writes = b.writes().len();
    let done = b.call(&[
        "run",
        crate::support::product::IMPATIENT,
        "--node",
        b.node(),
        "--gpu",
        "3",
        "--yes",
        "--approved-by",
        "alice",
    ]);
    assert_ne!(done.code, 0, "{done}");
    assert!(done.err.contains("a released version never changes"), "{done}");
    assert_eq!(b.writes().len(), writes, "{done}");
    assert_eq!(b.gpu.resets(), 1);
}
