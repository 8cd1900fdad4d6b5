//! `/system/async…`.

use gateway_queue::{Limits, State};
use serde_json::{Value, json};

use super::{queued::Queued, target::status_of};
use crate::access::admin;

async fn json(gateway: &Queued, method: &str, target: &str) -> Value {
    let answer = gateway.request(method, target, &[]).await;
    assert_eq!(
        (answer.status, &*answer.header("content-type")),
        (200, "application/json"),
        "{method} {target}"
    );
    serde_json::from_str(&answer.body).unwrap()
}

async fn dead(gateway: &Queued, ids: &[&str]) {
    gateway.provider.script("f.dev", async |_| Ok(status_of(500)));
    gateway.provider.annotate("f.dev", "com.openfaas.retry.attempts", "0");
    for id in ids {
        gateway.keep("f.dev", id, &[], "kept").await;
        gateway.reaches(id, State::Dead).await;
    }
}

#[tokio::test]
async fn how_many_calls_there_are_is_told() {
    let gateway = Queued::start();
    assert_eq!(json(&gateway, "GET", "/system/async").await, json!({"functions": [], "damaged": []}));
    gateway.provider.add("f");
    dead(&gateway, &["1", "2"]).await;
    gateway.keep("f", "3", &["X-Delay-Seconds: 60"], "kept").await;
    gateway.keep("f", "4", &[], "kept").await;
    gateway.reaches("4", State::Succeeded).await;
    let mut told = json(&gateway, "GET", "/system/async").await;
    for function in told["functions"].as_array_mut().unwrap() {
        let bytes = function.as_object_mut().unwrap().remove("bytes").unwrap();
        assert!((1..100_000).contains(&bytes.as_u64().unwrap()), "{bytes}");
    }
    let count = |name: &str, namespace: &str, waiting: u64, dead: u64, succeeded: u64| {
        json!({"name": name, "namespace": namespace, "queued": 0, "running": 0, "waiting": waiting, "dead": dead,
               "succeeded": succeeded, "cancelled": 0})
    };
    let functions = [count("f", "dev", 0, 2, 0), count("f", "openfaas-fn", 1, 0, 1)];
    assert_eq!(told, json!({"functions": functions, "damaged": []}));
}

