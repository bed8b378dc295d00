//! The other end of a connection: who the kernel says it is, and what the machine knows of that user.

use crate::caller::{Caller, Means};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

/// Header in which root says for whom it acts, such as the person behind `sudo`. Heard from root only, who could write
/// anything into the journal anyway.
pub const PERSON_HEADER: &str = "slurmedic-person";

/// Where a connection comes from.
#[derive(Debug, Clone)]
pub(crate) enum Peer {
    /// The UNIX socket; the kernel names the user.
    Socket {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Name and groups, looked up once for each connection.
        known: Arc<OnceLock<(String, Vec<String>)>>,
    },
    /// TCP.
    Net {
        /// Address of the sender, or of the proxy before it.
        address: IpAddr,
        /// Names in the certificate that it showed, if it showed one that holds.
        certificate: Option<Arc<Vec<String>>>,
    },
}

impl Peer {
    pub(crate) fn socket(uid: u32, gid: u32) -> Self {
        Self::Socket { uid, gid, known: Arc::default() }
    }

    /// The same with the names of the certificate that it showed.
    pub(crate) fn showing(self, names: Option<Arc<Vec<String>>>) -> Self {
        match self {
            Self::Net { address, .. } => Self::Net { address, certificate: names },
            socket @ Self::Socket { .. } => socket,
        }
    }

    /// Names the source of a request for limits: a user or an address.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Socket { uid, .. } => format!("uid {uid}"),
            Self::Net { address, .. } => address.to_string(),
        }
    }
}

/// Names the user behind a socket. The look at the user database may wait for a directory service, so it is made on a
/// thread of its own; the deadline is that of the request.
pub(crate) async fn caller_of_socket(
    uid: u32,
    gid: u32,
    known: &Arc<OnceLock<(String, Vec<String>)>>,
    acts_for: Option<&str>,
) -> Caller {
    let owner = nix::unistd::geteuid().as_raw() == uid;
    let means = Means::Socket { uid, owner };
    if let Some(person) = acts_for.filter(|p| uid == 0 && is_name(p)) {
        let name = person.to_owned();
        let groups = tokio::task::spawn_blocking({
            let name = name.clone();
            move || groups_of(&name)
        });
        return Caller { name, groups: groups.await.unwrap_or_default(), means };
    }
    let (name, groups) = match known.get() {
        Some(k) => k.clone(),
        None => {
            let looked = tokio::task::spawn_blocking(move || user_of(uid, gid)).await;
            let found = looked.unwrap_or_else(|_| (format!("uid {uid}"), Vec::new()));
            known.get_or_init(|| found).clone()
        }
    };
    Caller { name, groups, means }
}

/// Finds name and groups of a user id. A user that the machine does not know has a name that no policy can hold.
fn user_of(uid: u32, gid: u32) -> (String, Vec<String>) {
    let Ok(Some(user)) = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)) else {
        return (format!("uid {uid}"), Vec::new());
    };
    let mut groups = groups_of(&user.name);
    if let Ok(Some(own)) = nix::unistd::Group::from_gid(nix::unistd::Gid::from_raw(gid))
        && !groups.contains(&own.name)
    {
        groups.push(own.name);
    }
    (user.name, groups)
}

/// Names the groups of a user of this machine; nobody's are none.
pub fn groups_of(user: &str) -> Vec<String> {
    let Ok(Some(known)) = nix::unistd::User::from_name(user) else { return Vec::new() };
    let Ok(name) = std::ffi::CString::new(user) else { return Vec::new() };
    let ids = nix::unistd::getgrouplist(&name, known.gid).unwrap_or_default();
    ids.into_iter().filter_map(|id| nix::unistd::Group::from_gid(id).ok().flatten()).map(|g| g.name).collect()
}

/// Says whether a text can be a person's name in the journal.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_root_speaks_for_somebody_else() {
        let known = Arc::default();
        let root = caller_of_socket(0, 0, &known, Some("ada")).await;
        assert_eq!(root.name, "ada");
        let bad = caller_of_socket(0, 0, &known, Some("ada; rm")).await;
        assert_eq!(bad.name, "root");
        let other = Arc::default();
        let nobody = caller_of_socket(4_000_000_000, 4_000_000_000, &other, Some("root")).await;
        assert_eq!((nobody.name.as_str(), nobody.groups.len()), ("uid 4000000000", 0));
        assert_eq!(nobody.means, Means::Socket { uid: 4_000_000_000, owner: false });
    }
}
