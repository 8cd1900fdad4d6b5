//! What is counted, under the names that dashboards of OpenFaaS Pro ask for.

use std::time::Duration;

use gateway_queue::State;

use super::{
    queued::{Queued, until},
    target::status_of,
};

async fn counted(gateway: &Queued) -> Vec<String> {
    let answer = gateway.metrics("GET", "/metrics").await;
    let told = |line: &&str| {
        ["queue_worker_", "gateway_async_", "fawn_async_"].iter().any(|start| line.starts_with(start))
            && !line.starts_with("fawn_async_oldest_seconds")
    };
    answer.body.lines().filter(told).map(str::to_owned).collect()
}

#[tokio::test]
async fn calls_are_counted_by_function_and_queue() {
    let gateway = Queued::idle();
    for (name, status) in [("good", 200), ("bad.dev", 500), ("retried", 503)] {
        gateway.provider.script(name, move |_| std::future::ready(Ok(status_of(status))));
    }
    gateway.provider.annotate("bad.dev", "com.openfaas.retry.attempts", "0");
    gateway.provider.annotate("bad.dev", "com.openfaas.queue", "slow-jobs");
    // No label is made of this.
    gateway.provider.annotate("retried", "com.openfaas.queue", "no{\"such}\n");
    for name in ["good", "bad.dev", "retried"] {
        gateway.keep(name, name, &["Idempotency-Key: 1"], "").await;
        // It is there already, and no second one.
        gateway.keep(name, name, &["Idempotency-Key: 1"], "").await;
    }
    let expected = r#"fawn_async_dead_letters{function_name="bad.dev"} 0
fawn_async_dead_letters{function_name="good.openfaas-fn"} 0
fawn_async_dead_letters{function_name="retried.openfaas-fn"} 0
fawn_async_usable 1
gateway_async_queue_length{function_name="bad.dev"} 1
gateway_async_queue_length{function_name="good.openfaas-fn"} 1
gateway_async_queue_length{function_name="retried.openfaas-fn"} 1
queue_worker_function_invocation_inflight{function_name="bad.dev",queue_name="slow-jobs"} 0
queue_worker_function_invocation_inflight{function_name="good.openfaas-fn",queue_name="faas-request"} 0
queue_worker_function_invocation_inflight{function_name="retried.openfaas-fn",queue_name="faas-request"} 0
queue_worker_messages_submitted_total{function_name="bad.dev",queue_name="slow-jobs"} 1
queue_worker_messages_submitted_total{function_name="good.openfaas-fn",queue_name="faas-request"} 1
queue_worker_messages_submitted_total{function_name="retried.openfaas-fn",queue_name="faas-request"} 1
queue_worker_pending_messages{function_name="bad.dev",queue_name="slow-jobs"} 1
queue_worker_pending_messages{function_name="good.openfaas-fn",queue_name="faas-request"} 1
queue_worker_pending_messages{function_name="retried.openfaas-fn",queue_name="faas-request"} 1"#;
    assert_eq!(counted(&gateway).await, expected.lines().collect::<Vec<_>>());

    gateway.work();
    gateway.reaches("good", State::Succeeded).await;
    gateway.reaches("bad.dev", State::Dead).await;
    gateway.reaches("retried", State::Waiting).await;
    let told = settled(&gateway, 3).await;
    for line in [
        r#"fawn_async_dead_letters{function_name="bad.dev"} 1"#,
        r#"gateway_async_queue_length{function_name="bad.dev"} 0"#,
        r#"gateway_async_queue_length{function_name="retried.openfaas-fn"} 1"#,
        r#"queue_worker_messages_processed_total{function_name="bad.dev",outcome="dead",queue_name="slow-jobs"} 1"#,
        r#"queue_worker_messages_processed_total{function_name="good.openfaas-fn",outcome="succeeded",queue_name="faas-request"} 1"#,
        r#"queue_worker_messages_processed_total{function_name="retried.openfaas-fn",outcome="retried",queue_name="faas-request"} 1"#,
        r#"queue_worker_pending_messages{function_name="retried.openfaas-fn",queue_name="faas-request"} 1"#,
    ] {
        assert!(told.iter().any(|one| one == line), "{line} is not in {told:#?}");
    }
    let calls = gateway.metrics("GET", "/metrics").await.body;
    // The call that the worker makes counts, and that it was accepted does not (OpenFaaS).
    let line = r#"gateway_function_invocation_total{code="200",function_name="good.openfaas-fn"} 1"#;
    assert!(calls.contains(line), "{calls}");
}

/// What is counted once so many attempts were.
async fn settled(gateway: &Queued, attempts: usize) -> Vec<String> {
    until("attempts are counted", async || {
        let told = counted(gateway).await;
        let processed = |line: &&String| line.starts_with("queue_worker_messages_processed_total");
        (told.iter().filter(processed).count() >= attempts).then_some(told)
    })
    .await
}

#[tokio::test]
async fn how_long_the_oldest_call_has_waited_is_told() {
    let gateway = Queued::idle();
    gateway.provider.add("f");
    gateway.keep("f", "1", &[], "").await;
    let told = gateway.metrics("GET", "/metrics").await.body;
    let line = "fawn_async_oldest_seconds{function_name=\"f.openfaas-fn\"} ";
    let (_, seconds) = told.split_once(line).unwrap();
    let seconds: u64 = seconds.lines().next().unwrap().parse().unwrap();
    assert!(seconds < 60, "{seconds}");
}

#[tokio::test]
async fn a_function_that_is_gone_is_counted_no_more() {
    let gateway = Queued::start();
    gateway.provider.add("f");
    gateway.provider.annotate("f", "com.openfaas.queue", "mine");
    gateway.keep("f", "1", &[], "").await;
    gateway.reaches("1", State::Succeeded).await;
    settled(&gateway, 1).await;
    let name = runtime_api::FunctionName::parse("f").unwrap();
    runtime_api::Provider::remove(&*gateway.provider, &name).await.unwrap();
    // Calls that ended are known for a day.
    gateway.pass(Duration::from_secs(25 * 3600));
    let told = counted(&gateway).await;
    assert!(!told.iter().any(|line| line.contains("mine")), "{told:#?}");
}
