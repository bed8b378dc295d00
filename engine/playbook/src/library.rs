//! The playbooks at hand: those built into the program, and those of a directory of the site.

use crate::checker::{Proven, Refusal};
use crate::codes;
use crate::release::{LOCK_FILE, Lock};
use crate::source::{MAX_BYTES, SourceText};
use crate::{Loaded, load};
use engine_core::diag::{Diagnostic, Severity, Span, did_you_mean};
use engine_core::playbook::Playbook;
use semver::Version;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most files in one library.
const MAX_FILES: usize = 10_000;

macro_rules! embedded {
    ($($path:literal),* $(,)?) => {
        /// The playbooks built into the program: path below `playbooks/`, content.
        pub const EMBEDDED: &[(&str, &str)] = &[
            $( ($path, include_str!(concat!("../../../playbooks/", $path))) ),*
        ];
    };
}

embedded!["dcgm-ecc-drain-reset/1.2.0.yaml", "dcgm-ecc-drain-reset/1.3.0.yaml"];

const EMBEDDED_LOCK: &str = include_str!("../../../playbooks/released.lock");

/// Where a playbook came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built into the program.
    BuiltIn,
    /// A file.
    File(PathBuf),
}

/// One file of a library.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where it came from.
    pub origin: Origin,
    /// What came of loading it, the library's own checks included.
    pub loaded: Loaded,
    /// Whether the version is released, and so can never change.
    pub released: bool,
}

/// A set of playbooks.
#[derive(Debug, Clone, Default)]
pub struct Library {
    playbooks: BTreeMap<String, BTreeMap<Version, Item>>,
    broken: Vec<Item>,
    proven: Proven,
}

/// A library that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The directory or a file in it cannot be read.
    #[error("cannot read {path}: check that it exists and may be read")]
    Read {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The directory is not one of playbooks.
    #[error("{path} holds more than {MAX_FILES} files: is this the directory of playbooks?")]
    TooMany {
        /// The path.
        path: PathBuf,
    },
}

/// A playbook that is not there, or not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// No playbook has this id.
    #[error("there is no playbook `{id}`{}", hint.as_ref().map(|h| format!("; did you mean `{h}`?")).unwrap_or_default())]
    UnknownId {
        /// The id asked for.
        id: String,
        /// The nearest id.
        hint: Option<String>,
    },
    /// The id has no such version.
    #[error("`{id}` has no version {version}; there are {}", there.join(", "))]
    UnknownVersion {
        /// The id.
        id: String,
        /// The version asked for.
        version: String,
        /// Versions there are.
        there: Vec<String>,
    },
    /// The newest file of this id has errors, so that older ones are not taken for it.
    #[error(
        "`{id}` has a file with errors ({file}): `slurmedic lint` shows them; name a version to use another one"
    )]
    Broken {
        /// The id.
        id: String,
        /// The file.
        file: String,
    },
    /// The checker found a way on which a run of this playbook goes wrong.
    #[error("`{playbook}` is refused by the checker: {why}; `slurmedic lint {file}` shows the way")]
    Refused {
        /// The playbook.
        playbook: String,
        /// Why, in a sentence.
        why: String,
        /// The file.
        file: String,
    },
}

impl Library {
    /// Returns the playbooks built into the program.
    pub fn embedded() -> Self {
        let mut library = Self::default();
        let lock = built_in_lock();
        for (path, text) in EMBEDDED {
            library.add(Origin::BuiltIn, path, path, text.as_bytes(), &lock);
        }
        library
    }

    /// Opens a directory that holds `<id>/<version>.yaml`. Files with errors are part of it, see [`Self::broken`].
    pub fn open(dir: &Path) -> Result<Self, LibraryError> {
        let mut library = Self::default();
        library.read_directory(dir)?;
        Ok(library)
    }

    /// Adds a site's directory to the built-in ones. A version that is built in cannot be another one at the site.
    pub fn with_site(mut self, dir: &Path) -> Result<Self, LibraryError> {
        self.read_directory(dir)?;
        Ok(self)
    }

