//! Where connections come in: the UNIX socket and the TCP listener. Each connection has a place in a bounded crowd, a
//! deadline for every head of a request, and an end.

use crate::happening::Happening;
use crate::peer::Peer;
use crate::server::Server;
use crate::settings::Listen;
use crate::tls::{TlsError, TlsNow};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

/// How long one connection is listened to.
const LIFE: Duration = Duration::from_secs(900);
/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after an error of accept, such as too many open files.
const REST: Duration = Duration::from_millis(100);

/// Why a face cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another engine has the socket.
    #[error("another engine process serves at {path}")]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("the socket {path} could not be made")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The address cannot be had.
    #[error("{at} could not be listened on")]
    Net {
        /// The address.
        at: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// TLS cannot be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A face that is bound.
#[derive(Debug)]
pub enum Bound {
    /// The UNIX socket.
    Socket {
        /// It.
        listener: UnixListener,
        /// Where it is; removed when the engine ends.
        path: PathBuf,
        /// Held as long as the engine lives, so that no second one takes the place.
        lock: std::fs::File,
    },
    /// TCP.
    Net {
        /// It.
        listener: TcpListener,
        /// TLS, where it speaks that.
        tls: Option<Arc<TlsNow>>,
    },
}

/// Makes the socket. A file that a dead engine left is replaced; a living engine keeps it.
pub fn bind_socket(path: &Path) -> Result<Bound, BindError> {
    let fail = |source| BindError::Socket { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(fail)?;
    }
    let beside = path.with_extension("lock");
    let lock =
        std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&beside).map_err(fail)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Err(BindError::Taken { path: path.to_owned() }),
        Err(std::fs::TryLockError::Error(e)) => return Err(fail(e)),
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    // Whoever is on this machine may knock; the kernel says who it is, and the policy what they may.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(fail)?;
    Ok(Bound::Socket { listener, path: path.to_owned(), lock })
}

/// Makes the listener.
pub async fn bind_net(listen: &Listen) -> Result<Bound, BindError> {
    let (at, tls) = match listen {
        Listen::Plain(at) => (at, None),
        Listen::Tls { at, certificate, key } => (at, Some(Arc::new(TlsNow::read(certificate, key)?))),
    };
    let listener =
        TcpListener::bind(at).await.map_err(|source| BindError::Net { at: at.to_string(), source })?;
    Ok(Bound::Net { listener, tls })
}

impl Bound {
    /// Says where it is, as people write it.
    pub fn place(&self) -> String {
        match self {
            Self::Socket { path, .. } => path.display().to_string(),
            Self::Net { listener, tls } => {
                let scheme = if tls.is_some() { "https" } else { "http" };
                listener.local_addr().map_or_else(|e| e.to_string(), |a| format!("{scheme}://{a}"))
            }
        }
    }
}

/// Takes connections until the engine stops; what is under way is answered.
pub(crate) async fn accept(bound: Bound, server: Arc<Server>, stop: watch::Receiver<bool>) {
    let crowd = Arc::new(Crowd::new(server.limits().connections, server.limits().per_peer));
    let router = server.router();
    let mut ends = stop.clone();
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        tokio::select! {
            () = stopped(&mut ends) => break,
            came = next(&bound) => match came {
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(REST).await;
                }
                Ok((io, peer, tls)) => {
                    let face = if matches!(peer, Peer::Socket { .. }) { "socket" } else { "net" };
                    let Some(place) = crowd.enter(&peer.key()) else {
                        server.parts().telemetry.tell(&Happening::TurnedAway { face, who: peer.key() });
                        continue;
                    };
                    let (server, router, stop) = (Arc::clone(&server), router.clone(), stop.clone());
                    tasks.spawn(async move {
                        let _place = place;
                        let limits = server.limits();
                        match (io, tls) {
                            (Io::Socket(s), _) => converse(s, router, peer, limits, stop).await,
                            (Io::Net(s), None) => converse(s, router, peer, limits, stop).await,
                            (Io::Net(s), Some(tls)) => {
                                let hello = tokio::time::timeout(HANDSHAKE, tls.acceptor().accept(s)).await;
                                match hello {
                                    Ok(Ok(s)) => converse(s, router, peer, limits, stop).await,
                                    Ok(Err(error)) => tracing::debug!(%error, "no TLS was agreed on"),
                                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                                }
                            }
                        }
                    });
                }
            }
        }
    }
    let answer_all = async { while tasks.join_next().await.is_some() {} };
    // Whoever does not read the answer is left.
    let _ = tokio::time::timeout(Duration::from_secs(5), answer_all).await;
    if let Bound::Socket { path, lock, .. } = bound {
        let _ = std::fs::remove_file(path);
        drop(lock);
    }
}

