use futures_util::future::{join_all, pending};
use http::Response;
use runtime_api::{Error, Invocation, empty};
use runtime_http::Unattributed;

use crate::edge::{Edge, ok};

impl Edge {
    /// The lines of `/metrics` that are told apart by calls, not by time.
    async fn counted(&self) -> Vec<String> {
        let answer = self.metrics("GET", "/metrics").await;
        assert_eq!(
            (answer.status, answer.header("content-type").as_str()),
            (200, "text/plain; version=0.0.4")
        );
        let told = |line: &&str| !line.contains("_seconds_sum") && !line.contains("_seconds_bucket");
        answer.body.lines().filter(told).map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn calls_are_counted_in_openfaas_series() {
    let edge = Edge::start();
    edge.provider.script("f", async |_| ok("hi"));
    edge.provider.script("no.dev", async |_| Ok(Response::builder().status(418).body(empty()).unwrap()));
    edge.provider.script("odd", async |_| Ok(Response::builder().status(299).body(empty()).unwrap()));
    for target in [
        "/function/f",
        "/function/f.openfaas-fn/x",
        "/function/no.dev",
        "/function/odd",
        "/function/missing",
        "/system/functions",
    ] {
        edge.get(target).await;
    }
    let expected = r#"# HELP fawn_auth_failures_total Wrong credentials, by what they were for
# TYPE fawn_auth_failures_total counter
fawn_auth_failures_total{door="function",outcome="refused"} 0
fawn_auth_failures_total{door="function",outcome="throttled"} 0
fawn_auth_failures_total{door="system",outcome="refused"} 0
fawn_auth_failures_total{door="system",outcome="throttled"} 0
# HELP gateway_function_invocation_started Calls started
# TYPE gateway_function_invocation_started counter
gateway_function_invocation_started{function_name="f.openfaas-fn"} 2
gateway_function_invocation_started{function_name="no.dev"} 1
gateway_function_invocation_started{function_name="odd.openfaas-fn"} 1
# HELP gateway_function_invocation_total Calls completed
# TYPE gateway_function_invocation_total counter
gateway_function_invocation_total{code="200",function_name="f.openfaas-fn"} 2
gateway_function_invocation_total{code="418",function_name="no.dev"} 1
gateway_function_invocation_total{code="other",function_name="odd.openfaas-fn"} 1
# HELP gateway_functions_seconds Function time taken
# TYPE gateway_functions_seconds histogram
gateway_functions_seconds_count{code="200",function_name="f.openfaas-fn"} 2
gateway_functions_seconds_count{code="418",function_name="no.dev"} 1
gateway_functions_seconds_count{code="other",function_name="odd.openfaas-fn"} 1
# HELP gateway_service_count Replicas asked for
# TYPE gateway_service_count gauge
gateway_service_count{function_name="f.openfaas-fn"} 1
gateway_service_count{function_name="no.dev"} 1
gateway_service_count{function_name="odd.openfaas-fn"} 1"#;
    assert_eq!(edge.counted().await.join("\n"), expected);

    let text = edge.metrics("GET", "/metrics").await.body;
    let of_f = |line: &&str| line.starts_with("gateway_functions_seconds_bucket") && line.contains("\"f.");
    let bounds =
        text.lines().filter(of_f).map(|line| line.split("le=\"").nth(1).unwrap().split('"').next().unwrap());
    let expected = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];
    assert_eq!(bounds.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn made_up_names_and_removed_functions_have_no_series() {
    let edge = Edge::start();
    edge.provider.add("f");
    edge.get("/function/f").await;
    for made_up in 0..20 {
        edge.get(&format!("/function/made-up-{made_up}")).await;
    }
    assert_eq!(edge.counted().await.iter().filter(|line| line.contains("function_name")).count(), 4);

    edge.send("DELETE", "/system/functions", &[], r#"{"functionName":"f"}"#).await;
    assert_eq!(edge.get("/function/f").await.status, 404);
    assert!(!edge.metrics("GET", "/metrics").await.body.contains("function_name"));

    edge.provider.add("g");
    edge.get("/function/g").await;
    edge.send("DELETE", "/system/functions", &[], r#"{"functionName":"g"}"#).await;
    assert!(!edge.metrics("GET", "/metrics").await.body.contains("function_name"));
}

#[tokio::test]
async fn a_failure_that_need_not_be_a_functions_makes_no_series() {
    let edge = Edge::start();
    edge.provider.script("f", async |_| {
        let mut response = Response::builder().status(404).body(empty()).unwrap();
        response.extensions_mut().insert(Unattributed);
        Ok(response)
    });
    edge.get("/function/f").await;
    assert!(!edge.counted().await.iter().any(|line| line.starts_with("gateway_function_invocation_total{")));
    // It has been listed since.
    edge.get("/function/f").await;
    let counted = r#"gateway_function_invocation_total{code="404",function_name="f.openfaas-fn"} 1"#;
    assert!(edge.counted().await.contains(&counted.to_owned()));
}

#[tokio::test]
async fn who_is_not_let_in_does_not_count_as_a_call() {
    let edge = Edge::start();
    let asking = |invocation: Invocation| async move {
        let headers = invocation.request.headers();
        if headers.get("authorization").is_some_and(|given| given == "Bearer right") {
            return ok("hi");
        }
        Err(Error::Unauthenticated { challenge: "Bearer".into() })
    };
    for name in ["told", "found"] {
        edge.provider.script(name, asking);
    }
    // One is not known yet when it is called; the other is listed before, with what it asks for.
    assert_eq!(edge.get("/function/found").await.status, 401);
    let wrong = ["Authorization: Bearer wrong"];
    let guesses = join_all((0..40).map(|_| edge.request("GET", "/function/found", &wrong))).await;
    assert!(guesses.iter().any(|answer| answer.status == 429));
    for name in ["told", "found"] {
        let asks = r#""annotations":{"dev.fawn.bearer-secret":"s"}"#;
        let spec = format!(r#"{{"service":"{name}","image":"a/b",{asks}}}"#);
        assert_eq!(edge.send("PUT", "/system/functions", &[], &spec).await.status, 202);
    }
    edge.counted().await;
    assert_eq!(edge.get("/function/told").await.status, 401);
    let lines = edge.counted().await;
    let counted = |line: &&String| line.starts_with("gateway_function_invocation_") && !line.ends_with(" 0");
    assert_eq!(lines.iter().filter(counted).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(lines.iter().any(|line| line.starts_with("fawn_auth_failures_total") && !line.ends_with(" 0")));
}

#[tokio::test]
async fn calls_of_those_who_are_let_in_count() {
    let edge = Edge::start();
    edge.provider.script("f", async |_| ok("hi"));
    let spec = r#"{"service":"f","image":"a/b","annotations":{"faas.net/basic-auth":"true"}}"#;
    assert_eq!(edge.send("PUT", "/system/functions", &[], spec).await.status, 202);
    edge.counted().await;
    edge.get("/function/f").await;
    let lines = edge.counted().await;
    for line in [
        r#"gateway_function_invocation_started{function_name="f.openfaas-fn"} 1"#,
        r#"gateway_function_invocation_total{code="200",function_name="f.openfaas-fn"} 1"#,
    ] {
        assert!(lines.contains(&line.to_owned()), "{line}");
    }
}

#[tokio::test]
async fn a_call_is_started_before_it_ends_and_499_when_its_client_leaves() {
    let edge = Edge::start();
    edge.provider.script("hang", async |_| pending().await);
    assert!(
        edge.counted()
            .await
            .contains(&r#"gateway_function_invocation_started{function_name="hang.openfaas-fn"} 0"#.into())
    );
    let client = edge.open("GET /function/hang HTTP/1.1").await;
    let mut in_flight = edge.provider.in_flight();
    in_flight.wait_for(|count| *count == 1).await.unwrap();
    let running = edge.counted().await;
    assert!(
        running
            .contains(&r#"gateway_function_invocation_started{function_name="hang.openfaas-fn"} 1"#.into())
    );
    assert!(!running.iter().any(|line| line.starts_with("gateway_function_invocation_total")));

    drop(client);
    in_flight.wait_for(|count| *count == 0).await.unwrap();
    let left = r#"gateway_function_invocation_total{code="499",function_name="hang.openfaas-fn"} 1"#;
    while !edge.counted().await.contains(&left.to_owned()) {}
}

#[tokio::test]
async fn replicas_are_as_of_now_or_as_last_known() {
    let edge = Edge::start();
    edge.provider.add("f");
    edge.send("POST", "/system/scale-function/f", &[], r#"{"replicas":4}"#).await;
    let four = r#"gateway_service_count{function_name="f.openfaas-fn"} 4"#.to_owned();
    assert!(edge.counted().await.contains(&four));
    edge.provider.fail_next(Error::unavailable("no node", "refused"));
    assert!(edge.counted().await.contains(&four));
    edge.send("POST", "/system/scale-function/f", &[], r#"{"replicas":0}"#).await;
    assert!(edge.counted().await.contains(&four.replace(" 4", " 0")));
}

#[tokio::test]
async fn a_list_tells_how_often_each_function_was_called() {
    let edge = Edge::start();
    for name in ["busy", "idle"] {
        edge.provider.add(name);
    }
    edge.provider.script("busy", async |_| ok("hi"));
    for _ in 0..3 {
        edge.get("/function/busy").await;
    }
    let list = edge.get("/system/functions").await.body;
    assert_eq!(list.matches("invocationCount").count(), 1, "{list}");
    assert!(list.contains(r#""namespace":"openfaas-fn","invocationCount":3.0,"#), "{list}");
}

#[tokio::test]
async fn the_metrics_port_has_two_routes() {
    let edge = Edge::start();
    let health = edge.metrics("GET", "/healthz").await;
    assert_eq!((health.status, health.body.as_str()), (200, "OK"));
    assert_eq!(edge.metrics("POST", "/healthz").await.status, 405);
    assert_eq!(edge.metrics("POST", "/metrics").await.status, 405);
    for nowhere in ["/", "/system/functions", "/function/f"] {
        assert_eq!(edge.metrics("GET", nowhere).await.status, 404);
    }
    assert_eq!(edge.get("/metrics").await.status, 404);
}