    fn read_directory(&mut self, dir: &Path) -> Result<(), LibraryError> {
        let lock = self.read_lock(dir)?;
        let mut files = 0;
        for folder in entries(dir)? {
            if !folder.is_dir() || hidden(&folder) {
                continue;
            }
            for file in entries(&folder)? {
                let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default();
                if hidden(&file) || !matches!(extension, "yaml" | "yml") {
                    continue;
                }
                files += 1;
                if files > MAX_FILES {
                    return Err(LibraryError::TooMany { path: dir.to_owned() });
                }
                let inside = file.strip_prefix(dir).unwrap_or(&file).to_string_lossy().into_owned();
                let name = file.to_string_lossy().into_owned();
                // A pipe or a device would be waited for.
                let bytes = if file.is_file() {
                    read_limited(&file)
                } else {
                    Err(std::io::Error::other("it is not an ordinary file"))
                };
                match bytes {
                    Ok(bytes) => self.add(Origin::File(file), &name, &inside, &bytes, &lock),
                    Err(e) => self.broken.push(unreadable(file, &name, &e)),
                }
            }
        }
        Ok(())
    }

    fn read_lock(&mut self, dir: &Path) -> Result<Lock, LibraryError> {
        let path = dir.join(LOCK_FILE);
        if !path.exists() {
            return Ok(Lock::default());
        }
        let name = path.to_string_lossy().into_owned();
        let bytes =
            read_limited(&path).map_err(|source| LibraryError::Read { path: path.clone(), source })?;
        let (source, mut diagnostics) = SourceText::read(&bytes, &name);
        let (lock, more) = Lock::parse(&source);
        diagnostics.extend(more);
        if !diagnostics.is_empty() {
            let loaded = Loaded { playbook: None, diagnostics, source };
            self.broken.push(Item { origin: Origin::File(path), loaded, released: false });
        }
        Ok(lock)
    }

    /// Loads one file as `open` would load it: with the checks of its place and of `released.lock`, where the file
    /// lies in a library (its folder's folder has that list).
    pub fn load_file(path: &Path, bytes: &[u8]) -> Result<Loaded, LibraryError> {
        let name = path.to_string_lossy().into_owned();
        let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let Some(root) = full.parent().and_then(Path::parent).filter(|r| r.join(LOCK_FILE).is_file()) else {
            return Ok(load(bytes, &name));
        };
        let mut library = Self::default();
        let lock = library.read_lock(root)?;
        let inside = full.strip_prefix(root).unwrap_or(&full).to_string_lossy().into_owned();
        library.add(Origin::File(path.to_owned()), &name, &inside, bytes, &lock);
        let item =
            library.playbooks.into_values().flat_map(BTreeMap::into_values).next().or(library.broken.pop());
        Ok(item.map_or_else(|| load(bytes, &name), |i| i.loaded))
    }

    /// Adds one file; `inside` is its path below the library.
    fn add(&mut self, origin: Origin, name: &str, inside: &str, bytes: &[u8], lock: &Lock) {
        let mut loaded = load(bytes, name);
        let mut released = false;
        if let Some(p) = &loaded.playbook {
            let mut problems: Vec<Diagnostic> = Vec::new();
            released = lock.contains(&p.reference.id, &p.reference.version);
            let version_span = field_span(&loaded.source, "version:");
            problems.extend(misplaced(p, inside, field_span(&loaded.source, "playbook:"), version_span));
            problems.extend(lock.check(&p.reference, version_span));
            if let Some(other) = self
                .playbooks
                .get(&p.reference.id)
                .and_then(|v| v.get(&p.reference.version))
                .and_then(Item::playbook)
                && other.reference.digest != p.reference.digest
            {
                problems.push(
                    Diagnostic::error(
                        codes::CHANGED_RELEASE,
                        format!("{} is there already, with other content", p.reference),
                        version_span,
                        "this version exists",
                    )
                    .with_help(format!(
                        "the other one has the digest {}: give this one a new version",
                        other.reference.digest.short()
                    )),
                );
            }
            if problems.iter().any(|d| d.severity == Severity::Error) {
                loaded.playbook = None;
            }
            loaded.diagnostics.extend(problems);
        }
        let item = Item { origin, loaded, released };
        match item.playbook().map(|p| p.reference.clone()) {
            Some(r) => {
                self.playbooks.entry(r.id).or_default().insert(r.version, item);
            }
            None => self.broken.push(item),
        }
    }

