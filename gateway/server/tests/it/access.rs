use gateway_server::Credentials;

use crate::edge::Edge;

pub(crate) fn admin() -> Credentials {
    Credentials { user: "admin".into(), password: "secret".into() }
}

const ADMIN: &str = "Authorization: Basic YWRtaW46c2VjcmV0";

/// Every path under `/system` and `/ui`, there or not, in all spellings, with its status for those let in.
const PROTECTED: [(&str, &str, u16); 30] = [
    ("GET", "/system/functions", 200),
    ("POST", "/system/functions", 400),
    ("PUT", "/system/functions", 400),
    ("DELETE", "/system/functions", 400),
    ("PATCH", "/system/functions", 405),
    ("GET", "/system/function/f", 200),
    ("GET", "/system/function/missing", 404),
    ("POST", "/system/scale-function/f", 400),
    ("POST", "/system/scale-function/", 400),
    ("GET", "/system/namespaces", 200),
    ("GET", "/system/info", 200),
    ("POST", "/system/artifacts", 400),
    ("GET", "/system/logs?name=f", 200),
    ("POST", "/system/alert", 400),
    ("GET", "/system/secrets", 200),
    ("POST", "/system/secrets", 400),
    ("GET", "/system/namespace/dev", 200),
    ("POST", "/system/namespace/", 400),
    ("GET", "/system/telemetry", 404),
    ("GET", "/system", 404),
    ("GET", "/system/", 404),
    ("GET", "/system/x", 404),
    ("GET", "/system//functions", 404),
    ("GET", "/system/../system/functions", 404),
    ("GET", "/system/%66unctions", 404),
    ("GET", "http://other.example/system/functions", 200),
    ("OPTIONS", "/system/functions", 405),
    ("GET", "/ui", 404),
    ("GET", "/ui/", 404),
    ("GET", "/ui/index.html", 404),
];

/// Paths that look like protected ones and lead nowhere.
const NOWHERE: [&str; 7] = [
    "//system/functions",
    "/./system/functions",
    "/x/../system/functions",
    "/%73ystem/functions",
    "/SYSTEM/functions",
    "/systems",
    "/uix",
];

#[tokio::test]
async fn nothing_under_system_or_ui_answers_without_credentials() {
    for (method, target, status) in PROTECTED {
        // Wrong credentials are slowed down, so that each has a gateway of its own.
        let edge = Edge::start_with(Some(admin()));
        edge.provider.add("f");
        for header in [
            "X-None: 1",
            "Authorization: Basic YWRtaW46d3Jvbmc=",
            "Authorization: Bearer ",
            "Authorization: Basic ",
        ] {
            let answer = edge.request(method, target, &[header]).await;
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (401, "invalid credentials"),
                "{method} {target} {header}"
            );
            assert_eq!(answer.header("www-authenticate"), "Basic realm=\"Restricted\"");
            assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
            assert_eq!(answer.header("x-error-code"), "unauthenticated");
        }
        assert_eq!(edge.request(method, target, &[ADMIN]).await.status, status, "{method} {target}");
    }
    let edge = Edge::start_with(Some(admin()));
    for target in NOWHERE {
        assert_eq!(
            edge.get(target).await.error(),
            (404, "not-found".into(), "404 page not found"),
            "{target}"
        );
    }
}

