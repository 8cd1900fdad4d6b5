use runtime_api::{FunctionName, FunctionSpec, Provider};

use crate::edge::Edge;

/// What Alertmanager posts, shortened.
fn alert(status: &str, function: &str) -> String {
    format!(
        r#"{{"receiver":"scale-up","status":"{status}","alerts":[{{"status":"{status}","labels":{{"alertname":"APIHighInvocationRate","function_name":"{function}"}},"startsAt":"2026-01-01T00:00:00Z"}}]}}"#
    )
}

async fn replicas(edge: &Edge, function: &str) -> u64 {
    edge.provider.status(&FunctionName::parse(function).unwrap()).await.unwrap().replicas
}

#[tokio::test]
async fn alerts_scale_the_functions_that_they_name() {
    let edge = Edge::start();
    edge.provider.add("hello");
    let spec = r#"{"service":"busy","namespace":"dev","image":"a/b","labels":{"com.openfaas.scale.max":"4","com.openfaas.scale.factor":"50","com.openfaas.scale.min":"2"}}"#;
    edge.provider.deploy(serde_json::from_str::<FunctionSpec>(spec).unwrap()).await.unwrap();
    for (status, function, expected) in [
        ("firing", "hello", 3),
        ("firing", "hello.openfaas-fn", 5),
        ("resolved", "hello.openfaas-fn", 1),
        ("firing", "busy.dev", 3),
        ("firing", "busy.dev", 4),
        ("firing", "busy.dev", 4),
        ("resolved", "busy.dev", 2),
    ] {
        let answer = edge.send("POST", "/system/alert", &[], &alert(status, function)).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{status} {function}");
        assert_eq!(replicas(&edge, function).await, expected, "{status} {function}");
    }
    for unknown in ["missing", "busy", "Not a name", ""] {
        assert_eq!(edge.send("POST", "/system/alert", &[], &alert("firing", unknown)).await.status, 200);
    }
}

#[tokio::test]
async fn what_is_no_alert_is_refused() {
    let edge = Edge::start();
    for (body, why) in [
        ("", "A body is required for this endpoint"),
        ("{", "Unable to parse alert, bad format."),
        (r#"{"alerts":"all"}"#, "Unable to parse alert, bad format."),
    ] {
        let answer = edge.send("POST", "/system/alert", &[], body).await;
        let (status, code, text) = answer.error();
        assert_eq!((status, code.as_str()), (400, "invalid-alert"));
        assert!(text.starts_with(why), "{text}");
    }
}

#[tokio::test]
async fn one_that_cannot_be_scaled_keeps_no_other_from_it() {
    let edge = Edge::start();
    for function in ["a", "b"] {
        edge.provider.add(function);
    }
    edge.provider.fail_next(runtime_api::Error::unavailable("no node", "refused"));
    let of = |function: &str| format!(r#"{{"status":"firing","labels":{{"function_name":"{function}"}}}}"#);
    let body = format!(r#"{{"alerts":[{},{}]}}"#, of("a"), of("b"));
    let answer = edge.send("POST", "/system/alert", &[], &body).await;
    assert_eq!((answer.status, answer.body.as_str()), (500, "[0] no node\n"));
    assert_eq!((replicas(&edge, "a").await, replicas(&edge, "b").await), (1, 3));
}
