//! What Prometheus and Alertmanager make of the metrics, and the gateway of their alerts.

use crate::{
    clients::client,
    edge::{self, Deployment, Edge, Reply},
    guests::text,
    monitoring::Monitoring,
    process::{eventually, run},
};

use runtime_testing::guests::HELLO;

const HIGH: u64 = 4;

async fn replicas(edge: &Edge) -> u64 {
    edge.status("busy").await.json()["replicas"].as_u64().unwrap_or_default()
}

#[tokio::test]
#[ignore = "needs Prometheus and Alertmanager: run scripts/test"]
async fn load_scales_up_and_its_end_scales_down() {
    let edge = Edge::start().await;
    let image = edge.upload(text(HELLO)).await;
    let labels = serde_json::json!({
        "com.openfaas.scale.min": "1",
        "com.openfaas.scale.max": HIGH.to_string(),
        "com.openfaas.scale.factor": "50",
    });
    edge.serve(Deployment::of("busy", &image).field("labels", labels)).await;
    assert_eq!(replicas(&edge).await, 1);
    let _monitoring = Monitoring::watch(&edge).await;
    eventually("load scales up", async || {
        edge.call("busy", "").await.ok();
        (replicas(&edge).await == HIGH).then_some(())
    })
    .await;
    eventually("the end of the load scales down", async || (replicas(&edge).await == 1).then_some(())).await;
}

/// The queries of the public Grafana dashboard, to the letter.
const DASHBOARD: [&str; 4] = [
    "gateway_service_count",
    "rate ( gateway_function_invocation_total [20s])",
    "scalar( sum( gateway_function_invocation_total { code=\"200\"} ))",
    "(rate(gateway_functions_seconds_sum[20s]) / rate(gateway_functions_seconds_count[20s]))",
];

#[tokio::test]
#[ignore = "needs Prometheus and Alertmanager: run scripts/test"]
async fn the_public_dashboard_shows_data() {
    let edge = Edge::start().await;
    let monitoring = Monitoring::watch(&edge).await;
    for query in DASHBOARD {
        let values = eventually(query, async || {
            edge.call("hello", "").await.ok();
            let values = monitoring.query(query).await;
            values.iter().any(|value| *value > 0.0).then_some(values)
        })
        .await;
        assert!(values.iter().all(|value| *value >= 0.0), "{query}: {values:?}");
    }
}

/// What OpenFaaS's names, which clients go by, do not fit in.
const MISNAMED: [&str; 2] = [
    "gateway_function_invocation_started counter metrics should have \"_total\" suffix",
    "gateway_service_count non-histogram and non-summary metrics should not have \"_count\" suffix",
];

#[tokio::test]
#[ignore = "needs Prometheus: run scripts/test"]
async fn the_metrics_are_as_prometheus_wants_them() {
    let fawn = Edge::start().await;
    fawn.call("hello", "").await.ok();
    fawn.call("nobody", "").await;
    let metrics = Reply::to(edge::client().build().unwrap().get(format!("{}/metrics", fawn.metrics))).await;
    let (mut promtool, _) = client(&fawn, "promtool");
    let said = run(promtool.args(["check", "metrics"]), &metrics.body).await;
    let found: Vec<&str> = said.stderr.lines().filter(|line| !MISNAMED.contains(line)).collect();
    assert!(found.is_empty(), "{found:?}");
    // It ends with 3 where it has found anything at all, and with 1 where it could not read what it got.
    assert!(matches!(said.code, Some(0 | 3)), "{:?}: {}", said.code, said.stderr);
}
