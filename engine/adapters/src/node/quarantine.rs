//! Moves a leftover of a user without jobs out of a scratch directory. Nothing is deleted.
//!
//! People can write where this works, so no path is trusted: every part is opened from the one above it without
//! following links, and what was moved is compared with what was checked.

use super::processes::{self, Scene, is_person};
use super::tools::{Tools, Until};
use crate::dcgm::text::one_line;
use engine_core::Known;
use engine_runtime::ports::WorkResult;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Stat, fstat, mkdirat, openat, renameat_with,
    statat,
};
use rustix::io::Errno;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Name of the directory below each scratch directory into which leftovers are moved; its owner empties it.
pub const QUARANTINE: &str = ".slurmedic-quarantine";
/// Most entries that the quarantine may hold.
const MAX_HELD: usize = 1_000;
/// Longest path, in bytes.
const MAX_PATH: usize = 4_096;
/// Most parts of a path below its scratch directory.
const MAX_PARTS: usize = 32;
/// Most bytes of the table of mounts.
const MAX_MOUNTS: u64 = 4 << 20;

/// A path of an order, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    root: PathBuf,
    above: Vec<String>,
    name: String,
}

/// What was checked, open, so that it cannot be exchanged.
struct Found {
    root: OwnedFd,
    parent: OwnedFd,
    name: String,
    what: Stat,
}

/// Why it is not in quarantine.
#[derive(Debug)]
enum NotMoved {
    /// Nothing was moved.
    Stays(String),
    /// Something else was moved, and could not be put back.
    Elsewhere(String),
}

/// Moves the path into quarantine.
pub(super) async fn quarantine(tools: &Tools, order: &str, path: &str, until: Until) -> WorkResult {
    let place = match place(path, &tools.config.scratch) {
        Ok(p) => p,
        Err(why) => return WorkResult::Refused(why),
    };
    let scene = match processes::look(tools, until).await {
        Known::Known(s) => s,
        Known::Unknown(u) => return WorkResult::Refused(format!("what runs on the node is {u}")),
    };
    if until.passed() {
        return WorkResult::Refused("no time is left for the move".to_owned());
    }
    let (config, order) = (tools.config.clone(), order.to_owned());
    let moved = tokio::task::spawn_blocking(move || {
        let found = find(&place, config.first_user_id)?;
        unused(&scene, found.what.st_uid)?;
        not_mounted(&config.proc_root, &place)?;
        Ok::<_, String>(put_away(&found, &place, &order))
    });
    match tokio::time::timeout(until.left(tools.config.read_deadline()), moved).await {
        Ok(Ok(Ok(Ok(to)))) => WorkResult::Quarantined { from: path.to_owned(), to: to.display().to_string() },
        Ok(Ok(Ok(Err(NotMoved::Elsewhere(why))))) => {
            WorkResult::Ambiguous(format!("{}: {why}", one_line(path)))
        }
        Ok(Ok(Ok(Err(NotMoved::Stays(why))) | Err(why))) => {
            WorkResult::Refused(format!("{}: {why}; nothing was moved", one_line(path)))
        }
        Ok(Err(e)) => WorkResult::Ambiguous(format!("the move was lost on its way: {e}")),
        Err(_) => WorkResult::Ambiguous("the file system did not answer in time".to_owned()),
    }
}

/// Takes a path apart; it must lie below a scratch directory and be plain.
fn place(path: &str, scratch: &[PathBuf]) -> Result<Place, String> {
    let shown = one_line(path);
    if scratch.is_empty() {
        return Err("no scratch directory is configured: set node.tools.scratch".to_owned());
    }
    if path.len() > MAX_PATH || path.contains('\0') || !path.starts_with('/') {
        return Err(format!("{shown}: not an absolute path of at most {MAX_PATH} bytes"));
    }
    if path.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("{shown}: empty parts, `.` and `..` are not taken; give the plain path"));
    }
    let below =
        |root: &PathBuf| Path::new(path).strip_prefix(root).ok().map(|rest| (root.clone(), rest.to_owned()));
    let Some((root, rest)) = scratch.iter().filter_map(below).max_by_key(|(root, _)| root.as_os_str().len())
    else {
        return Err(format!("{shown}: not below a directory of node.tools.scratch"));
    };
    let mut above: Vec<String> = rest.to_str().unwrap_or_default().split('/').map(str::to_owned).collect();
    let Some(name) = above.pop().filter(|n| !n.is_empty()) else {
        return Err(format!("{shown}: this is the scratch directory itself"));
    };
    if above.len() >= MAX_PARTS {
        return Err(format!("{shown}: more than {MAX_PARTS} parts"));
    }
    if above.first().unwrap_or(&name) == QUARANTINE {
        return Err(format!("{shown}: this is in quarantine"));
    }
    Ok(Place { root, above, name })
}

