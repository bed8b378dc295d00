//! InfiniBand and RoCE ports, as the kernel's own files say.

use super::{MAX_FINDINGS, Said};
use crate::config::Params;
use crate::finding::Finding;
use std::path::PathBuf;

/// The ports that must be up.
#[derive(Debug, Clone)]
pub(crate) struct Ib {
    ports: Vec<(String, String)>,
    sys: PathBuf,
}

impl Ib {
    /// Reads the settings.
    pub(super) fn read(p: &mut Params) -> Result<Self, String> {
        let list = p.needed("ports")?;
        let plain =
            |w: &str| !w.is_empty() && w.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        let ports: Vec<_> = list
            .split(',')
            .map(|w| match w.split_once('/') {
                Some((device, port)) if plain(device) && plain(port) => {
                    Ok((device.to_owned(), port.to_owned()))
                }
                _ => Err(format!("ports={w} is not DEVICE/PORT such as mlx5_0/1")),
            })
            .collect::<Result<_, _>>()?;
        if ports.len() > MAX_FINDINGS {
            return Err(format!("more than {MAX_FINDINGS} ports"));
        }
        Ok(Self { ports, sys: p.path("sys")?.unwrap_or_else(|| PathBuf::from("/sys")) })
    }

    /// Looks.
    pub(super) fn look(&self) -> Said {
        let mut said = Said::fine(format!("{} ports active", self.ports.len()));
        for (device, port) in &self.ports {
            let dir = self.sys.join("class/infiniband").join(device).join("ports").join(port);
            let subject = format!("{device}/{port}");
            let text = |file: &str| std::fs::read_to_string(dir.join(file));
            let why = match text("state") {
                Ok(state) if word(&state) == "ACTIVE" => continue,
                Ok(state) => {
                    let link = text("phys_state").map(|t| word(&t).to_owned());
                    format!(
                        "port {subject} is {}, link {}",
                        word(&state),
                        link.unwrap_or_else(|_| "unknown".to_owned())
                    )
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => format!("port {subject} is not there"),
                Err(e) => {
                    said.trouble = Some(format!("{}/state: {e}", dir.display()));
                    continue;
                }
            };
            said.findings.push(Finding::now("ib-port-down", subject, why));
        }
        said
    }
}

/// `4: ACTIVE` says ACTIVE.
fn word(text: &str) -> &str {
    text.split_once(": ").map_or(text, |(_, w)| w).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_not_active_is_named_with_its_link() {
        let dir = tempfile::tempdir().unwrap();
        let port = |name: &str, state: &str, link: &str| {
            let at = dir.path().join("class/infiniband").join(name).join("ports/1");
            std::fs::create_dir_all(&at).unwrap();
            std::fs::write(at.join("state"), state).unwrap();
            std::fs::write(at.join("phys_state"), link).unwrap();
        };
        port("mlx5_0", "4: ACTIVE\n", "5: LinkUp\n");
        port("mlx5_1", "1: DOWN\n", "3: Disabled\n");
        let ports = ["mlx5_0", "mlx5_1", "mlx5_2"].map(|d| (d.to_owned(), "1".to_owned())).to_vec();
        let said = Ib { ports, sys: dir.path().to_path_buf() }.look();
        let texts: Vec<_> = said.findings.iter().map(|f| f.text.as_str()).collect();
        assert_eq!(texts, ["port mlx5_1/1 is DOWN, link Disabled", "port mlx5_2/1 is not there"]);
    }
}
