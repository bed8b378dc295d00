//! Writes: the argument vectors of `scontrol`, and what its answer means.
//!
//! Each call names exactly one node or one reservation. Only an answer in the very words that a controller or the
//! client itself uses to say no is a refusal; what nobody here has seen is ambiguous, and is read back.

use super::answer::shorten;
use super::config::is_plain_word;
use crate::process::{Finished, RunError};
use engine_core::model::NodeName;
use engine_runtime::ports::{LockReservation, Refusal, RefusalKind, Write};

/// The longest reason, in bytes: slurmctld keeps about 1,500.
const MAX_REASON: usize = 1000;

/// One write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Drain,
    Resume,
    CreateLock,
    DeleteReservation,
}

pub(crate) fn drain_args(node: &NodeName, reason: &str) -> Result<Vec<String>, Refusal> {
    check_reason(reason)?;
    Ok(vec!["update".into(), format!("nodename={node}"), "state=drain".into(), format!("reason={reason}")])
}

pub(crate) fn resume_args(node: &NodeName) -> Vec<String> {
    vec!["update".into(), format!("nodename={node}"), "state=resume".into()]
}

/// The times are read by scontrol in its zone, which is UTC.
pub(crate) fn lock_args(lock: &LockReservation, user: &str) -> Result<Vec<String>, Refusal> {
    check_name(&lock.name)?;
    if lock.end.subsec_nanosecond() != 0 {
        return Err(not_sent(format!("the end of reservation {} is not a whole second", lock.name)));
    }
    Ok(vec![
        "create".into(),
        "reservation".into(),
        format!("reservationname={}", lock.name),
        "starttime=now".into(),
        format!("endtime={}", lock.end.strftime("%Y-%m-%dT%H:%M:%S")),
        "flags=maint,ignore_jobs".into(),
        format!("nodes={}", lock.node),
        format!("user={user}"),
    ])
}

pub(crate) fn delete_args(name: &str) -> Result<Vec<String>, Refusal> {
    check_name(name)?;
    Ok(vec!["delete".into(), format!("reservationname={name}")])
}

