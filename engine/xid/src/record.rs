//! Records of `/dev/kmsg`, one for each read: `6,1234,5678901,-;text`, then lines with a space before them.

/// One record of the kernel's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number; within a boot each record has a higher one than the record before it.
    pub number: u64,
    /// Microseconds since the boot.
    pub age_us: u64,
    /// Its first line, where it is the kernel's own: programs may write there too, but not as facility 0.
    pub text: Option<&'a str>,
}

/// Reads one record; nothing where it is none.
pub fn record(text: &str) -> Option<Record<'_>> {
    let (front, text) = text.split_once(';')?;
    let mut fields = front.split(',');
    let priority: u64 = fields.next()?.parse().ok()?;
    let number = fields.next()?.parse().ok()?;
    let age_us = fields.next()?.parse().ok()?;
    let kernel = priority >> 3 == 0;
    Some(Record { number, age_us, text: kernel.then(|| text.lines().next().unwrap_or_default()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_programs_are_not_the_kernel() {
        let read = record("4,12,345,-;NVRM: Xid (x): 79\n KEY=v\n").unwrap();
        assert_eq!(read, Record { number: 12, age_us: 345, text: Some("NVRM: Xid (x): 79") });
        assert_eq!(record("12,13,345,-;NVRM: Xid (x): 79\n").unwrap().text, None);
        assert_eq!(record("6,14,345,c,caller=T1;").unwrap().text, Some(""));
        for odd in ["rubbish", "6,1;", "a,1,2,-;x", "6,-1,2,-;x", ";", ""] {
            assert_eq!(record(odd), None, "{odd:?}");
        }
    }
}
