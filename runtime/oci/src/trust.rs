//! How registries prove who they are, and we to them, where the system's certificates are not what counts.

use std::{fs::File, io::Read, path::Path};

use reqwest::{Certificate, ClientBuilder, Identity};
use runtime_api::{Error, Result};

use crate::{RegistryConfig, RegistryHost};

/// A bundle of every authority of the public web has a quarter of that.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// What the operator gave, read and checked.
pub(crate) struct Trust {
    authorities: Vec<(RegistryHost, Vec<Certificate>)>,
    identities: Vec<(RegistryHost, Identity)>,
}

/// What of it is for one host.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Proofs {
    authority: Option<usize>,
    identity: Option<usize>,
}

impl Trust {
    /// Reads the files. What changes in them later counts from the next start.
    pub(crate) fn load(config: &RegistryConfig) -> Result<Self> {
        let keys = &config.client_keys;
        for (name, hosts) in [
            ("authorities", &config.certificate_authorities),
            ("client certificates", &config.client_certificates),
            ("client keys", keys),
        ] {
            check_once(name, hosts.iter().map(|(host, _)| host))?;
        }
        let without =
            keys.iter().find(|(host, _)| !config.client_certificates.iter().any(|(other, _)| other == host));
        if let Some((host, _)) = without {
            return Err(invalid(format!("{host} has a client key and no client certificate: give both")));
        }
        let authorities = config.certificate_authorities.iter();
        let identities = config.client_certificates.iter().map(|(host, certificate)| {
            let key = keys.iter().find(|(other, _)| other == host).map(|(_, key)| key.as_path());
            Ok((host.clone(), identity(certificate, key)?))
        });
        Ok(Self {
            authorities: authorities
                .map(|(host, file)| Ok((host.clone(), certificates(file)?)))
                .collect::<Result<_>>()?,
            identities: identities.collect::<Result<_>>()?,
        })
    }

    /// What counts for a host. A certificate of ours is shown to the host that it is for, and to no other.
    pub(crate) fn proofs(&self, to: &RegistryHost) -> Proofs {
        Proofs {
            authority: most_particular(self.authorities.iter().map(|(host, _)| host), to),
            identity: most_particular(self.identities.iter().map(|(host, _)| host), to),
        }
    }

    /// Makes a client that goes by it. A host with authorities of its own is believed by these alone.
    pub(crate) fn apply(&self, proofs: Proofs, mut client: ClientBuilder) -> ClientBuilder {
        if let Some((_, authorities)) = proofs.authority.and_then(|at| self.authorities.get(at)) {
            client = client.tls_certs_only(authorities.iter().cloned());
        }
        if let Some((_, identity)) = proofs.identity.and_then(|at| self.identities.get(at)) {
            client = client.identity(identity.clone());
        }
        client
    }
}

/// Which of several settings counts for a host: one that names its port before one for all ports.
fn most_particular<'a>(hosts: impl Iterator<Item = &'a RegistryHost>, to: &RegistryHost) -> Option<usize> {
    let covering = hosts.enumerate().filter(|(_, host)| host.covers(to));
    covering.max_by_key(|(_, host)| host.has_port()).map(|(at, _)| at)
}

fn check_once<'a>(name: &str, hosts: impl Iterator<Item = &'a RegistryHost>) -> Result<()> {
    let mut seen = Vec::new();
    for host in hosts {
        if seen.contains(&host) {
            return Err(invalid(format!("{host} has {name} twice: put them into one file")));
        }
        seen.push(host);
    }
    Ok(())
}

fn certificates(file: &Path) -> Result<Vec<Certificate>> {
    let certificates = Certificate::from_pem_bundle(&read(file)?);
    let certificates = certificates.ok().filter(|certificates| !certificates.is_empty());
    certificates.ok_or_else(|| invalid(format!("{} has no certificate in PEM in it", file.display())))
}

/// A certificate with what leads to its authority, and its key, in two files or one.
fn identity(certificate: &Path, key: Option<&Path>) -> Result<Identity> {
    let mut pem = read(certificate)?;
    if let Some(key) = key {
        pem.push(b'\n');
        pem.extend(read(key)?);
    }
    // What a library says of it may show what stands there, and that is a secret.
    Identity::from_pem(&pem).map_err(|_| {
        let key = key.unwrap_or(certificate).display();
        let message = format!("{} is no certificate in PEM with its key in {key}", certificate.display());
        invalid(message)
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_PEM_BYTES + 1).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let bytes = read().map_err(|error| invalid(format!("{} cannot be read: {error}", path.display())))?;
    if bytes.len() as u64 > MAX_PEM_BYTES {
        return Err(invalid(format!("{} is larger than {MAX_PEM_BYTES} bytes", path.display())));
    }
    Ok(bytes)
}

fn invalid(message: String) -> Error {
    Error::invalid("invalid-certificate", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_one_port_comes_before_what_is_for_all() {
        let hosts: [RegistryHost; 3] = ["lab", "lab:5000", "other"].map(|host| host.parse().unwrap());
        let chosen = |to: &str| most_particular(hosts.iter(), &to.parse().unwrap());
        assert_eq!(chosen("lab:5000"), Some(1));
        assert_eq!(chosen("lab:5001"), Some(0));
        assert_eq!(chosen("lab"), Some(0));
        assert_eq!(chosen("none"), None);
    }
}
