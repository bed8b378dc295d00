//! The names in a client's certificate. TLS has proven the certificate by then: its chain, its time and that the client has
//! its key. Here only the names are read, from DER, with every length checked.

/// The most names that are read.
const MAX_NAMES: usize = 16;
/// The longest name, in bytes.
const MAX_NAME: usize = 255;

/// Tags of DER.
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
/// Strings in which a common name is written: UTF8String, PrintableString, IA5String.
const STRINGS: [u8; 3] = [0x0c, 0x13, 0x16];
/// Object identifiers.
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Takes the next element: its tag and what is in it.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0, |n, d| n << 8 | usize::from(*d)), rest)
            }
            // Longer than any certificate, or of no fixed length.
            _ => return None,
        };
        let (inside, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, inside))
    }

    /// Takes the next element, which must have this tag.
    fn take(&mut self, wanted: u8) -> Option<Reader<'a>> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, inside)| Reader(inside))
    }
}

/// Reads the DNS names of a certificate; where it has none, its common name. A wildcard is no name. What cannot be read
/// gives no name.
pub(crate) fn names(der: &[u8]) -> Vec<String> {
    let mut names = read(der).unwrap_or_default();
    names.retain(|n| is_plain(n));
    names
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn read(der: &[u8]) -> Option<Vec<String>> {
    let mut body = Reader(der).take(SEQUENCE)?.take(SEQUENCE)?;
    // Version (not always there), serial number, algorithm, issuer, validity; then the subject and its key.
    if body.0.first() == Some(&VERSION) {
        body.next()?;
    }
    for _ in 0..4 {
        body.next()?;
    }
    let subject = body.take(SEQUENCE)?;
    body.next()?;
    let mut alternatives = None;
    while let Some((tag, inside)) = body.next() {
        if tag == EXTENSIONS {
            alternatives = alternative_names(Reader(inside).take(SEQUENCE)?)?;
        }
    }
    match alternatives {
        Some(names) => Some(names),
        None => common_name(subject).map(|n| vec![n]),
    }
}

/// Finds the DNS names among the extensions; none where the extension is absent or holds no DNS name.
#[expect(clippy::option_option, reason = "the outer one is a certificate that cannot be read")]
fn alternative_names(mut extensions: Reader<'_>) -> Option<Option<Vec<String>>> {
    while !extensions.0.is_empty() {
        let mut one = extensions.take(SEQUENCE)?;
        if one.take(OID)?.0 != SUBJECT_ALT_NAME {
            continue;
        }
        let (mut tag, mut inside) = one.next()?;
        if tag == BOOLEAN {
            (tag, inside) = one.next()?;
        }
        if tag != OCTETS {
            return None;
        }
        let mut all = Reader(inside).take(SEQUENCE)?;
        let mut names = Vec::new();
        while !all.0.is_empty() {
            let (tag, inside) = all.next()?;
            if tag == DNS_NAME {
                if names.len() >= MAX_NAMES {
                    return None;
                }
                names.push(std::str::from_utf8(inside).ok()?.to_owned());
            }
        }
        return Some((!names.is_empty()).then_some(names));
    }
    Some(None)
}

/// Finds the one common name of a subject; with several nobody can say which counts.
fn common_name(mut subject: Reader<'_>) -> Option<String> {
    let mut found = None;
    while !subject.0.is_empty() {
        let mut parts = subject.take(SET)?;
        while !parts.0.is_empty() {
            let mut part = parts.take(SEQUENCE)?;
            if part.take(OID)?.0 != COMMON_NAME {
                continue;
            }
            let (tag, text) = part.next()?;
            if !STRINGS.contains(&tag) || found.is_some() {
                return None;
            }
            found = Some(std::str::from_utf8(text).ok()?.to_owned());
        }
    }
    found
}

/// Says whether one of the names is that of a node, as it is or as a host of one of these domains.
pub(crate) fn is_for(names: &[String], node: &str, domains: &[String]) -> bool {
    names.iter().any(|name| {
        let name = name.strip_suffix('.').unwrap_or(name);
        name.eq_ignore_ascii_case(node)
            || domains.iter().any(|domain| {
                let domain = domain.trim_matches('.');
                name.len() > domain.len() + 1
                    && name.split_at_checked(name.len() - domain.len() - 1).is_some_and(|(host, rest)| {
                        host.eq_ignore_ascii_case(node)
                            && rest.strip_prefix('.').is_some_and(|r| r.eq_ignore_ascii_case(domain))
                    })
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    fn fixture(name: &str) -> Vec<u8> {
        let path = format!("{}/../../fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"));
        CertificateDer::from_pem_file(path).unwrap().to_vec()
    }

    #[test]
    fn dns_names_count_and_a_common_name_only_where_there_are_none() {
        assert_eq!(names(&fixture("gpu001.pem")), ["gpu001"]);
        assert_eq!(names(&fixture("gpu002-host.pem")), ["gpu002.cluster.example.org"]);
        assert_eq!(names(&fixture("gpu003-cn.pem")), ["gpu003"]);
        assert_eq!(names(&fixture("wildcard.pem")), Vec::<String>::new());
    }

    #[test]
    fn any_cut_or_changed_certificate_is_read_without_harm() {
        let der = fixture("gpu001.pem");
        for end in 0..der.len() {
            assert!(names(&der[..end]).len() <= 1);
        }
        for i in 0..der.len() {
            for bit in 0..8 {
                let mut changed = der.clone();
                changed[i] ^= 1 << bit;
                assert!(names(&changed).iter().all(|n| is_plain(n)));
            }
        }
    }

    #[test]
    fn a_name_is_that_of_one_node() {
        let of = |names: &[&str], node: &str, domains: &[&str]| {
            let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
            is_for(&own(names), node, &own(domains))
        };
        assert!(of(&["gpu001"], "gpu001", &[]));
        assert!(of(&["head", "GPU001."], "gpu001", &[]));
        assert!(of(&["gpu001.cluster.example.org"], "gpu001", &[".cluster.example.org"]));
        assert!(of(&["gpu001.cluster.example.org"], "gpu001.cluster.example.org", &[]));
        for (name, domains) in [
            ("gpu002", &[][..]),
            ("gpu0011", &[]),
            ("gpu001.evil.example.org", &["cluster.example.org"]),
            ("gpu001.cluster.example.org", &[]),
            ("xgpu001.cluster.example.org", &["cluster.example.org"]),
            ("gpu001xcluster.example.org", &["cluster.example.org"]),
            ("cluster.example.org", &["cluster.example.org"]),
            (".cluster.example.org", &["cluster.example.org"]),
            ("gpu001.", &[""]),
        ] {
            let expected = name == "gpu001.";
            assert_eq!(of(&[name], "gpu001", domains), expected, "{name} {domains:?}");
        }
    }
}
