//! Space and inodes left for ordinary users.

use super::Said;
use crate::config::Params;
use crate::finding::Finding;
use nix::sys::statvfs::statvfs;
use std::path::PathBuf;

/// How much must be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Percent(u64),
    Bytes(u64),
}

/// One file system.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    /// Any path on it.
    pub(crate) path: PathBuf,
    free: Left,
    inodes: u64,
}

impl Space {
    /// Reads the settings.
    pub(super) fn read(p: &mut Params) -> Result<Self, String> {
        let path = p.path("path")?.ok_or("check space needs path=")?;
        let free = p.text("free").unwrap_or_else(|| "2%".to_owned());
        let free = left(&free).ok_or_else(|| format!("free={free} is neither 5% nor 10G"))?;
        let inodes = p.text("inodes").unwrap_or_else(|| "2%".to_owned());
        let Some(Left::Percent(inodes)) = left(&inodes) else {
            return Err(format!("inodes={inodes} is no share such as 5%"));
        };
        Ok(Self { path, free, inodes })
    }

    /// Looks.
    pub(super) fn look(&self) -> Said {
        let (shown, subject) = (self.path.display(), self.path.display().to_string());
        let stat = match statvfs(&self.path) {
            Ok(stat) => stat,
            Err(e) => return Said::trouble(format!("statvfs of {shown}: {}", e.desc())),
        };
        let unit = stat.fragment_size();
        let bytes = stat.blocks_available().saturating_mul(unit);
        // Of what ordinary users can have at all, as df counts: the share kept for root is not theirs.
        let used = stat.blocks().saturating_sub(stat.blocks_free());
        let share = percent(stat.blocks_available(), used.saturating_add(stat.blocks_available()));
        let full = match self.free {
            Left::Percent(p) => share.is_some_and(|s| s < p),
            Left::Bytes(b) => bytes < b,
        };
        if full {
            let text = format!("{shown} has {} MiB ({}%) left", bytes >> 20, share.unwrap_or(0));
            return Said::found(Finding::now("disk-full", subject, text));
        }
        // File systems without a table of inodes say 0 of 0.
        let inodes = percent(stat.files_available(), stat.files());
        if let Some(share) = inodes.filter(|s| *s < self.inodes) {
            let text = format!("{shown} has {} inodes ({share}%) left", stat.files_available());
            return Said::found(Finding::now("disk-full", subject, text));
        }
        Said::fine(format!("{}% free", share.unwrap_or(100)))
    }
}

fn percent(part: u64, of: u64) -> Option<u64> {
    (of > 0).then(|| (u128::from(part) * 100 / u128::from(of)) as u64)
}

fn left(text: &str) -> Option<Left> {
    if let Some(number) = text.strip_suffix('%') {
        return number.parse().ok().filter(|n| *n <= 100).map(Left::Percent);
    }
    let (number, shift) = match text.strip_suffix(['K', 'M', 'G', 'T']) {
        Some(n) => (n, 10 * (1 + "KMGT".find(&text[n.len()..]).unwrap_or(0))),
        None => (text, 0),
    };
    let number: u64 = number.parse().ok()?;
    number.checked_mul(1 << shift).map(Left::Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shares_or_bytes() {
        assert_eq!(left("5%"), Some(Left::Percent(5)));
        assert_eq!(left("10G"), Some(Left::Bytes(10 << 30)));
        assert_eq!(left("1T"), Some(Left::Bytes(1 << 40)));
        assert_eq!(left("512"), Some(Left::Bytes(512)));
        for bad in ["", "%", "101%", "5X", "-1", "G", "99999999999T"] {
            assert_eq!(left(bad), None, "{bad:?}");
        }
        assert_eq!(percent(1, 0), None);
        assert_eq!(percent(u64::MAX, u64::MAX), Some(100));
    }

    #[test]
    fn a_limit_that_nothing_meets_is_found() {
        let space = |free| Space { path: PathBuf::from("/"), free, inodes: 0 };
        assert_eq!(space(Left::Bytes(u64::MAX)).look().findings[0].fault, "disk-full");
        assert_eq!(space(Left::Percent(0)).look().findings, []);
    }
}