    /// Finds `id` (its newest version) or `id@version`.
    pub fn find(&self, spec: &str) -> Result<&Playbook, FindError> {
        let (id, version) = match spec.split_once('@') {
            Some((id, v)) => (id, Some(v)),
            None => (spec, None),
        };
        let broken = self.broken.iter().find(|i| {
            let file = Path::new(&i.loaded.source.file);
            let folder = file.parent().and_then(Path::file_name).and_then(|f| f.to_str());
            let stem = file.file_stem().and_then(|f| f.to_str());
            let newest = self.playbooks.get(id).and_then(|v| v.keys().next_back());
            // Without a version, a broken file only stands in the way where it is or may be the newest.
            let matters = match version {
                Some(v) => stem == Some(v),
                None => {
                    stem.and_then(|s| Version::parse(s).ok()).is_none_or(|s| newest.is_none_or(|n| s >= *n))
                }
            };
            folder == Some(id) && matters
        });
        if let Some(b) = broken {
            return Err(FindError::Broken { id: id.to_owned(), file: b.loaded.source.file.clone() });
        }
        let Some(versions) = self.playbooks.get(id) else {
            let hint = did_you_mean(id, self.playbooks.keys().map(String::as_str)).map(str::to_owned);
            let id = id.chars().take(80).filter(|c| !c.is_control()).collect();
            return Err(FindError::UnknownId { id, hint });
        };
        let item = match version {
            None => {
                // A pre-release is only taken when it is named, or when there is nothing else.
                versions
                    .iter()
                    .rev()
                    .find(|(v, _)| v.pre.is_empty())
                    .or(versions.iter().next_back())
                    .map(|(_, i)| i)
            }
            Some(v) => Version::parse(v).ok().and_then(|v| versions.get(&v)),
        };
        item.and_then(Item::playbook).ok_or_else(|| FindError::UnknownVersion {
            id: id.to_owned(),
            version: version.unwrap_or_default().chars().take(40).filter(|c| !c.is_control()).collect(),
            there: versions.keys().map(ToString::to_string).collect(),
        })
    }

    /// Finds a playbook to be run: as [`Self::find`], and checked in every situation. Those that are built in as they
    /// were released are checked by a test of this crate and not again here.
    pub fn find_for_run(&self, spec: &str) -> Result<&Playbook, FindError> {
        let playbook = self.find(spec)?;
        self.prove(playbook).map_err(|refusal| {
            let (id, version) = (&playbook.reference.id, &playbook.reference.version);
            let item = self.playbooks.get(id).and_then(|v| v.get(version));
            FindError::Refused {
                playbook: playbook.reference.to_string(),
                why: refusal.sentence(),
                file: item.map(|i| i.loaded.source.file.clone()).unwrap_or_default(),
            }
        })?;
        Ok(playbook)
    }

    fn prove(&self, playbook: &Playbook) -> Result<(), Arc<Refusal>> {
        let released = built_in_lock();
        if released.contains(&playbook.reference.id, &playbook.reference.version)
            && released.check(&playbook.reference, Span::default()).is_none()
        {
            return Ok(());
        }
        self.proven.check(playbook)
    }

    /// Counts the playbooks that had to be explored so far: none twice, and none that is built in.
    pub fn explored(&self) -> u64 {
        self.proven.explored()
    }

