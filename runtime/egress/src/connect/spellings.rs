//! Ways to write addresses that must not be reached. Each is tried as a host and within a URI, and none gets through.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use tokio::net::TcpListener;

use super::*;
use crate::{Timeouts, send};

/// Addresses on this machine, its networks and its cloud, and what resolvers and URL parsers take for them.
const SPELLINGS: [&str; 133] = [
    // Loopback, as addresses.
    "127.0.0.1",
    "127.0.0.2",
    "127.1.2.3",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::0001]",
    // As the resolver's older habits read them: short, octal, hexadecimal, one number.
    "127.1",
    "127.0.1",
    "0",
    "0.0",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0x7F000001",
    "0x7f.0x0.0x0.0x1",
    "0x7f.1",
    "0177.0.0.1",
    "0177.0.0.01",
    "00000177.0.0.1",
    "127.0.0.0x1",
    "127.0x0.1",
    "0x00000000000000007f.0.0.1",
    // As names.
    "localhost",
    "LOCALHOST",
    "LocalHost.",
    "localhost.localdomain",
    "ip6-localhost",
    "ip6-loopback",
    "foo.localhost",
    // IPv4 within IPv6: mapped, compatible, translated (NAT64), relayed (6to4, Teredo), ISATAP.
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:7F00:0001]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[0:0:0:0:0:ffff:7f00:1]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::7f00:1]",
    "[64:ff9b:1::a9fe:a9fe]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[2002:a00:1::]",
    "[2002:c0a8:101::]",
    "[2001:0:7f00:1::]",
    "[2001::1]",
    "[::ffff:0:127.0.0.1]",
    "[::ffff:0.0.0.0]",
    "[fe80::5efe:7f00:1]",
    // Where clouds keep credentials.
    "169.254.169.254",
    "169.254.169.253",
    "169.254.170.2",
    "169.254.0.1",
    "2852039166",
    "0xa9fea9fe",
    "0xA9FEA9FE",
    "0251.0376.0251.0376",
    "0251.254.169.254",
    "0xa9.0xfe.0xa9.0xfe",
    "169.254.43518",
    "169.16689662",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::a9fe:a9fe]",
    "[fd00:ec2::254]",
    "[fd00:0ec2:0:0:0:0:0:254]",
    "[fd20:ce::254]",
    "168.63.129.16",
    "[::ffff:168.63.129.16]",
    "0xa83f8110",
    "100.100.100.200",
    "192.0.0.192",
    // Private networks and what clusters use.
    "10.0.0.1",
    "10.96.0.1",
    "10.255.255.255",
    "167772161",
    "0xa000001",
    "012.0.0.1",
    "10.1",
    "172.16.0.1",
    "172.17.0.1",
    "172.31.255.255",
    "0xac100001",
    "192.168.0.1",
    "192.168.1.1",
    "192.168.255.255",
    "3232235777",
    "0xc0a80101",
    "0300.0250.1.1",
    "192.168.257",
    "100.64.0.1",
    "100.127.255.255",
    "[::ffff:10.0.0.1]",
    "[::ffff:192.168.1.1]",
    "[::ffff:172.16.0.1]",
    "[::ffff:100.64.0.1]",
    "[fc00::1]",
    "[fd00::1]",
    "[fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]",
    "[fe80::1]",
    "[febf::1]",
    "[fec0::1]",
    // Reserved, documentation, benchmarks, multicast, broadcast.
    "192.0.2.1",
    "198.51.100.1",
    "203.0.113.1",
    "198.18.0.1",
    "198.19.255.255",
    "192.88.99.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "4294967295",
    "0xffffffff",
    "[ff02::1]",
    "[ff0e::1]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[100::1]",
    "[4000::1]",
    "[::2]",
    // What is an address to some parsers and not to others.
    "127.0.0.1.",
    "127.0.0.1..",
    "[::1%lo]",
    "[fe80::1%25eth0]",
    "[::1",
    "::1",
];

/// Whole URIs that hide where they lead.
const DISGUISES: [&str; 12] = [
    "http://example.com@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT@example.com:PORT/",
    "http://user:password@localhost:PORT/",
    "http://example.com:80@[::1]:PORT/",
    "http://127.0.0.1:PORT#@example.com/",
    "http://127.0.0.1:PORT?@example.com/",
    "http://127.0.0.1:0PORT/",
    "http://[::ffff:127.0.0.1]:PORT/",
    "http://localhost:PORT/http://example.com/",
    "HTTP://LOCALHOST:PORT/",
    "gopher://127.0.0.1:PORT/",
    "//127.0.0.1:PORT/",
];

/// A server on every address of this machine that counts who comes.
async fn trap() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("[::]:0").await.unwrap();
    let (port, visits) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = visits.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Relaxed);
        }
    });
    (port, visits)
}

const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(10), first_byte: Duration::from_secs(10) };

/// What is no URI is refused before it comes here.
async fn refused(policy: &Policy, uri: &str) {
    let Ok(request) = Request::get(uri).body(Empty::<Bytes>::new()) else { return };
    let error = send(policy, request, TIMEOUTS).await.unwrap_err();
    let known = matches!(error, Error::Denied { .. } | Error::NameNotFound { .. } | Error::InvalidRequest(_));
    assert!(known, "{uri}: {error:?}");
}

#[tokio::test]
async fn no_spelling_of_an_address_within_gets_through() {
    let (port, visits) = trap().await;
    let policy = Policy::public();
    for host in SPELLINGS {
        let error = connect(&policy, host, port, TIMEOUTS.connect).await.unwrap_err();
        assert!(matches!(error, Error::Denied { .. } | Error::NameNotFound { .. }), "{host}: {error:?}");
        refused(&policy, &format!("http://{host}:{port}/")).await;
    }
    for disguise in DISGUISES {
        refused(&policy, &disguise.replace("PORT", &port.to_string())).await;
    }
    assert_eq!(visits.load(Relaxed), 0);
    // The server is there, for those who may reach it.
    let allowed = Policy::parse("127.0.0.1").unwrap();
    connect(&allowed, "127.0.0.1", port, TIMEOUTS.connect).await.unwrap();
    while visits.load(Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
}
