//! A network between engine and agent that a test can cut: namespaces with a pair of virtual cables where the machine lets
//! us, else a TCP proxy that lets nothing through.

use super::cmd::run;
use super::root;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
/// The engine's end of the cable. The certificate `fixtures/tls/net.pem` is for this address.
const ADDRESS: &str = "10.213.77.1";
/// Makes tests use the proxy also where namespaces could be had.
const NO_NAMESPACES: &str = "SLURMEDIC_TEST_NO_NAMESPACES";

/// The network.
pub(crate) enum Network {
    /// Namespaces.
    Cable {
        /// Name of the agent's namespace, and the beginning of the cable's.
        name: String,
        /// Port of the engine.
        port: u16,
    },
    /// A proxy on loopback.
    Proxy {
        /// Port of the engine.
        port: u16,
        /// Port of the proxy.
        at: u16,
        /// Whether anything comes through.
        open: Arc<AtomicBool>,
    },
}

fn ip(args: &[&str]) -> Result<(), String> {
    let done = run(Command::new("ip").args(args), LIMIT);
    if done.code == 0 { Ok(()) } else { Err(done.to_string()) }
}

fn cable(name: &str) -> Result<(), String> {
    let (here, there) = (format!("{name}h"), format!("{name}n"));
    ip(&["netns", "add", name])?;
    ip(&["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", name])?;
    ip(&["addr", "add", &format!("{ADDRESS}/30"), "dev", &here])?;
    ip(&["link", "set", &here, "up"])?;
    ip(&["-n", name, "addr", "add", "10.213.77.2/30", "dev", &there])?;
    ip(&["-n", name, "link", "set", &there, "up"])?;
    ip(&["-n", name, "link", "set", "lo", "up"])
}

impl Network {
    /// Makes it for an engine that will listen at this port. One test at a time: the address is always the same.
    pub(crate) fn new(port: u16) -> Self {
        let name = format!("smc{}", std::process::id() % 100_000);
        let wanted = std::env::var_os(NO_NAMESPACES).is_none();
        let made = if wanted { cable(&name) } else { Err(format!("{NO_NAMESPACES} is set")) };
        match made {
            Ok(()) => Self::Cable { name, port },
            Err(why) => {
                let _ = ip(&["netns", "del", &name]);
                let note = format!(
                    "NOTE: no network namespaces here, a TCP proxy that drops everything is cut instead: {why}\n"
                );
                // Past the test harness, which swallows what a test that passes says.
                let _ = std::io::stderr().write_all(note.as_bytes());
                Self::proxy(port)
            }
        }
    }

    fn proxy(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().port();
        let open = Arc::new(AtomicBool::new(true));
        let gate = Arc::clone(&open);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let gate = Arc::clone(&gate);
                std::thread::spawn(move || {
                    let Ok(engine) = TcpStream::connect(("127.0.0.1", port)) else { return };
                    let (Ok(c), Ok(e)) = (client.try_clone(), engine.try_clone()) else { return };
                    let back = Arc::clone(&gate);
                    std::thread::spawn(move || pass(e, c, &back));
                    pass(client, engine, &gate);
                });
            }
        });
        Self::Proxy { port, at, open }
    }

    /// The engine's settings for `[server]`, in the place of `listen`.
    pub(crate) fn listen(&self) -> String {
        match self {
            Self::Cable { port, .. } => {
                let tls = |name: &str| root().join("fixtures/tls").join(name).display().to_string();
                let (certificate, key) = (tls("net.pem"), tls("net-key.pem"));
                format!("listen = \"{ADDRESS}:{port}\"\ntls_certificate = {certificate:?}\ntls_key = {key:?}")
            }
            Self::Proxy { port, .. } => format!("listen = \"127.0.0.1:{port}\""),
        }
    }

    /// The agent's settings for `[agent]`.
    pub(crate) fn agent(&self) -> String {
        match self {
            Self::Cable { port, .. } => {
                let ca = root().join("fixtures/tls/net.pem").display().to_string();
                format!("engine = \"https://{ADDRESS}:{port}\"\nca = {ca:?}\n")
            }
            Self::Proxy { at, .. } => format!("engine = \"http://127.0.0.1:{at}\"\n"),
        }
    }

    /// The command as the agent's side of the network runs it.
    pub(crate) fn there(&self, command: Command) -> Command {
        let Self::Cable { name, .. } = self else { return command };
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", name]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(key, value),
                None => inside.env_remove(key),
            };
        }
        inside
    }

    /// Cuts it: nothing comes through, and nobody is told.
    pub(crate) fn cut(&self) {
        match self {
            Self::Cable { name, .. } => ip(&["link", "set", &format!("{name}h"), "down"]).unwrap(),
            Self::Proxy { open, .. } => open.store(false, Ordering::SeqCst),
        }
    }

    /// Mends it.
    pub(crate) fn mend(&self) {
        match self {
            Self::Cable { name, .. } => ip(&["link", "set", &format!("{name}h"), "up"]).unwrap(),
            Self::Proxy { open, .. } => open.store(true, Ordering::SeqCst),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Self::Cable { name, .. } = self {
            let _ = ip(&["link", "del", &format!("{name}h")]);
            let _ = ip(&["netns", "del", name]);
        }
    }
}

/// Passes bytes on. What comes while the gate is shut waits, as on a cut cable; either end may give up meanwhile.
fn pass(mut from: TcpStream, mut to: TcpStream, gate: &AtomicBool) {
    let mut bytes = [0; 8192];
    while let Ok(n) = from.read(&mut bytes) {
        while !gate.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if n == 0 || to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