    /// Checks every playbook, for an engine that chooses among them by itself. Those that are refused become files with
    /// errors.
    #[must_use]
    pub fn proven(&self) -> Self {
        let mut out =
            Self { playbooks: BTreeMap::new(), broken: self.broken.clone(), proven: self.proven.clone() };
        for (id, versions) in &self.playbooks {
            for (version, item) in versions {
                match item.playbook().map(|p| (p, self.prove(p))) {
                    Some((p, Err(refusal))) => {
                        let mut item = item.clone();
                        let found = crate::checker::refused(p, &refusal, &item.loaded.source);
                        item.loaded.diagnostics.push(found);
                        item.loaded.playbook = None;
                        out.broken.push(item);
                    }
                    _ => {
                        out.playbooks.entry(id.clone()).or_default().insert(version.clone(), item.clone());
                    }
                }
            }
        }
        out
    }

    /// Returns every usable playbook, by id and version.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.playbooks.values().flat_map(BTreeMap::values)
    }

    /// Returns every usable playbook, by id and version.
    pub fn playbooks(&self) -> impl Iterator<Item = &Playbook> {
        self.items().filter_map(Item::playbook)
    }

    /// Returns the files that are not usable, with what is wrong.
    pub fn broken(&self) -> &[Item] {
        &self.broken
    }
}

impl Item {
    /// Returns the playbook, where the file has no error.
    pub fn playbook(&self) -> Option<&Playbook> {
        self.loaded.playbook.as_ref()
    }
}

/// The versions that are built in, with their digests.
fn built_in_lock() -> Lock {
    Lock::parse(&SourceText::new(LOCK_FILE, EMBEDDED_LOCK)).0
}

/// Reads a file of at most [`MAX_BYTES`] and one byte, which the loader then refuses.
pub fn read_limited(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, LibraryError> {
    let failed = |source| LibraryError::Read { path: dir.to_owned(), source };
    let mut out = Vec::new();
    for e in fs::read_dir(dir).map_err(failed)? {
        out.push(e.map_err(failed)?.path());
        if out.len() > MAX_FILES {
            return Err(LibraryError::TooMany { path: dir.to_owned() });
        }
    }
    out.sort();
    Ok(out)
}

fn hidden(path: &Path) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_none_or(|n| n.starts_with('.'))
}

fn unreadable(file: PathBuf, name: &str, error: &std::io::Error) -> Item {
    let d = Diagnostic::error(
        codes::UNREADABLE,
        format!("the file cannot be read: {error}"),
        Span::default(),
        "",
    )
    .with_help("check the path and the permissions");
    let loaded = Loaded { playbook: None, diagnostics: vec![d], source: SourceText::new(name, "") };
    Item { origin: Origin::File(file), loaded, released: false }
}

/// The value of a top-level field, for a document that loaded.
fn field_span(source: &SourceText, key: &str) -> Span {
    let mut at = 0;
    for line in source.text.split_inclusive('\n') {
        if let Some(rest) = line.strip_prefix(key) {
            let lead = rest.len() - rest.trim_start().len();
            let start = at + key.len() + lead;
            return Span::new(start, at + line.trim_end().len());
        }
        at += line.len();
    }
    Span::default()
}

fn misplaced(p: &Playbook, inside: &str, id_span: Span, version_span: Span) -> Vec<Diagnostic> {
    let path = Path::new(inside);
    let folder = path.parent().and_then(Path::file_name).and_then(|f| f.to_str()).unwrap_or_default();
    let stem = path.file_stem().and_then(|f| f.to_str()).unwrap_or_default();
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let mut out = Vec::new();
    let expected = format!("{}/{}.yaml", p.reference.id, p.reference.version);
    if folder != p.reference.id {
        out.push(
            Diagnostic::error(
                codes::WRONG_PLACE,
                format!("the folder is `{folder}` and the playbook `{}`", p.reference.id),
                id_span,
                "differs from the folder",
            )
            .with_help(format!("the file belongs at {expected}")),
        );
    }
    if stem != p.reference.version.to_string() || extension != "yaml" {
        out.push(
            Diagnostic::error(
                codes::WRONG_PLACE,
                format!("the file is `{stem}.{extension}` and the version {}", p.reference.version),
                version_span,
                "differs from the file's name",
            )
            .with_help(format!("the file belongs at {expected}")),
        );
    }
    out
}
