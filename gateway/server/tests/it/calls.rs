use std::{future::ready, time::Duration};

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use runtime_api::{Error, Invocation, empty, full};
use runtime_testing::FakeProvider;

use crate::edge::{Edge, ok, read_until};

/// Answers with the request as the function sees it: target, then a header a line.
fn mirror(provider: &FakeProvider, name: &str) {
    provider.script(name, async |invocation: Invocation| {
        let request = invocation.request;
        let mut seen = format!("{} {}\n", request.method(), request.uri());
        for (name, value) in request.headers() {
            seen += &format!("{name}: {}\n", value.to_str().unwrap());
        }
        ok(seen)
    });
}

/// What the function saw of one header, each of its lines.
fn seen<'a>(body: &'a str, header: &str) -> Vec<&'a str> {
    body.lines().filter_map(|line| line.strip_prefix(header)?.strip_prefix(": ")).collect()
}

#[tokio::test]
async fn a_call_reaches_its_function_and_the_answer_is_the_functions_own() {
    let edge = Edge::start();
    edge.provider.add("echo");
    edge.provider.script("moved.dev", async |_| {
        let moved =
            Response::builder().status(StatusCode::MOVED_PERMANENTLY).header("location", "/elsewhere");
        Ok(moved.header("set-cookie", "a=1").header("set-cookie", "b=2").body(empty()).unwrap())
    });
    let echoed = edge.send("POST", "/function/echo", &["Content-Type: text/html"], "hello").await;
    assert_eq!((echoed.status, echoed.body.as_str()), (200, "hello"));
    assert_eq!(
        (echoed.header("content-type"), echoed.header("content-length")),
        ("text/html".into(), "5".into())
    );
    assert_eq!(echoed.header("x-served-by"), "fawn/0.1.0");
    assert!(echoed.header("x-start-time").parse::<u128>().unwrap() > 1_600_000_000_000_000_000);

    let moved = edge.get("/function/moved.dev/x").await;
    assert_eq!(
        (moved.status, moved.header("location"), moved.header("set-cookie")),
        (301, "/elsewhere".into(), "a=1 | b=2".into())
    );
}

#[tokio::test]
async fn the_path_and_query_arrive_byte_for_byte() {
    let edge = Edge::start();
    mirror(&edge.provider, "f");
    for (target, seen) in [
        ("/function/f", "/"),
        ("/function/f/", "/"),
        ("/function/f?q=1", "/?q=1"),
        ("/function/f/?", "/?"),
        ("/function/f/a/b?q=1&q=%202", "/a/b?q=1&q=%202"),
        ("/function/f/a/", "/a/"),
        ("/function/f//", "//"),
        ("/function/f//a//b", "//a//b"),
        ("/function/f/../x", "/../x"),
        ("/function/f/./x/..", "/./x/.."),
        ("/function/f/%2e%2e/%2F/%20/%zz/%", "/%2e%2e/%2F/%20/%zz/%"),
        ("/function/f/a;b=c,d/@:!$'()*+=~|^{}\"[]", "/a;b=c,d/@:!$'()*+=~|^{}\"[]"),
        ("/function/f/function/f", "/function/f"),
        ("/function/f.openfaas-fn/x", "/x"),
        ("http://edge.example/function/f/x?y", "/x?y"),
    ] {
        let answer = edge.get(target).await;
        assert_eq!(answer.body.lines().next(), Some(&*format!("GET {seen}")), "{target}");
    }
}

#[tokio::test]
async fn the_seven_methods_are_called_and_others_are_405() {
    let edge = Edge::start();
    mirror(&edge.provider, "f");
    for method in ["POST", "PUT", "PATCH", "DELETE", "GET", "OPTIONS"] {
        assert!(edge.request(method, "/function/f", &[]).await.body.starts_with(&format!("{method} /\n")));
    }
    let head = edge.request("HEAD", "/function/f", &[]).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    for method in ["TRACE", "PROPFIND", "get"] {
        let refused = edge.request(method, "/function/f", &[]).await;
        assert_eq!((refused.status, refused.body.as_str()), (405, ""), "{method}");
    }
}

#[tokio::test]
async fn a_call_without_an_id_gets_one_and_everybody_hears_of_it() {
    let edge = Edge::start();
    mirror(&edge.provider, "f");
    let first = edge.get("/function/f").await;
    let id = first.header("x-call-id");
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 4);
    assert_eq!(seen(&first.body, "x-call-id"), [id.as_str()]);
    assert_ne!(edge.get("/function/f").await.header("x-call-id"), id);
}

