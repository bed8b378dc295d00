//! Where connections come in: the UNIX socket and the TCP listener. Each connection has a place in a bounded crowd, a
//! deadline for every head of a request, and an end.

use crate::certificate;
use crate::crowd::Place;
use crate::happening::Happening;
use crate::peer::Peer;
use crate::server::Server;
use crate::settings::Listen;
use crate::tls::{TlsError, TlsNow};
use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
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
        Listen::Tls { at, files } => (at, Some(Arc::new(TlsNow::read(files)?))),
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
    let crowd = Arc::clone(server.crowd(matches!(bound, Bound::Net { .. })));
    let router = server.router();
    let mut ends = stop.clone();
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        // A place at the door first: who finds none waits in the kernel's queue.
        let door = tokio::select! {
            () = stopped(&mut ends) => break,
            door = crowd.door() => door,
        };
        let Some(door) = door else { break };
        tokio::select! {
            () = stopped(&mut ends) => break,
            came = next(&bound) => match came {
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(REST).await;
                }
                Ok((io, peer, tls)) => {
                    let face = if matches!(peer, Peer::Socket { .. }) { "socket" } else { "net" };
                    let Ok(place) = crowd.enter(door, &peer.key()) else {
                        server.parts().telemetry.tell(&Happening::TurnedAway { face, who: peer.key() });
                        continue;
                    };
                    let (server, router, stop) = (Arc::clone(&server), router.clone(), stop.clone());
                    tasks.spawn(async move {
                        let limits = server.limits();
                        let known = |peer| Known { router, peer, place: Arc::new(place) };
                        match (io, tls) {
                            (Io::Socket(s), _) => converse(s, known(peer), limits, stop).await,
                            (Io::Net(s), None) => converse(s, known(peer), limits, stop).await,
                            (Io::Net(s), Some(tls)) => {
                                let hello = tokio::time::timeout(HANDSHAKE, tls.acceptor().accept(s)).await;
                                match hello {
                                    Ok(Ok(s)) => {
                                        let shown = s.get_ref().1.peer_certificates().and_then(|c| c.first());
                                        let names = shown.map(|c| Arc::new(certificate::names(c)));
                                        let peer = peer.showing(names);
                                        converse(s, known(peer), limits, stop).await;
                                    }
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
            Ok((Io::Net(stream), Peer::Net { address: from.ip(), certificate: None }, tls.clone()))
        }
    }
}

/// The routes for one connection: each request knows whose it is and which place it has.
#[derive(Clone)]
struct Known {
    router: Router,
    peer: Peer,
    place: Arc<Place>,
}

impl Service<Request<Incoming>> for Known {
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        request.extensions_mut().insert(Arc::clone(&self.place));
        TowerToHyperService::new(self.router.clone()).call(request)
    }
}

/// Serves one connection.
async fn converse<S>(
    stream: S,
    service: Known,
    limits: &crate::settings::Limits,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
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

#[cfg(test)]
mod tests {
    use super::*;

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
