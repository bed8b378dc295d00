//! Hostlists against what the real `scontrol show hostnames` and `show hostlist` printed.

use engine_core::hostlist::{expand, fold};

const HOSTNAMES: &str = include_str!("../../../fixtures/slurm/hostnames/hostnames.tsv");
const HOSTLIST: &str = include_str!("../../../fixtures/slurm/hostnames/hostlist.tsv");

fn rows(table: &str) -> impl Iterator<Item = (&str, &str)> {
    table.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once('\t'))
}

/// Where Slurm guesses, we refuse.
const STRICTER: &[&str] = &["n[1-3", "n1-3]", "n1,,n2", ",n1", "n1,", "n[5-]"];
/// Slurm's bound on one range is lower than ours.
const WIDER: &[&str] = &["n[1-70000]"];

#[test]
fn expand_gives_what_show_hostnames_gives() {
    let mut compared = 0;
    for (list, names) in rows(HOSTNAMES) {
        let ours = expand(list);
        if STRICTER.contains(&list) || names.starts_with("error\t") && !WIDER.contains(&list) {
            assert!(ours.is_err(), "{list}: {ours:?}");
        } else if !WIDER.contains(&list) {
            assert_eq!(
                ours.as_deref(),
                Ok(&names.split(' ').map(str::to_owned).collect::<Vec<_>>()[..]),
                "{list}"
            );
        }
        compared += 1;
    }
    assert!(compared > 100, "{compared}");
}

#[test]
fn fold_gives_what_show_hostlist_gives() {
    let mut compared = 0;
    for (names, list) in rows(HOSTLIST) {
        let names: Vec<&str> = names.split(',').collect();
        assert_eq!(fold(&names), list, "{names:?}");
        assert_eq!(expand(list).as_deref().ok().map(<[String]>::len), Some(names.len()), "{list}");
        compared += 1;
    }
    assert!(compared > 80, "{compared}");
}

#[test]
fn what_slurm_expands_comes_back_after_folding() {
    for (list, names) in rows(HOSTNAMES).filter(|(l, n)| !n.starts_with("error\t") && !STRICTER.contains(l)) {
        let names: Vec<&str> = names.split(' ').collect();
        let folded = fold(&names);
        assert_eq!(
            expand(&folded).as_deref().ok(),
            Some(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()[..]),
            "{list}"
        );
    }
}
