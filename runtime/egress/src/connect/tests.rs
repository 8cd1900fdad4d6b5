use tokio::net::TcpListener;

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_local_server_is_reached_with_an_allow_list_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();

    for host in ["127.0.0.1", "localhost", "LOCALHOST.", "[::ffff:127.0.0.1]", "127.1"] {
        let refused = connect(&Policy::public(), host, port, LIMIT).await.unwrap_err();
        assert!(matches!(refused, Error::Denied { .. }), "{host}: {refused}");
        let refused = connect(&Policy::none(), host, port, LIMIT).await.unwrap_err();
        assert!(matches!(refused, Error::Denied { .. }), "{host}: {refused}");

        let allowed = Policy::parse(&format!("localhost:{port},127.0.0.1:{port}")).unwrap();
        let stream = connect(&allowed, host, port, LIMIT).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), peer, "{host}");
    }
}

#[tokio::test]
async fn a_closed_port_and_a_nameless_host_are_told_apart() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let policy = Policy::parse("public,127.0.0.1").unwrap();
    let refused = connect(&policy, "127.0.0.1", port, LIMIT).await.unwrap_err();
    assert!(matches!(refused, Error::ConnectFailed { .. }), "{refused}");

    for nameless in
        ["", ".", "a b", "user@127.0.0.1", "127.0.0.1%00", "[127.0.0.1", "ä", "127.0.0.1/", "127.0.0.1#"]
    {
        let refused = resolve(&policy, nameless, 80).await.unwrap_err();
        assert!(matches!(refused, Error::NameNotFound { .. }), "{nameless:?}: {refused}");
    }
}

#[tokio::test]
async fn a_name_that_no_rule_allows_is_not_even_looked_up() {
    let policy = Policy::parse("api.example.com").unwrap();
    // Without permits a lookup could not start, and this would wait for one.
    policy.lookups.close();
    let refused = resolve(&policy, "secret-data.attacker.example", 53).await.unwrap_err();
    assert!(matches!(refused, Error::Denied { .. }), "{refused}");
}
