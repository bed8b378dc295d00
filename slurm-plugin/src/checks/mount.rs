//! Is it mounted, does it answer, may it be written to?

use super::Said;
use crate::config::Params;
use crate::finding::Finding;
use nix::sys::statvfs::{FsFlags, statvfs};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// One mount point.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    /// Where it is mounted.
    pub(crate) path: PathBuf,
    /// A file below it of which one byte is read: an answer to statfs may come from a cache.
    read: Option<PathBuf>,
    /// Whether it must be writable.
    writable: bool,
}

impl Mount {
    /// Reads the settings.
    pub(super) fn read(p: &mut Params) -> Result<Self, String> {
        let path = p.path("path")?.ok_or("check mount needs path=")?;
        let writable = match p.text("options").as_deref() {
            None => false,
            Some("rw") => true,
            Some(other) => return Err(format!("options={other} is not rw")),
        };
        Ok(Self { path, read: p.path("read")?, writable })
    }

    /// Looks. The table of mounts comes first: it is the kernel's own and never waits.
    pub(super) fn look(&self) -> Said {
        let (shown, subject) = (self.path.display(), self.path.display().to_string());
        match mounted_type(&self.path) {
            Err(e) => return Said::trouble(format!("/proc/self/mountinfo: {e}")),
            Ok(None) => {
                return Said::found(Finding::now(
                    "mount-missing",
                    subject,
                    format!("{shown} is not mounted"),
                ));
            }
            Ok(Some(_)) => {}
        }
        let stat = match statvfs(&self.path) {
            Ok(stat) => stat,
            Err(e) => {
                let text = format!("{shown} is mounted but does not answer: {}", e.desc());
                return Said::found(Finding::now("mount-missing", subject, text));
            }
        };
        if self.writable && stat.flags().contains(FsFlags::ST_RDONLY) {
            let text = format!("{shown} is mounted read-only and should be writable");
            return Said::found(Finding::now("fs-read-only", subject, text));
        }
        if let Some(file) = &self.read {
            let read = std::fs::File::open(file).and_then(|mut f| f.read(&mut [0]));
            if let Err(e) = read {
                let text = format!("{} cannot be read: {e}", file.display());
                return Said::found(Finding::now("mount-missing", subject, text));
            }
        }
        Said::fine("answers")
    }
}

/// The type of the file system that is mounted exactly there; nothing where none is.
fn mounted_type(path: &Path) -> std::io::Result<Option<String>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(type_in(&table, &path.display().to_string()))
}

fn type_in(table: &str, path: &str) -> Option<String> {
    let wanted = match path.trim_end_matches('/') {
        "" => "/",
        p => p,
    };
    // The last line counts: a later mount lies over an earlier one.
    table.lines().rev().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let point = front.split(' ').nth(4)?;
        (unescape(point) == wanted).then(|| back.split(' ').next().unwrap_or("?").to_owned())
    })
}

/// mountinfo writes blank, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|d| u8::from_str_radix(d, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

/// A path that did not answer in time. The table says what kind of storage it hangs on.
pub(super) fn hang(path: &Path) -> Finding {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let kind = path.ancestors().find_map(|p| type_in(&table, &p.display().to_string()));
    let fault = match kind.as_deref() {
        Some("nfs" | "nfs4") => "nfs-hang",
        Some("lustre") => "lustre-hang",
        _ => "mount-hang",
    };
    let kind = kind.unwrap_or_else(|| "unknown type".to_owned());
    Finding::now(fault, path.display().to_string(), format!("{} ({kind}) does not answer", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
        30 22 0:40 / /scratch rw shared:2 - nfs4 10.0.0.1:/x rw\n\
        31 22 0:41 / /with\\040blank rw - tmpfs tmpfs rw\n\
        32 30 0:42 / /scratch rw shared:3 - lustre 10.0.0.2@o2ib:/l rw\n";

    #[test]
    fn the_upper_mount_counts_and_names_are_decoded() {
        assert_eq!(type_in(TABLE, "/").as_deref(), Some("ext4"));
        assert_eq!(type_in(TABLE, "/scratch/").as_deref(), Some("lustre"));
        assert_eq!(type_in(TABLE, "/with blank").as_deref(), Some("tmpfs"));
        assert_eq!(type_in(TABLE, "/scratch/below"), None);
        assert_eq!(unescape("a\\134b\\x"), "a\\b\\x");
    }

    #[test]
    fn the_root_is_mounted_and_a_directory_below_is_not() {
        let mount = |path: &str| Mount { path: PathBuf::from(path), read: None, writable: false };
        assert_eq!(mount("/").look().findings, []);
        let said = mount("/no/such/place").look();
        assert_eq!(said.findings[0].fault, "mount-missing");
    }
}
