//! What to do next, for a person; programs read the line that says ready.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use runtime_api::Deployed;

use crate::first_functions::Started;

/// Where somebody on this machine reaches what listens at an address.
pub(crate) fn from_here(listening: SocketAddr) -> SocketAddr {
    let mut address = listening;
    if listening.ip().is_unspecified() {
        address.set_ip(if listening.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}

/// How to log in, as whom and with which file; without any of that, that it is not needed.
pub(crate) fn login(address: SocketAddr, user: Option<(&str, &Path)>) -> String {
    match user {
        Some((user, password_file)) => format!(
            "  log in:  faas-cli login -g http://{address} -u {user} --password-stdin < {}",
            password_file.display()
        ),
        None => "  log in:  not needed, anyone who gets here may deploy".into(),
    }
}

/// How to start a gateway to a node, and with which files if it asks for credentials.
pub(crate) fn gateway_to(listening: SocketAddr, credentials: Option<&Path>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let credentials = match credentials {
        Some(folder) => format!("--credentials {}", folder.display()),
        None => "--no-auth".to_owned(),
    };
    format!(
        "fawn {version}: node on http://{listening}\n  gateway: fawn gateway --provider http://{} {credentials}",
        from_here(listening)
    )
}

/// How to call a function, or to see when it can be called.
pub(crate) fn call(address: SocketAddr, started: &Started) -> String {
    let name = started.name.name();
    match started.deployed {
        Deployed::Ready => format!("  call:    curl http://{address}/function/{name}"),
        Deployed::Pending => {
            format!(
                "  wait:    {name} is still compiling, see `faas-cli describe {name} -g http://{address}`"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use runtime_api::FunctionName;

    use super::*;

    #[test]
    fn everywhere_is_reached_from_here() {
        for (listening, here) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("127.0.0.1:1", "127.0.0.1:1"),
        ] {
            assert_eq!(from_here(listening.parse().unwrap()).to_string(), here);
        }
    }

    #[test]
    fn a_login_is_of_the_user_that_there_is() {
        let address = "127.0.0.1:8080".parse().unwrap();
        let line = login(address, Some(("operator", Path::new("/run/secrets/basic-auth-password"))));
        assert!(
            line.contains("-u operator") && line.ends_with("< /run/secrets/basic-auth-password"),
            "{line}"
        );
        assert!(login(address, None).contains("not needed"));
    }

    #[test]
    fn a_node_says_how_to_reach_it() {
        let hint = gateway_to("0.0.0.0:8081".parse().unwrap(), Some(Path::new("/data")));
        assert!(hint.ends_with("--provider http://127.0.0.1:8081 --credentials /data"), "{hint}");
        assert!(gateway_to("10.0.0.1:1".parse().unwrap(), None).ends_with("http://10.0.0.1:1 --no-auth"));
    }

    #[test]
    fn what_still_compiles_is_not_said_to_be_ready() {
        let address = "127.0.0.1:8080".parse().unwrap();
        let started = |deployed| Started { name: FunctionName::parse("big").unwrap(), deployed };
        assert!(call(address, &started(Deployed::Ready)).contains("curl http://127.0.0.1:8080/function/big"));
        let line = call(address, &started(Deployed::Pending));
        assert!(line.contains("still compiling") && !line.contains("curl"), "{line}");
    }
}