#[tokio::test]
async fn who_guesses_is_slowed_down() {
    let edge = Edge::start_with(Some(admin()));
    let guess = "Authorization: Basic YWRtaW46d3Jvbmc=";
    for _ in 0..10 {
        assert_eq!(edge.request("GET", "/system/info", &[guess]).await.status, 401);
    }
    // What presents nothing is no guess, and is neither slowed down nor let in.
    assert_eq!(edge.request("GET", "/system/info", &["Authorization: Bearer "]).await.status, 401);
    let guesses = futures_util::future::join_all(
        (0..40).map(|_| async { edge.request("GET", "/system/info", &[guess]).await }),
    );
    let refused = guesses.await.into_iter().filter(|answer| answer.status == 429).collect::<Vec<_>>();
    assert!(refused.len() >= 30, "{}", refused.len());
    assert_eq!(refused[0].error().1, "too-many-attempts");
    assert!((1..60).contains(&refused[0].header("retry-after").parse::<u64>().unwrap()));
    assert_eq!(edge.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn calls_and_health_are_for_everybody() {
    let edge = Edge::start_with(Some(admin()));
    edge.provider.add("f");
    for target in ["/function/f", "/healthz", "/"] {
        assert_eq!(edge.get(target).await.status, 200, "{target}");
        assert_eq!(edge.request("GET", target, &["Authorization: Bearer "]).await.status, 200, "{target}");
    }
    assert_eq!(edge.request("HEAD", "/healthz", &[]).await.status, 200);
    assert_eq!(edge.request("POST", "/healthz", &[]).await.status, 405);
}

#[tokio::test]
async fn without_credentials_configured_any_are_tolerated() {
    let edge = Edge::start();
    for header in ["X-None: 1", "Authorization: Bearer ", "Authorization: Basic ****", "Authorization:"] {
        assert_eq!(edge.request("GET", "/system/functions", &[header]).await.status, 200, "{header}");
    }
}

#[tokio::test]
async fn a_function_is_managed_through_the_gateway() {
    let edge = Edge::start();
    let spec = r#"{"service":"hello","image":"registry.example/hello:1","labels":{}}"#;
    assert_eq!(edge.send("PUT", "/system/functions", &[], spec).await.status, 404);
    let deployed = edge.send("POST", "/system/functions", &[], spec).await;
    assert_eq!((deployed.status, deployed.header("allow")), (202, String::new()));
    assert_eq!(
        edge.request("PATCH", "/system/functions", &[]).await.header("allow"),
        "GET,HEAD,POST,PUT,DELETE"
    );
    assert_eq!(edge.send("POST", "/system/functions", &[], spec).await.status, 409);
    assert_eq!(edge.send("POST", "/system/scale-function/hello", &[], r#"{"replicas":2}"#).await.status, 202);
    let too_large = edge.send("POST", "/system/functions", &[], &" ".repeat((1 << 20) + 1)).await;
    assert_eq!(too_large.status, 413);
    assert_eq!(edge.send("POST", "/function/hello", &[], "hi").await.body, "hi");
    assert_eq!(
        edge.send("DELETE", "/system/functions", &[], r#"{"functionName":"hello"}"#).await.status,
        202
    );
    assert_eq!(edge.get("/function/hello").await.status, 404);
}

#[tokio::test]
async fn info_is_never_in_part() {
    let edge = Edge::start();
    let version =
        format!(r#""version":{{"sha":"abc123","release":"0.1.0"}},"arch":"{}"}}"#, std::env::consts::ARCH);
    let provider = r#"{"provider":{"provider":"fake","version":{"sha":"abc123","release":"0.0.1"},"orchestration":"memory"},"#;
    let info = edge.get("/system/info").await;
    assert_eq!((info.status, info.body), (200, provider.to_owned() + &version));

    edge.provider.fail_next(runtime_api::Error::unavailable("no node", "refused"));
    let provider = r#"{"provider":{"provider":"unknown","version":{"sha":"unknown","release":"unknown"},"orchestration":"unknown"},"#;
    let info = edge.get("/system/info").await;
    assert_eq!((info.status, info.body), (200, provider.to_owned() + &version));
}

#[tokio::test]
async fn health_ends_when_shutdown_begins_and_calls_do_not() {
    let edge = Edge::start();
    edge.provider.add("f");
    assert_eq!((edge.get("/healthz").await.status, edge.metrics("GET", "/healthz").await.status), (200, 200));
    edge.ending.cancel();
    assert_eq!(edge.get("/healthz").await.error(), (503, "unavailable".into(), "shutting down"));
    let metrics = edge.metrics("GET", "/healthz").await;
    assert_eq!(metrics.error(), (503, "unavailable".into(), "shutting down"));
    assert_eq!(edge.get("/function/f").await.status, 200);
}

#[tokio::test]
async fn pages_of_other_sites_may_call_functions_and_nothing_else() {
    let edges = [(Edge::start(), "X-None: 1"), (Edge::start_with(Some(admin())), ADMIN)];
    for (edge, credentials) in edges {
        edge.provider.add("f");
        for header in [
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-site",
            "Origin: http://evil.example",
            "Origin: http://edge.example:81",
            "Origin: null",
        ] {
            for (method, target, _) in PROTECTED {
                let answer = edge.request(method, target, &[header, credentials]).await;
                let (status, code, _) = answer.error();
                assert_eq!((status, code.as_str()), (403, "cross-site"), "{method} {target} {header}");
            }
            assert_eq!(edge.request("GET", "/function/f", &[header]).await.status, 200, "{header}");
        }
        for own in ["Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"] {
            assert_eq!(edge.request("GET", "/system/info", &[own, credentials]).await.status, 200, "{own}");
        }
    }
}

#[tokio::test]
async fn without_credentials_a_browser_names_an_address() {
    let (open, asking) = (Edge::start(), Edge::start_with(Some(admin())));
    let named = ["Origin: http://edge.example", ADMIN];
    assert_eq!(open.request("GET", "/system/info", &named).await.error().0, 403);
    assert_eq!(asking.request("GET", "/system/info", &named).await.status, 200);
    let address = open.address;
    let host = format!("Host: {address}");
    let origin = format!("Origin: http://{address}");
    let local = open.raw(&["GET /system/info HTTP/1.1", &host, &origin, "Connection: close"]).await;
    assert_eq!(local.status, 200);
}

#[tokio::test]
async fn health_is_the_providers() {
    let edge = Edge::start();
    edge.provider.fail_next(runtime_api::Error::Unavailable { message: "starting".into(), source: None });
    assert_eq!(edge.get("/healthz").await.error(), (503, "unavailable".into(), "starting"));
}