/// Waits until the engine stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone is a stop, too.
    let _ = stop.wait_for(|s| *s).await;
}

enum Io {
    Socket(tokio::net::UnixStream),
    Net(tokio::net::TcpStream),
}

async fn next(bound: &Bound) -> std::io::Result<(Io, Peer, Option<Arc<TlsNow>>)> {
    match bound {
        Bound::Socket { listener, .. } => {
            let (stream, _) = listener.accept().await?;
            let cred = stream.peer_cred()?;
            Ok((Io::Socket(stream), Peer::socket(cred.uid(), cred.gid()), None))
        }
        Bound::Net { listener, tls } => {
            let (stream, from) = listener.accept().await?;
            let _ = stream.set_nodelay(true);
            Ok((Io::Net(stream), Peer::Net { address: from.ip() }, tls.clone()))
        }
    }
}

/// Serves one connection.
async fn converse<S>(
    stream: S,
    router: Router,
    peer: Peer,
    limits: &crate::settings::Limits,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let conn = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_headers(limits.headers)
        .max_buf_size(limits.header_bytes.max(8_192))
        .serve_connection(TokioIo::new(stream), service);
    let mut conn = pin!(conn);
    let work = async {
        tokio::select! {
            done = conn.as_mut() => return done,
            () = stopped(&mut stop) => {}
            () = tokio::time::sleep(LIFE) => {}
        }
        // What was asked is answered, and nothing more is heard.
        conn.as_mut().graceful_shutdown();
        conn.as_mut().await
    };
    match tokio::time::timeout(LIFE + limits.act_time, work).await {
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended badly"),
        Ok(Ok(())) => {}
        Err(_) => tracing::debug!("a connection lived too long"),
    }
}

/// Who is connected.
#[derive(Debug)]
struct Crowd {
    most: usize,
    per_peer: usize,
    inside: Mutex<BTreeMap<String, usize>>,
}

/// A place in the crowd; free again when it is dropped.
struct Place {
    crowd: Arc<Crowd>,
    peer: String,
}

impl Crowd {
    fn new(most: usize, per_peer: usize) -> Self {
        Self { most, per_peer, inside: Mutex::default() }
    }

    fn enter(self: &Arc<Self>, peer: &str) -> Option<Place> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.values().sum::<usize>() >= self.most {
            return None;
        }
        let own = inside.entry(peer.to_owned()).or_insert(0);
        if *own >= self.per_peer {
            return None;
        }
        *own += 1;
        Some(Place { crowd: Arc::clone(self), peer: peer.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.crowd.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = inside.get_mut(&self.peer) {
            *n -= 1;
            if *n == 0 {
                inside.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crowd_is_bounded_and_no_peer_fills_it_alone() {
        let crowd = Arc::new(Crowd::new(3, 2));
        let a: Vec<Option<Place>> = (0..3).map(|_| crowd.enter("a")).collect();
        assert!(a[0].is_some() && a[1].is_some() && a[2].is_none());
        let b = crowd.enter("b");
        assert!(b.is_some() && crowd.enter("c").is_none());
        drop(a);
        assert!(crowd.enter("c").is_some());
        drop(b);
        assert!(crowd.inside.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_socket_that_a_dead_engine_left_is_replaced_and_a_living_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/engine.sock");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "left over").unwrap();
        let first = bind_socket(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        assert!(matches!(bind_socket(&path), Err(BindError::Taken { .. })));
        drop(first);
        assert!(bind_socket(&path).is_ok());
    }
}