fn open_dir(at: &OwnedFd, name: &str) -> Result<OwnedFd, String> {
    openat(at, name, DIRECTORY, Mode::empty()).map_err(|e| match e {
        Errno::LOOP | Errno::NOTDIR => format!("{name:?} is a link or no directory"),
        e => format!("{name:?}: {e}"),
    })
}

/// Flags that open a directory and follow no link to it.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens every part from the scratch directory down, and says what is at the end.
fn find(place: &Place, first_user_id: u32) -> Result<Found, String> {
    let root = openat(CWD, &place.root, DIRECTORY, Mode::empty())
        .map_err(|e| format!("the scratch directory cannot be opened without following links: {e}"))?;
    let device = fstat(&root).map_err(|e| format!("the scratch directory: {e}"))?.st_dev;
    let check = |what: &Stat, name: &str| {
        if what.st_dev != device {
            return Err(format!("{name:?} is on another file system"));
        }
        if !is_person(what.st_uid, first_user_id) {
            return Err(format!("{name:?} belongs to the system's user {}", what.st_uid));
        }
        Ok(())
    };
    let mut parent = root.try_clone().map_err(|e| format!("the scratch directory: {e}"))?;
    for part in &place.above {
        parent = open_dir(&parent, part)?;
        check(&fstat(&parent).map_err(|e| format!("{part:?}: {e}"))?, part)?;
    }
    let what = look(&parent, &place.name)?;
    check(&what, &place.name)?;
    match FileType::from_raw_mode(what.st_mode) {
        FileType::RegularFile | FileType::Directory => {}
        FileType::Symlink => return Err(format!("{:?} is a link", place.name)),
        _ => return Err(format!("{:?} is neither a file nor a directory", place.name)),
    }
    Ok(Found { root, parent, name: place.name.clone(), what })
}

fn look(at: &OwnedFd, name: &str) -> Result<Stat, String> {
    statat(at, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| format!("{name:?}: {e}"))
}

/// Refuses while the owner has anything on the node that could use it.
fn unused(scene: &Scene, owner: u32) -> Result<(), String> {
    match &scene.owners {
        Known::Unknown(u) => return Err(format!("whose the jobs here are is {u}")),
        Known::Known(owners) => {
            if let Some(job) = owners.get(&owner) {
                return Err(format!("its owner {owner} has job {job} on this node"));
            }
        }
    }
    match scene.processes.iter().find(|p| p.uids.contains(&owner)) {
        Some(p) => Err(format!("its owner {owner} runs process {} ({}) on this node", p.pid, p.command)),
        None => Ok(()),
    }
}

/// Refuses what a file system is mounted on, or inside of.
fn not_mounted(proc_root: &Path, place: &Place) -> Result<(), String> {
    use std::io::Read as _;
    let mut text = String::new();
    let table = proc_root.join("self/mountinfo");
    let read = fs::File::open(&table).and_then(|f| f.take(MAX_MOUNTS).read_to_string(&mut text));
    let length = read.map_err(|e| format!("the table of mounts {} cannot be read: {e}", table.display()))?;
    if length == 0 || length as u64 == MAX_MOUNTS {
        return Err(format!("the table of mounts {} is empty or too long", table.display()));
    }
    // The table has real paths; those above the scratch directory may hold links.
    let mut path = fs::canonicalize(&place.root).map_err(|e| format!("the scratch directory: {e}"))?;
    path.extend(&place.above);
    path.push(&place.name);
    for line in text.lines() {
        let Some(mount) = line.split(' ').nth(4) else {
            return Err(format!("the table of mounts {} has an unknown form", table.display()));
        };
        if Path::new(&unescaped(mount)).starts_with(&path) {
            return Err("a file system is mounted on it or inside of it".to_owned());
        }
    }
    Ok(())
}