#[tokio::test]
async fn a_clients_call_id_is_kept_unless_it_is_unfit() {
    let edge = Edge::start();
    mirror(&edge.provider, "f");
    let kept = edge.request("GET", "/function/f", &["x-call-id: my/call-1"]).await;
    assert_eq!(
        (kept.header("x-call-id"), seen(&kept.body, "x-call-id")),
        ("my/call-1".into(), vec!["my/call-1"])
    );
    for unfit in ["", "a b", "\u{e4}", &"x".repeat(129)] {
        let answer = edge.request("GET", "/function/f", &[&format!("X-Call-Id: {unfit}")]).await;
        let id = answer.header("x-call-id");
        assert!(uuid::Uuid::parse_str(&id).is_ok(), "{unfit:?} became {id:?}");
        assert_eq!(seen(&answer.body, "x-call-id"), [id.as_str()]);
    }
}

#[tokio::test]
async fn every_answer_carries_the_call_id() {
    let edge = Edge::start_with(Some(crate::access::admin()));
    edge.provider.script("trap", async |_| {
        Err(Error::FunctionFailed { code: "trap".into(), message: "it trapped".into(), source: None })
    });
    for (target, status) in [
        ("/function/missing", 404),
        ("/function/a b", 400),
        ("/function/trap", 500),
        ("/function/", 404),
        ("/system/functions", 401),
        ("/healthz", 200),
        ("/", 200),
        ("/nowhere", 404),
    ] {
        let answer = edge.request("GET", target, &["X-Call-Id: call-7"]).await;
        assert_eq!(answer.status, status, "{target}");
        // A request that does not parse is not one to echo.
        let expected = if status == 400 { ("", "") } else { ("call-7", "fawn/0.1.0") };
        assert_eq!((&*answer.header("x-call-id"), &*answer.header("x-served-by")), expected, "{target}");
    }
}