/// scontrol strips a quote at either end of a reason, and a line end in one breaks text output.
fn check_reason(reason: &str) -> Result<(), Refusal> {
    let plain = reason.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    let ends_well = reason.trim() == reason && !reason.starts_with('"') && !reason.ends_with('"');
    if reason.is_empty() || reason.len() > MAX_REASON || !plain || !ends_well {
        let shown = shorten(&format!("{reason:?}"), 80);
        let problem = format!(
            "the reason {shown} is not one line of 1 to {MAX_REASON} plain ASCII characters without outer blanks or quotes"
        );
        return Err(not_sent(problem));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if is_plain_word(name) && name.len() <= 200 {
        return Ok(());
    }
    Err(not_sent(format!("{} is not the name of one reservation", shorten(&format!("{name:?}"), 80))))
}

/// A refusal of our own: nothing was sent.
pub(crate) fn not_sent(why: impl std::fmt::Display) -> Refusal {
    Refusal { kind: RefusalKind::Other, text: format!("not sent: {why}") }
}

/// Controller texts (`slurm_strerror`) that say no, from 22.05 to 26.05.
///
/// Each is the whole text behind the name of the call. Texts about time-outs and broken connections are not here on
/// purpose: after those the change may have been applied, or may still be.
const REFUSALS: &[(&str, RefusalKind)] = &[
    ("Invalid user id", RefusalKind::NotPermitted),
    ("Access/permission denied", RefusalKind::NotPermitted),
    ("Permission denied", RefusalKind::NotPermitted),
    ("Invalid node name specified", RefusalKind::NotFound),
    ("Requested reservation is invalid", RefusalKind::NotFound),
    ("Invalid node state specified", RefusalKind::InvalidState),
    // Since 25.11.
    ("Invalid node state transition", RefusalKind::InvalidState),
    ("Duplicate reservation name", RefusalKind::AlreadyExists),
    ("Requested reservation is in use", RefusalKind::Other),
    ("Requested reservation overlaps with another reservation", RefusalKind::Other),
    ("Access denied to requested reservation", RefusalKind::NotPermitted),
    ("Reservation request lacks users, groups or accounts", RefusalKind::Other),
    ("Requested nodes are busy", RefusalKind::Other),
    ("Requested operation is presently disabled", RefusalKind::Other),
    ("Invalid time specified", RefusalKind::Other),
];

/// First lines by which scontrol itself refuses before it sends anything.
const CLIENT_REFUSALS: &[&str] = &[
    "You must specify a reason when DOWNING or DRAINING a node. Request denied",
    "Invalid input: ",
    "Update of this parameter is not supported: ",
];

/// Names of the calls that stand before a controller text.
const CALLS: &[&str] = &[
    "slurm_update error:",
    "slurm_update_node error:",
    "Error creating the reservation:",
    "delete_reservation ",
];

/// Decides what a write came to.
pub(crate) fn outcome(kind: Kind, lock_name: &str, done: Result<Finished, RunError>) -> Write {
    let done = match done {
        Ok(d) => d,
        Err(e) if e.never_started() => return Write::Refused(not_sent(e)),
        Err(e) => return Write::Ambiguous(e.to_string()),
    };
    let stdout = String::from_utf8_lossy(&done.stdout);
    let stderr = String::from_utf8_lossy(&done.stderr);
    let (out, err) = (stdout.trim(), stderr.trim());
    let said = || {
        let both = [out, err].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(" / ");
        if both.is_empty() { "without a word".to_owned() } else { shorten(&both, 300) }
    };
    if done.truncated || done.left_behind {
        return Write::Ambiguous(format!(
            "scontrol ended with {}, and its output is not whole: {}",
            done.exit,
            said()
        ));
    }
    if done.exit.success() {
        let silent = out.is_empty() && err.is_empty();
        let as_due = match kind {
            Kind::Drain | Kind::Resume | Kind::DeleteReservation => silent,
            Kind::CreateLock => err.is_empty() && out == format!("Reservation created: {lock_name}"),
        };
        return if as_due {
            Write::Accepted
        } else {
            Write::Ambiguous(format!("scontrol ended with exit code 0, but not as it should: {}", said()))
        };
    }
    match refusal(err) {
        Some(kind) if done.exit == crate::process::Exit::Code(1) && out.is_empty() => {
            Write::Refused(Refusal { kind, text: shorten(err, 400) })
        }
        _ => Write::Ambiguous(format!("scontrol ended with {}: {}", done.exit, said())),
    }
}

/// Recognises a refusal in what scontrol wrote to stderr.
fn refusal(stderr: &str) -> Option<RefusalKind> {
    let mut lines = stderr.lines();
    let first = lines.next()?.trim_end();
    if CLIENT_REFUSALS.iter().any(|r| first.starts_with(r)) {
        return Some(RefusalKind::Other);
    }
    if lines.next().is_some() {
        return None;
    }
    let call = CALLS.iter().find(|c| first.starts_with(**c))?;
    let behind = &first[call.len()..];
    // `delete_reservation reservationname=x: text`: names hold no colon.
    let text = if call.ends_with(':') { behind } else { behind.split_once(": ")?.1 };
    REFUSALS.iter().find(|(t, _)| *t == text.trim()).map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Exit;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    #[expect(clippy::unnecessary_wraps, reason = "the answer of a run")]
    fn done(exit: Exit, out: &str, err: &str) -> Result<Finished, RunError> {
        Ok(Finished {
            exit,
            stdout: out.into(),
            stderr: err.into(),
            truncated: false,
            left_behind: false,
            elapsed: Duration::ZERO,
        })
    }

    fn fixtures() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/slurm")
    }

    /// A capture with its command, exit code and streams.
    fn framed(path: &str) -> (Exit, String, String) {
        let text = std::fs::read_to_string(fixtures().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        let rc = text.lines().find_map(|l| l.strip_prefix("# rc: ")).unwrap().trim().parse().unwrap();
        let (_, streams) = text.split_once("--- stdout\n").unwrap();
        let (out, err) = streams.split_once("--- stderr").unwrap();
        (Exit::Code(rc), out.to_owned(), err.trim_start_matches('\n').to_owned())
    }

    fn refused(kind: Kind, (exit, out, err): (Exit, String, String)) -> Option<RefusalKind> {
        match outcome(kind, "slurmedic-n1", done(exit, &out, &err)) {
            Write::Refused(r) => {
                assert!(!r.text.is_empty());
                Some(r.kind)
            }
            Write::Accepted => panic!("accepted: {err}"),
            Write::Ambiguous(_) => None,
        }
    }

    #[test]
    fn captured_answers_of_newer_releases() {
        use RefusalKind::{AlreadyExists, InvalidState, NotFound, NotPermitted, Other};
        for version in ["23.11.11", "26.05.3"] {
            for (file, kind, want) in [
                ("user-drain", Kind::Drain, Some(NotPermitted)),
                ("unknown-node-update", Kind::Drain, Some(NotFound)),
                ("half-unknown-drain", Kind::Drain, Some(NotFound)),
                ("bad-keyword", Kind::Drain, Some(Other)),
                ("unknown-state", Kind::Drain, Some(Other)),
                ("controller-down-drain", Kind::Drain, None),
                ("resume-idle", Kind::Resume, Some(InvalidState)),
                ("resume-allocated", Kind::Resume, Some(InvalidState)),
                ("resume-completing", Kind::Resume, Some(InvalidState)),
                ("resume-gpu-missing", Kind::Resume, Some(InvalidState)),
                ("reservation-duplicate", Kind::CreateLock, Some(AlreadyExists)),
                ("user-reservation", Kind::CreateLock, Some(NotPermitted)),
                ("unknown-reservation-delete", Kind::DeleteReservation, Some(NotFound)),
                // Reads and other tools: nothing that a write may be taken for.
                ("bad-json-plugin", Kind::Drain, None),
                ("unknown-node-show", Kind::Drain, None),
            ] {
                let got = refused(kind, framed(&format!("{version}/error/{file}.txt")));
                assert_eq!(got, want, "{version} {file}");
            }
        }
    }

    #[test]
    fn captured_answers_of_22_05() {
        use RefusalKind::{AlreadyExists, InvalidState, NotFound, NotPermitted, Other};
        for (file, kind, want) in [
            ("err-permission-update-node", Kind::Drain, Some(NotPermitted)),
            ("err-unknown-node-update", Kind::Drain, Some(NotFound)),
            ("err-partly-unknown-update", Kind::Drain, Some(NotFound)),
            ("err-drain-without-reason", Kind::Drain, Some(Other)),
            ("err-bad-field", Kind::Drain, Some(Other)),
            ("err-bad-state-word", Kind::Drain, Some(Other)),
            ("err-invalid-transition", Kind::Resume, Some(InvalidState)),
            ("err-resume-completing", Kind::Resume, Some(InvalidState)),
            ("err-resume-inval", Kind::Resume, Some(InvalidState)),
            ("err-resv-duplicate", Kind::CreateLock, Some(AlreadyExists)),
            ("err-resv-alice", Kind::CreateLock, Some(NotPermitted)),
            ("err-delete-resv", Kind::DeleteReservation, Some(NotFound)),
            ("err-ctld-down-update", Kind::Drain, None),
            ("err-ctld-hung-update", Kind::Drain, None),
        ] {
            let text = |name: String| std::fs::read_to_string(fixtures().join("22.05.8").join(name)).unwrap();
            let got = refused(
                kind,
                (Exit::Code(1), text(format!("{file}.txt")), text(format!("{file}.txt.stderr"))),
            );
            assert_eq!(got, want, "{file}");
        }
    }

    #[test]
    fn only_the_due_answer_is_a_yes() {
        let ok = |kind, out: &str, err: &str| {
            outcome(kind, "slurmedic-n1", done(Exit::Code(0), out, err)) == Write::Accepted
        };
        assert!(ok(Kind::Drain, "", "") && ok(Kind::Resume, "\n", "") && ok(Kind::DeleteReservation, "", ""));
        assert!(ok(Kind::CreateLock, "Reservation created: slurmedic-n1\n", ""));
        assert!(!ok(Kind::CreateLock, "", ""), "printing nothing with exit code 0 made no lock");
        assert!(!ok(Kind::CreateLock, "Reservation created: slurmedic-n2\n", ""));
        assert!(!ok(Kind::CreateLock, "Reservation created: slurmedic-n1\n", "x"));
        assert!(
            !ok(Kind::Drain, "garbage", "") && !ok(Kind::Resume, "", "slurm_update error: Invalid user id")
        );
    }

    #[test]
    fn what_is_not_understood_is_ambiguous() {
        let amb = |d| matches!(outcome(Kind::Drain, "", d), Write::Ambiguous(_));
        assert!(amb(done(Exit::Signal(9), "", "")));
        assert!(amb(done(Exit::Code(1), "", "")));
        assert!(amb(done(Exit::Code(2), "", "slurm_update error: Invalid user id")));
        assert!(amb(done(Exit::Code(1), "", "slurm_update error: Something of tomorrow")));
        assert!(amb(done(Exit::Code(1), "", "slurm_update error: Invalid user id\nand more")));
        assert!(amb(done(Exit::Code(1), "x", "slurm_update error: Invalid user id")));
        assert!(amb(done(Exit::Code(1), "", "reason: slurm_update error: Invalid user id")));
        for lost in [
            "Unable to contact slurm controller (connect failure)",
            "Unable to contact slurm controller (receive failure)",
            "Socket timed out on send/recv operation",
            "Zero Bytes were transmitted or received",
            "Unexpected message received",
        ] {
            assert!(amb(done(Exit::Code(1), "", &format!("slurm_update error: {lost}"))), "{lost}");
        }
        let program = PathBuf::from("/x");
        assert!(amb(Err(RunError::TimedOut {
            program: program.clone(),
            elapsed: Duration::ZERO,
            stdout: vec![],
            stderr: vec![]
        })));
        assert!(matches!(outcome(Kind::Drain, "", Err(RunError::NotFound { program })), Write::Refused(_)));
    }

    #[test]
    fn arguments_are_single_and_plain() {
        let n = NodeName::new("gpu001").unwrap();
        let hostile = "it's state=resume; $(x) | [1-9] ALL";
        assert_eq!(
            drain_args(&n, hostile).unwrap(),
            ["update", "nodename=gpu001", "state=drain", &format!("reason={hostile}")]
        );
        let long = "x".repeat(MAX_REASON + 1);
        for bad in ["", " ", "a\nb", "a\r", "a\tb", " a", "a ", "\"a", "a\"", "caf\u{e9}", "\0", &long] {
            assert!(drain_args(&n, bad).is_err(), "{bad:?}");
        }
        assert_eq!(resume_args(&n), ["update", "nodename=gpu001", "state=resume"]);
        let end = "2026-11-21T23:11:13Z".parse().unwrap();
        let lock = LockReservation { name: "slurmedic-gpu001".into(), node: n, end };
        assert_eq!(
            lock_args(&lock, "root").unwrap().join(" "),
            "create reservation reservationname=slurmedic-gpu001 starttime=now endtime=2026-11-21T23:11:13 \
             flags=maint,ignore_jobs nodes=gpu001 user=root"
        );
        let odd = LockReservation { end: "2026-11-21T23:11:13.5Z".parse().unwrap(), ..lock };
        assert!(lock_args(&odd, "root").is_err());
        for bad in ["", "a,b", "a b", "a=b", "-a", "a\n", &long] {
            assert!(delete_args(bad).is_err(), "{bad:?}");
        }
    }
}