#[tokio::test]
async fn what_became_of_a_call_is_told() {
    let gateway = Queued::start();
    dead(&gateway, &["call-7"]).await;
    let told = json(&gateway, "GET", "/system/async/call-7").await;
    let [call] = &told.as_array().unwrap()[..] else { panic!("{told}") };
    let mut names: Vec<&String> = call.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(
        names,
        ["accepted", "attempts", "callId", "ended", "id", "lastError", "name", "namespace", "state"]
    );
    assert_eq!(
        (&call["name"], &call["namespace"], &call["callId"]),
        (&json!("f"), &json!("dev"), &json!("call-7"))
    );
    assert_eq!(
        (&call["state"], &call["lastError"]),
        (&json!("dead"), &json!("answered with 500 Internal Server Error"))
    );
    let attempt = &call["attempts"][0];
    assert_eq!(attempt["status"], 500);
    assert!(attempt["durationSeconds"].as_f64().unwrap() < 60.0);
    for time in [&call["accepted"], &call["ended"], &attempt["started"]] {
        time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    }
    // Nothing of what was sent is told.
    assert!(!told.to_string().contains("kept"), "{told}");

    gateway.keep("f.dev", "late", &["X-Delay-Seconds: 60"], "").await;
    let told = json(&gateway, "GET", "/system/async/late").await;
    assert_eq!((&told[0]["state"], &told[0]["attempts"]), (&json!("waiting"), &json!([])));
    told[0]["due"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();

    let unknown = gateway.get("/system/async/unknown").await;
    assert_eq!(unknown.error(), (404, "not-found".into(), "no call with the id unknown is known"));
}

#[tokio::test]
async fn calls_with_one_id_are_told_in_parts() {
    let gateway = Queued::idle();
    gateway.provider.add("f");
    for _ in 0..5 {
        gateway.keep("f", "same", &[], "").await;
    }
    let id = |call: &Value| call["id"].as_str().unwrap().to_owned();
    let all = json(&gateway, "GET", "/system/async/same").await;
    let all: Vec<String> = all.as_array().unwrap().iter().map(id).collect();
    assert_eq!(all.len(), 5);
    let (mut told, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let part = json(&gateway, "GET", &format!("/system/async/same?{query}")).await;
        let part: Vec<String> = part.as_array().unwrap().iter().map(id).collect();
        let Some(last) = part.last() else { break };
        query = format!("limit=2&after={last}");
        told.extend(part);
    }
    assert_eq!(told, all);
}

#[tokio::test]
async fn dead_letters_are_listed_replayed_and_purged() {
    let gateway = Queued::start();
    dead(&gateway, &["1", "2", "3", "4"]).await;
    let listed = json(&gateway, "GET", "/system/async/dead/f.dev").await;
    let listed = listed.as_array().unwrap();
    let ids: Vec<_> = listed.iter().map(|call| call["callId"].as_str().unwrap()).collect();
    assert_eq!(ids, ["1", "2", "3", "4"]);
    assert_eq!(json(&gateway, "GET", "/system/async/dead/f").await, json!([]));
    let part = json(&gateway, "GET", "/system/async/dead/f.dev?limit=1").await;
    assert_eq!(part.as_array().unwrap().len(), 1);

    let first = listed[0]["id"].as_str().unwrap();
    assert_eq!(
        json(&gateway, "DELETE", &format!("/system/async/dead/f.dev?id={first}")).await,
        json!({"calls": 1})
    );
    let mut calls = gateway.seeing("f.dev");
    let second = listed[1]["id"].as_str().unwrap();
    assert_eq!(
        json(&gateway, "POST", &format!("/system/async/dead/f.dev/replay?id={second}")).await,
        json!({"calls": 1})
    );
    assert_eq!(super::queued::next(&mut calls).await.header("x-call-id"), "2");
    gateway.reaches("2", State::Succeeded).await;
    assert_eq!(json(&gateway, "POST", "/system/async/dead/f.dev/replay").await, json!({"calls": 2}));
    for id in ["3", "4"] {
        gateway.reaches(id, State::Succeeded).await;
    }
    assert_eq!(json(&gateway, "POST", "/system/async/dead/f.dev/replay").await, json!({"calls": 0}));
    dead(&gateway, &["5", "6"]).await;
    assert_eq!(json(&gateway, "DELETE", "/system/async/dead/f.dev").await, json!({"calls": 2}));
    assert_eq!(gateway.kept().await, 0);
    let gone = gateway.request("DELETE", &format!("/system/async/dead/f.dev?id={first}"), &[]).await;
    assert_eq!(
        gone.error(),
        (404, "not-found".into(), &*format!("there is no dead letter {first} of this function"))
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_told() {
    let gateway = Queued::idle();
    for (method, target, status) in [
        ("GET", "/system/async/1?limit=0", 400),
        ("GET", "/system/async/1?limit=1001", 400),
        ("GET", "/system/async/1?limit=-1", 400),
        ("GET", "/system/async/1?after=x", 400),
        ("GET", "/system/async/%ff", 404),
        ("GET", "/system/async/dead/f?limit=many", 400),
        ("GET", "/system/async/dead/Upper", 404),
        ("GET", "/system/async/dead/%ff", 404),
        ("POST", "/system/async/dead/f/replay?id=x", 400),
        ("DELETE", "/system/async/dead/f?id=18446744073709551616", 400),
        ("GET", "/system/async/dead/f/replay", 405),
        ("POST", "/system/async", 405),
        ("DELETE", "/system/async/1", 405),
        ("GET", "/system/async/", 404),
        ("GET", "/system/async/dead/f/x", 404),
    ] {
        let answer = gateway.request(method, target, &[]).await;
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.body);
        if status != 405 {
            assert!(!answer.error().1.is_empty(), "{method} {target}");
        }
    }
}

#[tokio::test]
async fn nobody_looks_without_credentials() {
    let gateway = Queued::open(Some(admin()), "none", Limits::default());
    for (method, target) in [
        ("GET", "/system/async"),
        ("GET", "/system/async/1"),
        ("GET", "/system/async/dead/f"),
        ("DELETE", "/system/async/dead/f"),
        ("POST", "/system/async/dead/f/replay"),
    ] {
        let answer = gateway.request(method, target, &[]).await;
        assert_eq!((answer.status, &*answer.body), (401, "invalid credentials"), "{method} {target}");
        let wrong = gateway.request(method, target, &["Authorization: Basic YWRtaW46d3Jvbmc="]).await;
        assert_eq!(wrong.status, 401, "{method} {target}");
        let right = gateway.request(method, target, &["Authorization: Basic YWRtaW46c2VjcmV0"]).await;
        assert!([200, 404].contains(&right.status), "{method} {target}: {}", right.status);
    }
}
