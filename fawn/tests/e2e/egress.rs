//! What functions may not reach is not reached, however it is written, named or pointed at. On a network of its own that
//! has the addresses in question, and a server at each.

use std::{
    collections::HashMap,
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use crate::{
    edge::{Deployment, Edge},
    guests::built,
    process::not_run,
};

const WITHIN: &str = "FAWN_TEST_WITHIN_ITS_NETWORK";

/// Stands for the public internet.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);
/// Where clouds keep credentials.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Hosts as a function may write them, each of which some server here would answer.
const PRIVATE: [&str; 46] = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "0",
    "0.0.0.0",
    "2130706433",
    "0x7f000001",
    "017700000001",
    "0177.0.0.1",
    "0x7f.1",
    "127.127.127.127",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "foo.localhost",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[fd00:ec2::254]",
    "10.0.0.1",
    "167772161",
    "0xa000001",
    "012.0.0.1",
    "192.168.1.1",
    "3232235777",
    "0300.0250.1.1",
    "172.16.0.1",
    "100.64.0.1",
    "[::ffff:10.0.0.1]",
    "[fc00::1]",
    // As the name server here answers.
    "metadata.google.internal",
    "private.test",
    "mapped.test",
    "nip.127.0.0.1.test",
];

/// Runs what follows in namespaces of its own, where nothing is another's.
#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn no_function_reaches_what_is_not_public() {
    let script = "ip link set lo up
        for address in 93.184.216.34/32 169.254.169.254/32 10.0.0.1/32 192.168.1.1/32 172.16.0.1/32 100.64.0.1/32; do
            ip address add $address dev lo
        done
        for address in fd00:ec2::254 fc00::1 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1; do
            ip address add $address/128 dev lo nodad
        done
        echo nameserver 127.0.0.1 > $CONFIG && mount --bind $CONFIG /etc/resolv.conf
        exec $0 --ignored --exact egress::within_a_network_of_its_own --nocapture";
    let config = tempfile::NamedTempFile::new().unwrap();
    let own = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "--mount", "sh", "-ec", program]);
        command
    };
    let able = own("ip link set lo up").output();
    if !able.is_ok_and(|output| output.status.success()) {
        return not_run(
            "what is not public, of a network of its own: this user may make none, or `ip` is missing",
        );
    }
    let mut within = own(script);
    within.arg(env::current_exe().unwrap()).env(WITHIN, "1").env("CONFIG", config.path());
    let output = tokio::process::Command::from(within).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

/// Not a test of its own: what the test above runs in its network.
#[tokio::test]
#[ignore = "run by the test above"]
async fn within_a_network_of_its_own() {
    if env::var_os(WITHIN).is_none() {
        return;
    }
    let visits = Visits::default();
    let server = TcpListener::bind("[::]:80").await.unwrap();
    tokio::spawn(serve(server, visits.clone()));
    tokio::spawn(answer_names(UdpSocket::bind("127.0.0.1:53").await.unwrap()));
    let edge = Edge::start().await;
    edge.serve(Deployment::of("js", &edge.upload(built("js.wasm")).await)).await;
    let fetch = async |url: &str| {
        let query = reqwest::Url::parse_with_params("http://gateway/", [("url", url)]).unwrap();
        edge.get(&format!("/function/js/fetch?{}", query.query().unwrap())).await
    };

    for host in PRIVATE {
        let answer = fetch(&format!("http://{host}/")).await;
        assert!(answer.status == 502 && answer.text().starts_with("refused: "), "{host}: {answer}");
    }
    assert_eq!(visits.all(), HashMap::new());

    // The server of a public address is reached, also by name, and what it points to is not followed there.
    for host in ["93.184.216.34", "public.test", "0x5db8d822", "[::ffff:93.184.216.34]"] {
        assert_eq!(fetch(&format!("http://{host}/hello")).await.ok(), "200 you came to 93.184.216.34");
    }
    for status in [301, 302, 303, 307, 308] {
        let answer = fetch(&format!("http://public.test/{status}")).await;
        assert!(!answer.text().contains("you came"), "{status}: {answer}");
    }
    // A name that changes its mind between two questions: only an address that was itself checked is connected to.
    for _ in 0..20 {
        let answer = fetch("http://changing.test/hello").await.text();
        assert!(answer.starts_with("refused: ") || answer.ends_with("to 93.184.216.34"), "{answer}");
    }
    // Of a name with several addresses, those that may be reached are.
    assert_eq!(fetch("http://mixed.test/hello").await.ok(), "200 you came to 93.184.216.34");
    let all = visits.all();
    assert_eq!(all.keys().collect::<Vec<_>>(), [&IpAddr::V4(PUBLIC)], "{all:?}");
}

/// How often each address was connected to, but for the gateway's own.
#[derive(Clone, Default)]
struct Visits(Arc<Mutex<HashMap<IpAddr, u32>>>);

impl Visits {
    fn all(&self) -> HashMap<IpAddr, u32> {
        self.0.lock().unwrap().clone()
    }
}

/// Says who was called, or points to the metadata address.
async fn serve(listener: TcpListener, visits: Visits) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let address = stream.local_addr().unwrap().ip().to_canonical();
        *visits.0.lock().unwrap().entry(address).or_default() += 1;
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let path = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned();
            let answer = match path[1..].parse::<u16>() {
                Ok(status) => format!(
                    "HTTP/1.1 {status} Go\r\nlocation: http://{METADATA}/\r\ncontent-length: 0\r\n\r\n"
                ),
                Err(_) => {
                    let text = format!("you came to {address}");
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())
                }
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
    }
}

/// A name server (RFC 1035 §4) for the names used here.
async fn answer_names(socket: UdpSocket) {
    let (mut packet, mut asked) = ([0; 512], 0);
    loop {
        let (length, client): (usize, SocketAddr) = socket.recv_from(&mut packet).await.unwrap();
        let question_end = 12 + packet[12..length].iter().position(|&byte| byte == 0).unwrap() + 5;
        let (name, kind) = (labels(&packet[12..]), packet[question_end - 3]);
        let addresses: &[Ipv4Addr] = match name.as_str() {
            "public.test" => &[PUBLIC],
            "metadata.google.internal" => &[METADATA],
            "private.test" => &[Ipv4Addr::new(10, 0, 0, 1)],
            "nip.127.0.0.1.test" => &[Ipv4Addr::LOCALHOST],
            "mixed.test" => &[METADATA, PUBLIC],
            "changing.test" if kind == 1 => {
                asked += 1;
                if asked % 2 == 1 { &[PUBLIC] } else { &[METADATA] }
            }
            _ => &[],
        };
        let mut records: Vec<Vec<u8>> = Vec::new();
        if kind == 1 {
            records.extend(addresses.iter().map(|address| address.octets().to_vec()));
        } else if kind == 28 && name == "mapped.test" {
            records.push(METADATA.to_ipv6_mapped().octets().to_vec());
        }
        let mut answer = [&packet[..2], &[0x81, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]].concat();
        answer.extend_from_slice(&packet[12..question_end]);
        for record in records {
            // The name of the question, the type, the class IN, no time to live.
            answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, record.len() as u8]);
            answer.extend(record);
        }
        socket.send_to(&answer, client).await.unwrap();
    }
}

fn labels(mut name: &[u8]) -> String {
    let mut labels = Vec::new();
    while name[0] > 0 {
        let (label, rest) = name[1..].split_at(name[0].into());
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        name = rest;
    }
    labels.join(".")
}