#[tokio::test]
async fn the_function_learns_where_the_call_came_from() {
    let edge = Edge::start();
    mirror(&edge.provider, "f");
    let plain = edge.get("/function/f").await.body;
    assert_eq!(seen(&plain, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen(&plain, "x-forwarded-host"), ["edge.example"]);
    assert_eq!(seen(&plain, "host"), ["edge.example"]);
    assert_eq!(seen(&plain, "x-start-time").len(), 1);

    let headers = [
        "X-Forwarded-For: 192.0.2.1, 192.0.2.2",
        "X-Forwarded-For: 192.0.2.3",
        "X-Forwarded-Host: shop.example",
        "X-Start-Time: 5",
    ];
    let proxied = edge.request("GET", "/function/f", &headers).await.body;
    assert_eq!(seen(&proxied, "x-forwarded-for"), ["192.0.2.1, 192.0.2.2, 192.0.2.3, 127.0.0.1"]);
    assert_eq!(seen(&proxied, "x-forwarded-host"), ["shop.example"]);
    assert_eq!(seen(&proxied, "x-start-time")[0], "5");
    assert_eq!(seen(&proxied, "x-start-time").len(), 2);
}

#[tokio::test]
async fn the_target_of_a_request_says_more_than_its_host() {
    let edge = Edge::start();
    mirror(&edge.provider, "f");
    let body = edge.get("http://user@other.example:81/function/f").await.body;
    assert_eq!(seen(&body, "x-forwarded-host"), ["other.example:81"]);
    assert_eq!(seen(&body, "host"), ["other.example:81"]);
}

#[tokio::test]
async fn a_request_names_one_host() {
    let edge = Edge::start();
    edge.provider.add("f");
    for (version, hosts, says) in [
        ("1.1", &[][..], "the request has no Host header"),
        ("1.1", &["Host: a.example", "Host: a.example"], "the request has more than one Host header"),
        ("1.1", &["Host: a.example", "host: b.example"], "the request has more than one Host header"),
        ("1.0", &["Host: a.example", "Host: b.example"], "the request has more than one Host header"),
        ("1.1", &["Host: a b"], "the request's Host header is neither a name nor an address"),
        ("1.1", &["Host: u@a.example"], "the request's Host header is neither a name nor an address"),
    ] {
        for target in ["/function/f", "/system/info", "/healthz", "http://a.example/function/f"] {
            let first = format!("GET {target} HTTP/{version}");
            let refused = edge.raw(&[&[first.as_str()], hosts].concat()).await;
            assert_eq!(refused.error(), (400, "invalid-host".into(), says), "{first} {hosts:?}");
            assert_eq!(refused.header("connection"), "close");
        }
    }
    for (version, hosts) in
        [("1.0", &[][..]), ("1.1", &["Host:"]), ("1.1", &["Host: [::1]:80"]), ("1.1", &["Host: a_b"])]
    {
        let first = format!("GET /function/f HTTP/{version}");
        let answer = edge.raw(&[&[first.as_str(), "Connection: close"], hosts].concat()).await;
        assert_eq!(answer.status, 200, "{first} {hosts:?}");
    }
}

#[tokio::test]
async fn an_encoding_that_is_not_undone_is_not_implemented() {
    let edge = Edge::start();
    edge.provider.add("f");
    for encodings in [
        &["Transfer-Encoding: gzip, chunked"][..],
        &["Transfer-Encoding: chunked, chunked"],
        &["Transfer-Encoding: identity, chunked"],
        &["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"],
    ] {
        for target in ["/function/f", "/system/functions"] {
            let first = format!("POST {target} HTTP/1.1");
            let refused = edge.raw(&[&[first.as_str(), "Host: a.example"], encodings].concat()).await;
            let (status, code, _) = refused.error();
            assert_eq!((status, code.as_str()), (501, "unsupported-transfer-encoding"), "{encodings:?}");
            assert_eq!(refused.header("connection"), "close");
        }
    }
    let mut chunked = edge.open("POST /function/f HTTP/1.1\r\nTransfer-Encoding: Chunked").await;
    tokio::io::AsyncWriteExt::write_all(&mut chunked, b"2\r\nhi\r\n0\r\n\r\n").await.unwrap();
    assert!(read_until(&mut chunked, "\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn headers_of_one_connection_go_no_further() {
    let edge = Edge::start();
    mirror(&edge.provider, "f");
    let headers = [
        "Connection: close, X-Secret , x-forwarded-for",
        "X-Secret: 1",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic eA==",
        "Proxy-Authenticate: Basic",
        "TE: trailers",
        "Trailer: X-Sum",
        "Upgrade: websocket",
        "X-Forwarded-For: 192.0.2.1",
        "Authorization: Bearer token",
        "Accept: text/event-stream",
    ];
    let body = edge.request("GET", "/function/f", &headers).await.body;
    let mut names: Vec<_> = body.lines().skip(1).map(|line| line.split(':').next().unwrap()).collect();
    names.sort_unstable();
    let expected = [
        "accept",
        "authorization",
        "host",
        "x-call-id",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-start-time",
    ];
    assert_eq!(names, expected);
    assert_eq!(seen(&body, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen(&body, "authorization"), ["Bearer token"]);

    edge.provider.script("chatty", async |_| {
        let response = Response::builder()
            .header("connection", "x-private, upgrade")
            .header("x-private", "1")
            .header("upgrade", "h2c")
            .header("keep-alive", "timeout=9")
            .header("transfer-encoding", "gzip")
            .header("trailer", "x-sum")
            .header("www-authenticate", "Bearer realm=\"mine\"")
            .header("x-call-id", "forged")
            .header("x-served-by", "forged");
        Ok(response.body(full("hi")).unwrap())
    });
    let answer = edge.request("GET", "/function/chatty", &["X-Call-Id: mine"]).await;
    for gone in ["x-private", "upgrade", "keep-alive", "transfer-encoding", "trailer"] {
        assert_eq!(answer.header(gone), "", "{gone}");
    }
    assert_eq!((answer.body.as_str(), answer.header("content-length").as_str()), ("hi", "2"));
    assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"mine\"");
    assert_eq!((&*answer.header("x-call-id"), &*answer.header("x-served-by")), ("mine", "fawn/0.1.0"));
}

#[tokio::test]
async fn a_client_cannot_take_away_what_names_the_call() {
    let edge = Edge::start();
    mirror(&edge.provider, "f");
    let headers = ["Connection: close, X-Call-Id, x-start-time, host", "X-Call-Id: mine"];
    let body = edge.request("GET", "/function/f", &headers).await.body;
    assert_eq!((seen(&body, "x-call-id"), seen(&body, "host")), (vec!["mine"], vec!["edge.example"]));
    assert_eq!(seen(&body, "x-start-time").len(), 1);
}

#[tokio::test]
async fn a_missing_content_type_is_filled_in() {
    let edge = Edge::start();
    edge.provider.script("f", async |_| ok("{}"));
    let typed = edge.send("POST", "/function/f", &["Content-Type: application/json"], "{}").await;
    assert_eq!(typed.header("content-type"), "application/json");
    assert_eq!(edge.get("/function/f").await.header("content-type"), "text/plain");
}

#[tokio::test]
async fn an_unknown_function_is_not_found_in_known_words() {
    let edge = Edge::start();
    for (target, function) in [
        ("/function/missing", "missing.openfaas-fn"),
        ("/function/missing.dev/x?y", "missing.dev"),
        ("/function/Upper", "Upper.openfaas-fn"),
        ("/function/a.b.c", "a.b.c"),
        ("/function/..", ".."),
    ] {
        let answer = edge.request("POST", target, &["X-Call-Id: 1"]).await;
        let (status, code, text) = answer.error();
        assert_eq!((status, code.as_str()), (404, "not-found"), "{target}");
        assert!(text.starts_with(&format!("error finding function {function}: ")), "{text}");
    }
    for no_route in
        ["/function", "/function/", "/function//x", "/function/a%20b", "/function/a~b/x", "/functions/a"]
    {
        let answer = edge.get(no_route).await;
        assert_eq!(answer.error(), (404, "not-found".into(), "404 page not found"), "{no_route}");
    }
}

#[tokio::test]
async fn what_goes_wrong_with_a_call_has_its_status() {
    let edge = Edge::start();
    let failed = |code: &'static str| Error::FunctionFailed {
        code: code.into(),
        message: "it failed".into(),
        source: None,
    };
    let full = || Error::Overloaded { message: "no room".into(), retry_after: Duration::from_secs(1) };
    edge.provider.script("busy", async |_| Err(Error::TooManyCalls { max_inflight: 3 }));
    edge.provider.script("full", move |_| ready(Err(full())));
    edge.provider.script("late", async |_| Err(Error::TimedOut("60 s are over".into())));
    edge.provider.script("trap", move |_| ready(Err(failed("trap"))));
    edge.provider.script("mute", move |_| ready(Err(failed("no-response"))));
    edge.provider.script("bug", async |_| Err(Error::internal("/var/lib/secret")));
    edge.provider.script("gone", async |_| Err(Error::unavailable("no node", "refused")));
    let limit = "Concurrent request limit exceeded. Max concurrent requests: 3\n";
    let bug = "internal error; the log has more under call id 1\n";
    for (name, status, code, body, internal) in [
        ("busy", 429, "over-limit", limit, "faas-middleware"),
        ("full", 503, "no-capacity", "no room\n", "proxy"),
        ("late", 504, "timeout", "", "of-watchdog"),
        ("trap", 500, "trap", "it failed\n", "of-watchdog"),
        ("mute", 502, "no-response", "it failed\n", "of-watchdog"),
        ("bug", 500, "internal", bug, "proxy"),
        ("gone", 503, "unavailable", "no node\n", "proxy"),
    ] {
        let answer = edge.request("GET", &format!("/function/{name}"), &["X-Call-Id: 1"]).await;
        assert_eq!((answer.status, &*answer.header("x-error-code"), &*answer.body), (status, code, body));
        assert_eq!(answer.header("x-openfaas-internal"), internal, "{name}");
    }
    assert_eq!(edge.get("/function/full").await.header("retry-after"), "1");
    assert_eq!(edge.get("/function/busy").await.header("content-type"), "text/plain");
}

#[tokio::test]
async fn an_interim_status_is_no_answer() {
    let edge = Edge::start();
    edge.provider.script("f", async |_| Ok(Response::builder().status(101).body(empty()).unwrap()));
    let answer = edge.get("/function/f").await;
    let text = "the function answered with the interim status 101; answer with 200 to 599";
    assert_eq!(answer.error(), (502, "bad-response".into(), text));
}

#[tokio::test]
async fn a_request_cannot_be_read_as_two() {
    let edge = Edge::start();
    edge.provider.script("f", async |invocation: Invocation| {
        let headers = invocation.request.headers();
        let (length, encoding) =
            (headers.contains_key("content-length"), headers.contains_key("transfer-encoding"));
        let body = invocation.request.into_body().collect().await.unwrap().to_bytes();
        ok(format!("{length} {encoding} {}", String::from_utf8(body.to_vec()).unwrap()))
    });
    let chunked = "Transfer-Encoding: chunked";
    let both = edge
        .open(&format!("POST /function/f HTTP/1.1\r\nConnection: close\r\nContent-Length: 3\r\n{chunked}"))
        .await;
    assert_eq!(
        finish(both, "2\r\nhi\r\n0\r\n\r\nGET /function/f HTTP/1.1\r\n\r\n").await,
        (200, "false false hi".into())
    );
    for smuggled in [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: +2",
        "Content-Length: 0x2",
        "Content-Length: 2, 3",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "X: 1\r\n folded",
    ] {
        let stream = edge.open(&format!("POST /function/f HTTP/1.1\r\n{smuggled}")).await;
        assert_eq!(finish(stream, "hi").await, (400, String::new()), "{smuggled}");
    }
}

async fn finish(mut stream: tokio::net::TcpStream, rest: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}
