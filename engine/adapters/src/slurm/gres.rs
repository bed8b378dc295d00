//! Counting GPUs in Slurm's generic-resource and TRES texts.

/// Counts the GPUs of a text such as `gpu:h100:4(S:0-1),nic:2` or `gpu:h100:2(IDX:0,3)`.
///
/// No text, `(null)` and `N/A` count as 0. `None` means that the text is not understood.
pub fn gpus_in_gres(text: &str) -> Option<u32> {
    if matches!(text, "" | "(null)" | "N/A") {
        return Some(0);
    }
    let mut sum = 0u32;
    let mut rest = Some(text);
    while let Some(entries) = rest {
        let (entry, next) = first_entry(entries);
        rest = next;
        sum = sum.checked_add(gpus_in_entry(entry)?)?;
    }
    Some(sum)
}

/// Counts one entry without its parentheses; entries of other kinds count 0.
fn gpus_in_entry(entry: &str) -> Option<u32> {
    let (name, detail) = cut(entry, b':');
    if name.is_empty() {
        return None;
    }
    if name.strip_prefix("gres/").unwrap_or(name) != "gpu" {
        return Some(0);
    }
    // `gpu` and `gpu:h100` mean one; a type may start with a digit, as the MIG profile `1g.10gb` does.
    let Some(detail) = detail else { return Some(1) };
    let (first, count) = cut(detail, b':');
    match count {
        Some(count) if !first.is_empty() => parse_count(count),
        Some(_) => None,
        None if first.is_empty() => None,
        None if first.bytes().all(|b| b.is_ascii_digit()) => parse_count(first),
        None => Some(parse_count(first).unwrap_or(1)),
    }
}

/// Splits at the first comma outside parentheses, and cuts the parentheses off the entry.
fn first_entry(text: &str) -> (&str, Option<&str>) {
    let mut depth = 0usize;
    let mut end = None;
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'(' => {
                depth += 1;
                end = end.or(Some(i));
            }
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => return (&text[..end.unwrap_or(i)], Some(&text[i + 1..])),
            _ => {}
        }
    }
    (&text[..end.unwrap_or(text.len())], None)
}

/// Splits at the first such byte. For these short texts quicker than the search of the standard library.
pub(crate) fn cut(text: &str, byte: u8) -> (&str, Option<&str>) {
    match text.bytes().position(|b| b == byte) {
        Some(i) => (&text[..i], Some(&text[i + 1..])),
        None => (text, None),
    }
}

/// Finds the number of GPUs in a TRES text such as `cpu=8,mem=4000M,gres/gpu=4,gres/gpu:h100=4`.
///
/// `None` means that the text does not count GPUs, which is not the same as 0.
pub fn gpus_in_tres(text: &str) -> Option<u32> {
    let mut rest = Some(text);
    while let Some(entries) = rest {
        let (entry, next) = cut(entries, b',');
        if let Some(count) = entry.strip_prefix("gres/gpu=") {
            return parse_count(count);
        }
        rest = next;
    }
    None
}

fn parse_count(text: &str) -> Option<u32> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1024),
        b'm' | b'M' => (&text[..text.len() - 1], 1024 * 1024),
        _ => (text, 1),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u32>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gres() {
        for (text, want) in [
            ("", Some(0)),
            ("(null)", Some(0)),
            ("N/A", Some(0)),
            ("gpu:h100:8", Some(8)),
            ("gpu:4", Some(4)),
            ("gpu", Some(1)),
            ("gpu:h100", Some(1)),
            ("gpu:1g.10gb", Some(1)),
            ("gpu:1g.10gb:7", Some(7)),
            ("gpu:h100:4(IDX:0-3)", Some(4)),
            ("gpu:h100:3(IDX:0,2-3),gpu:t4:1(IDX:4)", Some(4)),
            ("gpu:h100:0(IDX:N/A)", Some(0)),
            ("gpu:h100:4(S:0,1),nic:2", Some(4)),
            ("nic:2", Some(0)),
            ("gres/gpu:h100:4", Some(4)),
            ("gpu:1K", Some(1024)),
            ("gpu:a:b", None),
            ("gpu:", None),
            (":4", None),
            ("gpu:4294967295,gpu:1", None),
            ("gpu:99999999999", None),
        ] {
            assert_eq!(gpus_in_gres(text), want, "{text}");
        }
    }

    #[test]
    fn tres() {
        assert_eq!(gpus_in_tres("cpu=8,mem=16000M,gres/gpu=4,gres/gpu:h100=4"), Some(4));
        assert_eq!(gpus_in_tres("cpu=8,mem=16000M,billing=8"), None);
        assert_eq!(gpus_in_tres("gres/gpu=x"), None);
    }
}
