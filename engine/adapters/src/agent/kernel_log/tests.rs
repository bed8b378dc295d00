use super::*;
use std::collections::VecDeque;
use std::io::Write as _;

const DBE: &str = "NVRM: Xid (PCI:0000:1b:00): 48, pid='<unknown>', name=<unknown>, DBE";
const LOST: &str = "NVRM: GPU 0000:9a:00.0: GPU has fallen off the bus.";

fn now() -> Timestamp {
    "2026-03-04T05:06:07Z".parse().unwrap()
}

fn minute(n: i64) -> Timestamp {
    now() + SignedDuration::from_mins(n)
}

/// The record of a line that was written 100 s after the boot.
fn record(number: u64, text: &str) -> String {
    format!("4,{number},100000000,-;{text}\n SUBSYSTEM=pci\n")
}

struct Bench {
    dir: tempfile::TempDir,
    boot: &'static str,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap(), boot: "b00710000001" };
        std::fs::create_dir(bench.dir.path().join("state")).unwrap();
        bench
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("kmsg")
    }

    /// A FIFO with a writer that stays, as a device is always open.
    fn fifo(&self) -> File {
        nix::unistd::mkfifo(&self.log(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        File::options().read(true).write(true).open(self.log()).unwrap()
    }

    fn start(&self) -> KernelLog {
        let node = NodeName::new("gpu003").unwrap();
        KernelLog::new(self.log(), self.dir.path().join("state"), node, self.boot.to_owned())
    }

    /// Takes the reports out of the spool as the agent does: each alert by fault, GPU and whether it came as of now.
    fn told(&self, boot: &str) -> Vec<(String, String, bool)> {
        let later = minute(600);
        let mut out = Vec::new();
        for report in spool::waiting(&KernelLog::spool(&self.dir.path().join("state")), boot, later) {
            for line in String::from_utf8(report.body.clone()).unwrap().lines() {
                let alert: engine_core::incident::Alert = serde_json::from_str(line).unwrap();
                let alert = alert.checked().unwrap();
                assert_eq!((alert.node.as_str(), alert.source.as_str()), ("gpu003", SOURCE));
                out.push((alert.fault, alert.gpu.unwrap_or_default(), alert.seen_at == later));
            }
            spool::done(&report, false);
        }
        out
    }
}

fn ecc(fresh: bool) -> (String, String, bool) {
    ("gpu-ecc-uncorrectable".to_owned(), "00000000:1B:00.0".to_owned(), fresh)
}

fn off_bus() -> (String, String, bool) {
    ("gpu-off-bus".to_owned(), "00000000:9A:00.0".to_owned(), true)
}

#[test]
fn each_record_is_told_once_also_over_a_restart_of_the_agent() {
    let bench = Bench::new();
    let mut writer = bench.fifo();
    writer.write_all(record(7, DBE).as_bytes()).unwrap();
    let mut log = bench.start();
    log.look(now(), minute(-2));
    assert_eq!(bench.told("b0071000"), [ecc(true)]);
    log.look(minute(1), minute(-2));
    assert_eq!(bench.told("b0071000"), []);
    drop(log);
    // A restart reads the device from its oldest record on.
    for (number, text) in [(6, LOST), (7, DBE), (8, LOST)] {
        writer.write_all(record(number, text).as_bytes()).unwrap();
    }
    let mut log = bench.start();
    log.look(minute(2), minute(-2));
    assert_eq!(bench.told("b0071000"), [off_bus()]);
}

#[test]
fn another_boot_begins_anew_and_old_news_keep_their_time() {
    let mut bench = Bench::new();
    let mut writer = bench.fifo();
    writer.write_all(record(900, DBE).as_bytes()).unwrap();
    bench.start().look(now(), minute(-2));
    assert_eq!(bench.told("b0071000"), [ecc(true)]);
    bench.boot = "b00720000002";
    // The numbers are lower again. The first look of this boot comes a day after the record.
    writer.write_all(record(3, DBE).as_bytes()).unwrap();
    bench.start().look(now(), minute(-24 * 60));
    assert_eq!(bench.told("b0072000"), [ecc(false)]);
    // What came while the agent was away is told as of now, however long that was.
    writer.write_all(record(4, LOST).as_bytes()).unwrap();
    bench.start().look(minute(300), minute(-24 * 60));
    assert_eq!(bench.told("b0072000"), [off_bus()]);
}

#[test]
fn what_was_not_left_in_the_spool_is_told_at_the_next_look() {
    let bench = Bench::new();
    let mut writer = bench.fifo();
    let spool = KernelLog::spool(&bench.dir.path().join("state"));
    std::fs::write(&spool, "a file in the place of the directory").unwrap();
    writer.write_all(record(7, DBE).as_bytes()).unwrap();
    let mut log = bench.start();
    log.look(now(), minute(-2));
    assert!(!bench.dir.path().join("state").join(MARK).exists(), "nothing is marked as told");
    std::fs::remove_file(&spool).unwrap();
    log.look(minute(1), minute(-2));
    assert_eq!(bench.told("b0071000"), [ecc(true)]);
}

#[test]
fn records_of_programs_torn_and_endless_lines_are_passed_over() {
    let bench = Bench::new();
    let mut writer = bench.fifo();
    let mut log = bench.start();
    let forged = format!("12,1,5,-;{DBE}\n rubbish\n;;\n4,x,5,-;{DBE}\n");
    let (head, tail) = (&record(3, DBE)[..20], &record(3, DBE)[20..]);
    writer.write_all(forged.as_bytes()).unwrap();
    // A pipe holds so much; each part is read before the next.
    for _ in 0..3 {
        log.look(now(), minute(-2));
        writer.write_all(&vec![b'x'; 60 << 10]).unwrap();
    }
    log.look(now(), minute(-2));
    writer.write_all(format!("\n{head}").as_bytes()).unwrap();
    log.look(now(), minute(-2));
    assert_eq!(bench.told("b0071000"), []);
    writer.write_all(tail.as_bytes()).unwrap();
    log.look(now(), minute(-2));
    assert_eq!(bench.told("b0071000"), [ecc(true)]);
}

#[test]
fn a_flood_is_told_in_few_bounded_reports() {
    let bench = Bench::new();
    let mut writer = bench.fifo();
    let mut log = bench.start();
    let mut number = 0;
    let mut reports = 0;
    for second in 0..20 {
        for _ in 0..200 {
            number += 1;
            let line = format!("NVRM: Xid (PCI:{:04x}:1b:00): 48, x", number % 500);
            writer.write_all(record(number, &line).as_bytes()).unwrap();
        }
        log.look(now() + SignedDuration::from_secs(second), minute(-2));
        let told = bench.told("b0071000");
        assert!(told.len() <= MAX_FOUND + 1, "{}", told.len());
        reports += usize::from(!told.is_empty());
    }
    assert_eq!(reports, 4, "one each five seconds");
    // Applications are not told at all.
    number += 1;
    let line = "NVRM: Xid (PCI:0000:1b:00): 31, pid=7, MMU Fault";
    writer.write_all(record(number, line).as_bytes()).unwrap();
    log.look(minute(1), minute(-2));
    bench.told("b0071000");
    number += 1;
    writer.write_all(record(number, line).as_bytes()).unwrap();
    log.look(minute(2), minute(-2));
    assert_eq!(bench.told("b0071000"), []);
}

/// A device whose oldest records were overwritten says so once, and goes on with the oldest that is left.
struct Device(VecDeque<Result<String, i32>>);

impl Read for Device {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        match self.0.pop_front() {
            Some(Ok(text)) => {
                to[..text.len()].copy_from_slice(text.as_bytes());
                Ok(text.len())
            }
            Some(Err(code)) => Err(std::io::Error::from_raw_os_error(code)),
            None => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

#[test]
fn an_overrun_goes_on_and_is_counted() {
    let (pipe, again) = (rustix::io::Errno::PIPE.raw_os_error(), rustix::io::Errno::INTR.raw_os_error());
    let all = [Ok(record(1, "Linux")), Err(pipe), Err(again), Ok(record(11, DBE)), Ok(record(14, LOST))];
    let mut records = Records::new(Device(all.into()), None);
    let mut findings = Findings::default();
    records.look(now(), &mut findings).unwrap();
    // Only the gap that the device told of is a loss.
    assert_eq!((findings.found.len(), findings.lost, records.last), (2, 9, Some(14)));
    let mut after = Records::new(Device([Ok(record(20, "x"))].into()), Some(14));
    let mut findings = Findings::default();
    after.look(now(), &mut findings).unwrap();
    assert_eq!(findings.lost, 5, "overwritten while the agent was away");
    let broken = rustix::io::Errno::IO.raw_os_error();
    let mut broken = Records::new(Device([Err(broken)].into()), None);
    assert!(broken.look(now(), &mut Findings::default()).is_err());
}

#[test]
fn a_log_that_cannot_be_read_is_told_once_and_when_it_is_back() {
    let bench = Bench::new();
    let mut log = bench.start();
    let unread = |n: i64| (UNREAD.to_owned(), String::new(), n > 0);
    for minutes in 0..3 {
        log.look(minute(minutes), minute(-2));
    }
    assert_eq!(bench.told("b0071000"), [unread(0)]);
    std::fs::write(bench.log(), format!("[ 1.0] {DBE}\n[mallory] {LOST}\n[ 2.0] NVRM: Xid (PCI")).unwrap();
    log.look(minute(3), minute(-2));
    let mut told = bench.told("b0071000");
    told.sort();
    assert_eq!(told, [ecc(true), unread(0)]);
    // A plain file: the rest of the torn line, then another file from its beginning.
    let mut file = File::options().append(true).open(bench.log()).unwrap();
    file.write_all(b":0000:9a:00): 79, gone\n").unwrap();
    drop(log);
    let mut log = bench.start();
    log.look(minute(4), minute(-2));
    assert_eq!(bench.told("b0071000"), [off_bus()]);
    std::fs::remove_file(bench.log()).unwrap();
    std::fs::write(bench.log(), format!("[ 1.0] {DBE}\n")).unwrap();
    log.look(minute(5), minute(-2));
    assert_eq!(bench.told("b0071000"), [ecc(true)]);
}
