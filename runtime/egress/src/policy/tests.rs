use super::*;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn the_default_is_the_public_internet() {
    let policy = Policy::default();
    assert!(policy.allows(at("1.1.1.1:443")) && policy.allows_as("one.one.one.one", at("1.1.1.1:443")));
    assert!(!policy.allows(at("127.0.0.1:80")) && !policy.allows_as("localhost", at("127.0.0.1:80")));
    for none in [Policy::none(), Policy::parse("none").unwrap()] {
        assert!(!none.allows(at("1.1.1.1:443")) && !none.may_look_up("one.one.one.one", 443));
    }
}

#[test]
fn addresses_are_matched_however_they_were_named() {
    let policy = Policy::parse("10.0.0.0/8:5432, 127.0.0.1, [fd00::/8]:443, [::1]:80").unwrap();
    assert!(policy.allows(at("10.9.8.7:5432")) && !policy.allows(at("10.9.8.7:5433")));
    assert!(policy.allows(at("127.0.0.1:1")) && !policy.allows(at("127.0.0.2:1")));
    assert!(policy.allows(at("[::ffff:127.0.0.1]:1")));
    assert!(policy.allows(at("[fd00::1]:443")) && !policy.allows(at("[fd00::1]:80")));
    assert!(policy.allows(at("[::1]:80")) && !policy.allows(at("[::1]:81")));
    assert!(policy.allows_as("db.internal", at("10.0.0.1:5432")));
    assert!(!policy.allows(at("1.1.1.1:443")), "a list without public allows what it lists only");
}

#[test]
fn names_are_matched_and_what_they_resolve_to_is_still_looked_at() {
    let policy = Policy::parse("DB.internal.:5432,*.Example.com,localhost:9000,metadata.evil").unwrap();
    assert!(policy.allows_as("db.internal", at("10.0.0.1:5432")));
    assert!(!policy.allows_as("db.internal", at("10.0.0.1:80")));
    assert!(
        policy.allows_as("a.example.com", at("1.1.1.1:1"))
            && policy.allows_as("a.b.example.com", at("1.1.1.1:1"))
    );
    assert!(
        !policy.allows_as("example.com", at("1.1.1.1:1"))
            && !policy.allows_as("aexample.com", at("1.1.1.1:1"))
    );
    assert!(policy.allows_as("localhost", at("127.0.0.1:9000")));
    for bent in [
        "169.254.169.254:1",
        "127.0.0.1:1",
        "[::1]:1",
        "[fd00:ec2::254]:1",
        "0.0.0.0:1",
        "[fe80::1]:1",
        "[::ffff:169.254.169.254]:1",
        "[64:ff9b::a9fe:a9fe]:1",
        "224.0.0.1:1",
        "168.63.129.16:1",
    ] {
        assert!(!policy.allows_as("metadata.evil", at(bent)), "{bent}");
    }
    assert!(!policy.may_look_up("other.host", 80) && policy.may_look_up("metadata.evil", 80));
}

#[test]
fn a_function_replaces_the_default_or_keeps_it() {
    let default = Policy::parse("public,10.0.0.0/8").unwrap();
    assert!(default.for_function(None).unwrap().allows(at("10.0.0.1:1")));
    assert!(!default.for_function(Some("none")).unwrap().may_look_up("one.one.one.one", 443));
    assert!(!default.for_function(Some("public")).unwrap().allows(at("10.0.0.1:1")));
    assert!(default.for_function(Some("")).is_err());
}

#[test]
fn says_what_is_wrong_with_an_entry() {
    for (text, expected) in [
        ("", "is empty"),
        ("a,,b", "is empty"),
        ("none,public", "beside"),
        ("host:0", "port"),
        ("host:99999", "port"),
        ("host:", "port"),
        ("10.0.0.1/8", "bits set"),
        ("10.0.0.0/33", "longer than /32"),
        ("fd00::/129", "longer"),
        ("10.0.0/8", "range"),
        ("10.0.0.0/x", "range"),
        ("::ffff:10.0.0.0/104", "IPv4"),
        ("http://host", "range"),
        ("*", "host name"),
        ("*.", "host name"),
        ("a.*.b", "host name"),
        ("a b", "host name"),
        ("2130706433", "host name"),
        ("0x7f000001", "host name"),
        ("127.1", "host name"),
        ("user@host", "host name"),
        ("[::1", "bracket"),
        ("[::1]x", "bracket"),
        ("a..b", "host name"),
        ("ä.de", "host name"),
    ] {
        let message = Policy::parse(text).unwrap_err().to_string();
        assert!(message.contains(expected), "{text:?}: {message}");
    }
    assert!(Policy::parse(&vec!["a"; MAX_ENTRIES + 1].join(",")).is_err());
}
