//! Who is at the keyboard, and whether there is one.

use std::io::IsTerminal as _;

/// Names the person behind this process: the one who became root by sudo, else the real user.
pub(crate) fn person() -> String {
    let uid = nix::unistd::getuid();
    let own =
        nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| format!("uid {uid}"), |u| u.name);
    match std::env::var("SUDO_USER") {
        Ok(user) if uid.is_root() && is_name(&user) => user,
        _ => own,
    }
}

pub(crate) use engine_server::{groups_of as groups, is_name};

/// Says whether somebody can be asked.
pub(crate) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Names this engine process.
pub(crate) fn engine_name() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|h| h.into_string().ok()).unwrap_or_default();
    format!("{}-{}", if host.is_empty() { "host" } else { &host }, std::process::id())
}
