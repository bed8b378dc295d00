//! Where a journal may lie: a local file system, a file of ours, nobody else's to write.

use crate::journal::JournalError;
use nix::sys::statfs::{Statfs, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// File systems whose shared memory and locks hold between processes of one host (statfs(2), linux/magic.h), and
/// whether what they hold is gone after a reboot. Any other is refused: WAL corrupts quietly on a network one.
const LOCAL: &[(u64, &str, bool)] = &[
    (0xEF53, "ext4", false),
    (0x5846_5342, "xfs", false),
    (0x9123_683E, "btrfs", false),
    (0x2FC1_2FC1, "zfs", false),
    (0xF2F5_2010, "f2fs", false),
    (0xCA45_1A4E, "bcachefs", false),
    (0x794C_7630, "overlayfs", false),
    (0x3153_464A, "jfs", false),
    (0x5265_4973, "reiserfs", false),
    (0x0102_1994, "tmpfs", true),
    (0x8584_58F6, "ramfs", true),
    (0x7371_7368, "squashfs", false),
    (0x9660, "iso9660", false),
    (0xE0F5_E1E2, "erofs", false),
];

/// File systems that are refused by name, so that the message says what they are.
const FOREIGN: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB"),
    (0x00C3_6400, "CephFS"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x7461_636F, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x2003_0528, "OrangeFS"),
    (0xAAD7_AAEA, "PanFS"),
    (0x786F_4256, "a shared folder of a virtual machine"),
    (0x4D44, "FAT, which has no access rights"),
];

/// A place that was found fit.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The journal file, without symbolic links.
    pub(super) file: PathBuf,
    /// Whether it is there.
    pub(super) exists: bool,
    /// Whether it is gone after a reboot.
    pub(super) volatile: bool,
    /// Whether the file system cannot be written by anybody here.
    pub(super) frozen: bool,
}

impl Place {
    /// Looks at a place without opening the file: closing a database that SQLite has open in this process would
    /// drop SQLite's locks on it.
    pub(super) fn check(path: &Path) -> Result<Self, JournalError> {
        let bad = |why: String| bad_place(path, why);
        let name = path.file_name().ok_or_else(|| bad("it names no file".to_owned()))?;
        let parent = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let dir = fs::canonicalize(parent).map_err(|e| {
            bad(format!(
                "its directory cannot be used ({e}); make it first: mkdir -m 700 -p {}",
                parent.display()
            ))
        })?;
        let mut file = dir.join(name);
        let exists = match fs::symlink_metadata(&file) {
            Ok(_) => {
                file = fs::canonicalize(&file).map_err(|e| bad(format!("it cannot be looked at: {e}")))?;
                true
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
            Err(e) => return Err(bad(format!("it cannot be looked at: {e}"))),
        };
        let dir = file.parent().unwrap_or(&dir);
        // Of the file where there is one: a directory can have another file system mounted on a file in it.
        let probe = if exists { file.as_path() } else { dir };
        let kind = statfs(probe).map_err(|e| bad(format!("its file system cannot be told: {e}")))?;
        let volatile = classify(magic(&kind)).map_err(bad)?;
        let frozen = statvfs(probe)
            .map_err(|e| bad(format!("its file system cannot be told: {e}")))?
            .flags()
            .contains(FsFlags::ST_RDONLY);
        if exists {
            check_file(&file).map_err(bad)?;
        }
        let mode =
            fs::metadata(dir).map_err(|e| bad(format!("its directory cannot be looked at: {e}")))?.mode();
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            return Err(bad(format!(
                "everybody may exchange files in {0}; run: chmod o-w {0}",
                dir.display()
            )));
        }
        Ok(Self { file, exists, volatile, frozen })
    }

    /// Returns the file's path with something behind its name.
    pub(super) fn with_suffix(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(self.file.as_os_str());
        name.push(suffix);
        PathBuf::from(name)
    }
}

fn check_file(file: &Path) -> Result<(), String> {
    let meta = fs::metadata(file).map_err(|e| format!("it cannot be looked at: {e}"))?;
    if !meta.is_file() {
        return Err("it is not a plain file".to_owned());
    }
    if meta.permissions().mode() & 0o002 != 0 {
        return Err(format!("everybody may write to it; run: chmod 600 {}", file.display()));
    }
    if meta.len() == 0 {
        return Err(format!(
            "it is empty, so it is not a journal; if nobody needs it: rm {}",
            file.display()
        ));
    }
    Ok(())
}

/// Returns the magic number of a file system; the kernel gives 32 bits, whatever the C type.
fn magic(fs: &Statfs) -> u64 {
    fs.filesystem_type().0 as u64 & 0xFFFF_FFFF
}

/// Says whether what the file system holds is gone after a reboot, or why it cannot hold a journal.
fn classify(magic: u64) -> Result<bool, String> {
    let advice = "put it on a local disk (ext4, xfs, btrfs, zfs)";
    if let Some((_, _, volatile)) = LOCAL.iter().find(|(m, _, _)| *m == magic) {
        return Ok(*volatile);
    }
    match FOREIGN.iter().find(|(m, _)| *m == magic) {
        Some((_, name)) => {
            Err(format!("the file system is {name}, where its locks or its writes may be lost; {advice}"))
        }
        None => Err(format!("the file system (type {magic:#x}) is not known to be local; {advice}")),
    }
}

/// Builds the error of an unfit place.
pub(super) fn bad_place(path: &Path, why: impl Into<String>) -> JournalError {
    JournalError::BadPlace { path: path.display().to_string(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_file_systems_pass() {
        assert_eq!(classify(0xEF53), Ok(false));
        assert_eq!(classify(0x0102_1994), Ok(true));
        for (m, name) in FOREIGN {
            assert!(classify(*m).unwrap_err().contains(name));
            assert!(LOCAL.iter().all(|(l, _, _)| l != m));
        }
        assert!(classify(0x1234_5678).unwrap_err().contains("0x12345678"));
    }

    #[test]
    fn unfit_places_say_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let why = |p: &Path| Place::check(p).unwrap_err().to_string();
        assert!(why(&dir.path().join("no/journal.db")).contains("mkdir -m 700 -p"));
        assert!(why(dir.path()).contains("not a plain file"));
        let file = dir.path().join("journal.db");
        fs::write(&file, b"").unwrap();
        assert!(why(&file).contains("rm "));
        fs::write(&file, b"x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(why(&file).contains("chmod 600"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Place::check(&file).unwrap().exists);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(why(&file).contains("chmod o-w"));
        assert!(why(Path::new("/proc/version")).contains("0x9fa0"));
    }

    #[test]
    fn a_symbolic_link_leads_to_the_file_itself() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("real.db");
        fs::write(&file, b"x").unwrap();
        let link = dir.path().join("link.db");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(Place::check(&link).unwrap().file, fs::canonicalize(&file).unwrap());
    }
}
