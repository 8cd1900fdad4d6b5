//! The hook of apache-airflow-providers-openfaas, unmodified: it takes a deployment as it is given, and any status but
//! 202 for a failure.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    clients::{client, client_file},
    edge::{Deployment, Edge, Reply},
    guests::built,
    process::{Said, run},
};

/// What the hook said to each step, and all that it printed.
struct Told {
    outcomes: Vec<Value>,
    said: Said,
}

/// Takes the steps one after another, against this address.
async fn take(edge: &Edge, gateway: &str, steps: &[(&str, &str, Value)]) -> Told {
    let lines = steps.iter().map(|(function, method, arguments)| {
        format!("{}\n", json!({ "function": function, "method": method, "arguments": arguments }))
    });
    let (mut python, home) = client(edge, "python-airflow");
    python.arg(client_file("airflow_hook.py")).env("AIRFLOW_HOME", &home);
    python.env("AIRFLOW_CONN_FAAS", json!({ "conn_type": "openfaas", "host": gateway }).to_string());
    let said = run(&mut python, lines.collect::<String>().as_bytes()).await;
    let printed = said.succeeds();
    let outcomes: Vec<Value> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("outcome "))
        .map(|outcome| serde_json::from_str(outcome).unwrap())
        .collect();
    assert_eq!(outcomes.len(), steps.len(), "{printed}");
    Told { outcomes, said }
}

fn returned(value: Value) -> Value {
    json!({ "returned": value })
}

/// The body of a deployment, as a DAG gives it that goes by OpenFaaS's documentation.
fn body(deployment: &Deployment) -> Value {
    json!(deployment.0.to_string())
}

#[tokio::test]
#[ignore = "needs Airflow's hook and the guests: run scripts/test"]
async fn airflow_deploys_calls_and_updates() {
    let edge = Edge::start().await;
    let image = edge.upload(built("go.wasm")).await;
    let first = Deployment::of("task", &image).process("upper");
    let second = Deployment::of("task", &image).process("sha512sum");
    let gateway = edge.gateway.replace("://", &format!("://admin:{}@", edge.password()));
    let told = take(
        &edge,
        &gateway,
        &[
            ("task", "does_function_exist", json!([])),
            ("task", "invoke_function", json!(["too early"])),
            ("task", "update_function", json!([body(&first)])),
            ("task", "deploy_function", json!([false, body(&first)])),
            ("task", "does_function_exist", json!([])),
            ("task", "invoke_function", json!(["spoken quietly"])),
            ("task", "deploy_function", json!([false, body(&first)])),
            ("task", "deploy_function", json!([true, body(&second)])),
            ("task", "invoke_function", json!([""])),
        ],
    )
    .await;
    let expected = [
        returned(json!(false)),
        json!({ "raised": "failed to invoke function" }),
        json!({ "raised": "failed to update task" }),
        returned(Value::Null),
        returned(json!(true)),
        returned(Value::Null),
        json!({ "raised": "failed to deploy" }),
        returned(Value::Null),
        returned(Value::Null),
    ];
    let log = format!("{}{}", told.said.succeeds(), told.said.stderr);
    assert_eq!(told.outcomes, expected, "{log}");
    assert!(log.contains("SPOKEN QUIETLY"), "the first revision's answer: {log}");
    assert!(log.contains("cf83e1357eefb8bd"), "the second revision's answer, SHA-512 of nothing: {log}");
}

#[tokio::test]
#[ignore = "needs Airflow's hook and the guests: run scripts/test"]
async fn airflow_fails_a_task_that_is_refused() {
    let edge = Edge::start().await;
    let image = edge.upload(built("go.wasm")).await;
    let deployment = Deployment::of("task", &image);
    // Without credentials, nothing but calls.
    let calls = [
        ("task", "deploy_function", json!([false, body(&deployment)])),
        ("hello", "does_function_exist", json!([])),
        ("hello", "invoke_function", json!([{ "a": "form" }])),
    ];
    let told = take(&edge, &edge.gateway, &calls).await;
    let refused = json!({ "raised": "failed to deploy" });
    assert_eq!(told.outcomes, [refused, returned(json!(false)), returned(Value::Null)]);
    assert_eq!(edge.list().await, ["hello"]);
}

#[tokio::test]
#[ignore = "needs Airflow's hook: run scripts/test"]
async fn airflow_calls_asynchronously_where_there_is_a_queue() {
    let edge = Edge::start().await;
    let answer = Reply::to(edge.request(Method::POST, "/async-function/hello")).await;
    let expected = match answer.status {
        202 => returned(Value::Null),
        404 | 501 => json!({ "raised": "failed to invoke function" }),
        _ => panic!("{answer}"),
    };
    let told = take(&edge, &edge.gateway, &[("hello", "invoke_async_function", json!([""]))]).await;
    assert_eq!(told.outcomes, [expected]);
}