/// Reads the kernel's form of blanks and backslashes: `\040`.
fn unescaped(text: &str) -> String {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'\\').then(|| text.get(at + 1..at + 4)).flatten();
        match code.and_then(|c| u8::from_str_radix(c, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Opens the quarantine, which is ours alone, on this file system and not full.
fn open_quarantine(found: &Found) -> Result<OwnedFd, String> {
    match mkdirat(&found.root, QUARANTINE, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(format!("the quarantine {QUARANTINE} cannot be made: {e}")),
    }
    let dir = open_dir(&found.root, QUARANTINE).map_err(|e| format!("the quarantine: {e}"))?;
    let what = fstat(&dir).map_err(|e| format!("the quarantine: {e}"))?;
    let ours = rustix::process::geteuid().as_raw();
    if what.st_uid != ours || what.st_mode & 0o077 != 0 {
        return Err(format!("{QUARANTINE} is not ours alone: remove it, it is made anew"));
    }
    if what.st_dev != found.what.st_dev {
        return Err(format!("{QUARANTINE} is on another file system"));
    }
    let entries = Dir::read_from(&dir).map_err(|e| format!("the quarantine: {e}"))?;
    // Two of them are `.` and `..`.
    if entries.take(MAX_HELD + 2).count() >= MAX_HELD + 2 {
        return Err(format!("{QUARANTINE} holds {MAX_HELD} entries: a person must empty it"));
    }
    Ok(dir)
}

/// Renames it into the quarantine under the name of its order, and makes sure that it is what was checked.
fn put_away(found: &Found, place: &Place, order: &str) -> Result<PathBuf, NotMoved> {
    let stays = NotMoved::Stays;
    let dir = open_quarantine(found).map_err(stays)?;
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let order: String = order.chars().take(80).map(plain).collect();
    let base: String = found.name.chars().take(30).collect();
    let name = format!("{order}.{}.{base}", found.what.st_ino);
    let same = |s: &Stat| (s.st_dev, s.st_ino) == (found.what.st_dev, found.what.st_ino);
    if !same(&look(&found.parent, &found.name).map_err(stays)?) {
        return Err(stays("it was exchanged while it was looked at".to_owned()));
    }
    renameat_with(&found.parent, &found.name, &dir, &name, RenameFlags::NOREPLACE).map_err(|e| match e {
        Errno::INVAL | Errno::NOSYS => stays("its file system cannot rename without replacing".to_owned()),
        e => stays(format!("the rename: {e}")),
    })?;
    if !look(&dir, &name).is_ok_and(|s| same(&s)) {
        let back = renameat_with(&dir, &name, &found.parent, &found.name, RenameFlags::NOREPLACE);
        return Err(match back {
            Ok(()) => stays("it was exchanged while it was moved, and was put back".to_owned()),
            Err(e) => NotMoved::Elsewhere(format!(
                "it was exchanged while it was moved; what was moved is {QUARANTINE}/{name}, putting it back: {e}"
            )),
        });
    }
    Ok(place.root.join(QUARANTINE).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    struct Scratch {
        dir: tempfile::TempDir,
        owner: u32,
    }

    impl Scratch {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("scratch")).unwrap();
            fs::create_dir_all(dir.path().join("proc/self")).unwrap();
            let s = Self { dir, owner: 0 };
            s.mounts("/");
            // Root can give files away; anybody else only has files of its own.
            let owner = if rustix::process::geteuid().is_root() {
                4_321
            } else {
                rustix::process::geteuid().as_raw()
            };
            Self { owner, ..s }
        }

        fn mounts(&self, at: &str) {
            let line = format!("36 35 98:0 / {at} rw,noatime shared:1 - ext4 /dev/root rw\n");
            fs::write(self.dir.path().join("proc/self/mountinfo"), line).unwrap();
        }

        fn root(&self) -> PathBuf {
            self.dir.path().join("scratch")
        }

        fn give(&self, path: &Path) {
            std::os::unix::fs::lchown(path, Some(self.owner), None).unwrap();
        }

        fn leftover(&self, name: &str) -> PathBuf {
            let path = self.root().join(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("core.1"), "x").unwrap();
            self.give(&path);
            path
        }

        fn quarantine(&self, path: &Path) -> Result<PathBuf, String> {
            let place = place(path.to_str().unwrap(), &[self.root()])?;
            let found = find(&place, self.owner)?;
            not_mounted(&self.dir.path().join("proc"), &place)?;
            put_away(&found, &place, "run-1/quarantine.1").map_err(|e| match e {
                NotMoved::Stays(why) | NotMoved::Elsewhere(why) => why,
            })
        }

        fn refused(&self, path: &Path, words: &str) {
            let why = self.quarantine(path).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn a_leftover_is_moved_whole_into_a_directory_that_only_we_can_open() {
        let s = Scratch::new();
        let path = s.leftover("nccl dump");
        let to = s.quarantine(&path).unwrap();
        assert!(!path.exists());
        assert_eq!(fs::read_to_string(to.join("core.1")).unwrap(), "x");
        assert_eq!(fs::metadata(&to).unwrap().uid(), s.owner, "nothing of it was changed");
        let mode = fs::metadata(s.root().join(QUARANTINE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        s.refused(&to, "in quarantine");
        s.refused(&path, "No such file");
    }

    #[test]
    fn paths_that_are_not_plain_or_not_below_scratch_are_refused() {
        let s = Scratch::new();
        let r = s.root();
        s.refused(Path::new("/etc/passwd"), "not below");
        s.refused(&r, "scratch directory itself");
        for bad in [
            format!("{}/a/../../x", r.display()),
            format!("{}//a", r.display()),
            format!("{}/./a", r.display()),
        ] {
            assert!(place(&bad, std::slice::from_ref(&r)).unwrap_err().contains("plain"), "{bad}");
        }
        assert!(
            place("a/b", std::slice::from_ref(&r)).is_err()
                && place("/a\0b", std::slice::from_ref(&r)).is_err()
        );
        assert!(
            place(&format!("{}-other/x", r.display()), std::slice::from_ref(&r))
                .unwrap_err()
                .contains("not below")
        );
        assert!(place("/tmp/x", &[]).unwrap_err().contains("node.tools.scratch"));
        let nested = vec![r.clone(), r.join("inner")];
        assert_eq!(place(&format!("{}/inner/x", r.display()), &nested).unwrap().root, r.join("inner"));
    }

    #[test]
    fn links_are_followed_nowhere() {
        let s = Scratch::new();
        let outside = s.dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "x").unwrap();
        symlink(&outside, s.root().join("link")).unwrap();
        s.give(&s.root().join("link"));
        s.refused(&s.root().join("link"), "is a link");
        s.refused(&s.root().join("link/precious"), "is a link or no directory");
        assert!(outside.join("precious").exists());
        // Somebody made the quarantine a link to where they would like our files.
        symlink(&outside, s.root().join(QUARANTINE)).unwrap();
        let path = s.leftover("a");
        s.refused(&path, "the quarantine");
        assert!(path.exists());
    }

    #[test]
    fn the_systems_files_sockets_mounts_and_foreign_quarantines_are_refused() {
        let s = Scratch::new();
        let path = s.leftover("a");
        let found = find(&place(path.to_str().unwrap(), &[s.root()]).unwrap(), s.owner + 1);
        assert!(found.err().unwrap().contains("system's user"));
        let socket = s.root().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        s.give(&socket);
        s.refused(&socket, "neither a file nor a directory");
        s.mounts(&fs::canonicalize(&path).unwrap().join("below").display().to_string());
        s.refused(&path, "is mounted");
        fs::write(s.dir.path().join("proc/self/mountinfo"), "").unwrap();
        s.refused(&path, "table of mounts");
        s.mounts("/with\\040blank");
        fs::create_dir(s.root().join(QUARANTINE)).unwrap();
        fs::set_permissions(s.root().join(QUARANTINE), fs::Permissions::from_mode(0o777)).unwrap();
        s.refused(&path, "not ours alone");
        assert!(path.exists());
        assert_eq!(unescaped("/a\\040b\\134\\"), "/a b\\\\");
    }

    #[test]
    fn a_full_quarantine_is_for_a_person() {
        let s = Scratch::new();
        let path = s.leftover("a");
        let dir = s.root().join(QUARANTINE);
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        for n in 0..MAX_HELD {
            fs::write(dir.join(n.to_string()), "").unwrap();
        }
        s.refused(&path, "must empty it");
        fs::remove_file(dir.join("0")).unwrap();
        assert!(s.quarantine(&path).is_ok());
    }

    #[test]
    fn an_owner_with_a_job_or_a_process_keeps_it() {
        let scene = |owners| Scene { processes: Vec::new(), jobs: BTreeSet::new(), owners };
        assert_eq!(unused(&scene(Known::Known(BTreeMap::new())), 5), Ok(()));
        assert!(
            unused(&scene(Known::Known([(5, "17".to_owned())].into())), 5).unwrap_err().contains("job 17")
        );
        let unknown = Known::unknown(engine_core::Cause::NotReported, "x");
        assert!(unused(&scene(unknown), 5).is_err());
        let here = processes::scan(Path::new("/proc")).into_known().unwrap();
        let us = rustix::process::geteuid().as_raw();
        let s = Scene { processes: here, ..scene(Known::Known(BTreeMap::new())) };
        assert!(unused(&s, us).unwrap_err().contains("runs process"));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_asked_for_lies_below_scratch(path in "/?(tmp|\\.|\\.\\.|/|é|a|\\.slurmedic-quarantine|\\\\04|0){0,12}") {
            if let Ok(p) = place(&path, &[PathBuf::from("/tmp")]) {
                let parts: Vec<&str> = p.above.iter().map(String::as_str).chain([p.name.as_str()]).collect();
                proptest::prop_assert_eq!(format!("/tmp/{}", parts.join("/")), path.clone());
                proptest::prop_assert!(parts.iter().all(|x| !["", ".", ".."].contains(x)) && parts[0] != QUARANTINE);
            }
            proptest::prop_assert!(unescaped(&path).len() <= path.len() * 3);
        }
    }
}
