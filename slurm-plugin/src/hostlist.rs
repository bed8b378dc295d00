//! Slurm's host lists, `gpu[001-003,7],login1`, into names. Bounded.

/// Writes out a list. Nothing where it is not well formed or has more names than allowed.
pub(crate) fn expand(text: &str, max: usize) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in text.char_indices().chain([(text.len(), ',')]) {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 => {
                part(&text[start..at], max, &mut out)?;
                start = at + 1;
            }
            _ => {}
        }
        if !(0..=1).contains(&depth) {
            return None;
        }
    }
    (depth == 0).then_some(out)
}

/// One name with at most one bracket in it.
fn part(text: &str, max: usize, out: &mut Vec<String>) -> Option<()> {
    if text.is_empty() {
        return None;
    }
    let Some((front, rest)) = text.split_once('[') else {
        return push(text.to_owned(), max, out);
    };
    let (ranges, back) = rest.split_once(']')?;
    if back.contains(['[', ']']) {
        return None;
    }
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if first.is_empty() || !first.bytes().chain(last.bytes()).all(|b| b.is_ascii_digit()) {
            return None;
        }
        let width = first.len();
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        if last < first || last - first >= max as u64 {
            return None;
        }
        for n in first..=last {
            push(format!("{front}{n:0width$}{back}"), max, out)?;
        }
    }
    Some(())
}

fn push(name: String, max: usize, out: &mut Vec<String>) -> Option<()> {
    if out.len() >= max {
        return None;
    }
    out.push(name);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_written_out() {
        let names = |t| expand(t, 100).unwrap().join(" ");
        assert_eq!(names("gpu001"), "gpu001");
        assert_eq!(names("gpu[001-003,10],login1"), "gpu001 gpu002 gpu003 gpu10 login1");
        assert_eq!(names("/dev/nvidia[0-2]"), "/dev/nvidia0 /dev/nvidia1 /dev/nvidia2");
        assert_eq!(names("r[1-2]n,x"), "r1n r2n x");
    }

    #[test]
    fn what_is_no_list_or_too_long_is_refused() {
        for bad in
            ["", ",", "a,", "a[", "a]", "a[1-", "a[1-2", "a[2-1]", "a[x]", "a[[1]]", "a[1]b[2]", "a[-1]"]
        {
            assert_eq!(expand(bad, 100), None, "{bad:?}");
        }
        assert_eq!(expand("n[1-101]", 100), None);
        assert_eq!(expand("n[0-18446744073709551615]", 100), None);
        assert_eq!(expand("n[1-60],m[1-60]", 100), None);
    }

    proptest::proptest! {
        /// Any text is expanded within the bound, or not at all.
        #[test]
        fn any_text_stays_within_the_bound(text in "([a-z]{1,3}|[0-9]{1,3}|\\[|\\]|-|,){0,24}") {
            if let Some(names) = expand(&text, 50) {
                proptest::prop_assert!(names.len() <= 50);
                proptest::prop_assert!(names.iter().all(|n| !n.contains(['[', ']', ','])));
            }
        }
    }
}
