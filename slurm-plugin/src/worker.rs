//! The half of a check that may hang. It says what it begins before it begins it, so that the other half, which waits for
//! it no longer than allowed, can name what it hangs on.

use crate::checks::{Said, Scene};
use crate::config;
use crate::finding::{Finding, Lasts};
use crate::mode::Mode;
use crate::talk::tame;
use std::cell::RefCell;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Name of the variable with the name of this node.
pub(crate) const NODE: &str = "SLURMEDIC_HOOK_NODE";
/// Between the parts of an order: deadline in milliseconds, cursor, line of the configuration.
const SEPARATOR: char = '\u{1f}';

/// Writes one order for a worker.
pub(crate) fn order(deadline: Duration, cursor: Option<&str>, line: &str) -> String {
    format!("{}{SEPARATOR}{}{SEPARATOR}{line}", deadline.as_millis(), cursor.unwrap_or_default())
}

/// Works off the orders, one after another, and says on stdout how far it is.
pub(crate) fn work(mode: Mode, orders: &[String]) {
    let node = crate::mode::from_env(NODE).unwrap_or_default();
    let scrape = RefCell::new(None);
    for (index, order) in orders.iter().enumerate() {
        if !say(&format!("B\t{index}")) {
            return;
        }
        let began = Instant::now();
        let said = match parse(order) {
            Ok((deadline, cursor, check)) => {
                // A little earlier than the other half gives up, to say what it was that did not answer.
                let end = began + deadline.saturating_sub((deadline / 10).max(Duration::from_millis(5)));
                check.check.look(&Scene { mode, end, cursor, node: node.clone(), scrape: &scrape })
            }
            Err(why) => Said::trouble(why),
        };
        let micros = began.elapsed().as_micros();
        let mut lines: Vec<String> = said.findings.iter().map(|f| format!("F\t{}", encode(f))).collect();
        lines.extend(said.trouble.map(|t| format!("T\t{}", tame(&t))));
        lines.extend(said.cursor.map(|c| format!("C\t{}", tame(&c))));
        lines.push(format!("N\t{}", tame(&said.note)));
        lines.push(format!("E\t{micros}"));
        if !say(&lines.join("\n")) {
            return;
        }
    }
}

fn parse(order: &str) -> Result<(Duration, Option<String>, config::CheckLine), String> {
    let mut parts = order.splitn(3, SEPARATOR);
    let mut part = || parts.next().ok_or("an order is not whole");
    let deadline = part()?.parse().map(Duration::from_millis).map_err(|_| "an order has no deadline")?;
    let cursor = Some(part()?.to_owned()).filter(|c| !c.is_empty());
    Ok((deadline, cursor, config::check_line(part()?)?))
}

fn say(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

/// Writes a finding as one line of fields between tabs; `tame` leaves no tab inside.
pub(crate) fn encode(f: &Finding) -> String {
    let lasts = match f.lasts {
        Lasts::WhileFound => "now",
        Lasts::Happened => "once",
    };
    let at = f.at_ms.map(|at| at.to_string()).unwrap_or_default();
    let gpu = f.gpu.as_deref().unwrap_or_default();
    [lasts, &tame(&f.fault), &tame(&f.subject), &tame(gpu), &at, &tame(&f.text)].join("\t")
}

/// Reads such a line.
pub(crate) fn decode(line: &str) -> Option<Finding> {
    let mut fields = line.splitn(6, '\t');
    let lasts = match fields.next()? {
        "now" => Lasts::WhileFound,
        "once" => Lasts::Happened,
        _ => return None,
    };
    let fault = fields.next()?.to_owned();
    let subject = fields.next()?.to_owned();
    let gpu = Some(fields.next()?.to_owned()).filter(|g| !g.is_empty());
    let at = fields.next()?;
    let at_ms = if at.is_empty() { None } else { Some(at.parse().ok()?) };
    Some(Finding { fault, subject, gpu, lasts, at_ms, text: fields.next()?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_survive_the_way_between_the_halves() {
        let mut finding = Finding::now("ib-port-down", "mlx5_0/1", "port\tis\nDOWN").on_gpu("0");
        finding.at_ms = Some(7);
        let back = decode(&encode(&finding)).unwrap();
        assert_eq!(back, Finding { text: "port is DOWN".to_owned(), ..finding });
        assert_eq!(decode("now\tx"), None);
    }

    #[test]
    fn orders_are_read_back() {
        let text = order(Duration::from_millis(250), Some("ab 12"), "check mount path=/");
        let (deadline, cursor, check) = parse(&text).unwrap();
        assert_eq!((deadline.as_millis(), cursor.as_deref(), &*check.name), (250, Some("ab 12"), "mount:/"));
        assert!(parse("12").is_err());
    }
}
