//! Deployments that take long, are rejected, or are broken off by a shutdown.

use super::*;

#[tokio::test]
async fn a_rejected_update_leaves_the_old_revision_serving() {
    let running = Machine::new();
    let running = running.start();
    running.deploy("hello", guests::HELLO_HTTP).await;
    for (wat, code) in [(guests::NO_START, "no-entry-point"), (guests::UNKNOWN_IMPORT, "unknown-import")] {
        let error = running.node.update(running.stored("hello", wat).await).await.unwrap_err();
        assert_eq!(error.code(), code);
    }
    let mut spec = running.stored("hello", guests::HELLO_HTTP).await;
    spec.image = "fawn.local/module@sha256:".to_owned() + &"0".repeat(64);
    assert!(running.node.update(spec).await.is_err());
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    let status = running.node.status(&name("hello")).await.unwrap();
    assert_eq!(status.deployment.phase, Phase::Ready);
}

#[tokio::test]
async fn a_long_deploy_answers_pending_and_goes_on_after_a_restart() {
    let machine = Machine { deploy_wait: Duration::from_millis(1), ..Machine::new() };
    let artifacts = machine.artifacts();
    let running = machine.start_with(artifacts.clone(), Held::new(&artifacts));
    let good = running.stored("hello", guests::HELLO_HTTP).await;
    assert_eq!(running.node.deploy(good.clone()).await.unwrap(), Deployed::Pending);
    let status = running.node.status(&name("hello")).await.unwrap();
    assert_eq!((status.available_replicas, status.deployment.phase), (0, Phase::Pending));
    assert!(matches!(running.call("hello").await, Err(Error::Unavailable { .. })));
    running.stop().await;

    let source = Held::new(&artifacts);
    let running = machine.start_with(artifacts.clone(), source.clone());
    source.go.notify_one();
    assert_eq!(settled(&running.node, "hello").await, Phase::Ready);
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");

    // An update that fails late leaves what serves, and says why.
    let bad = FunctionSpec { image: "registry.test/none:1".into(), ..good };
    assert_eq!(running.node.update(bad).await.unwrap(), Deployed::Pending);
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    source.go.notify_one();
    assert_eq!(settled(&running.node, "hello").await, Phase::Failed);
    let status = running.node.status(&name("hello")).await.unwrap();
    assert_eq!(status.deployment.reason, "there is no such image");
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    running.stop().await;
}

#[tokio::test]
async fn what_a_tag_meant_is_told_and_outlasts_a_restart() {
    let machine = Machine::new();
    let artifacts = machine.artifacts();
    let source = Held::new(&artifacts);
    let running = machine.start_with(artifacts.clone(), source.clone());
    let uploaded = running.stored("hello", guests::HELLO_HTTP).await;
    let image = uploaded.image().unwrap();
    let image = runtime_api::ImageReference { registry: "registry.test".into(), ..image }.to_string();
    let mut spec = FunctionSpec { image: image.clone(), ..uploaded };
    source.go.notify_one();
    running.node.deploy(spec.clone()).await.unwrap();
    spec.annotations.insert("dev.fawn.pull-policy".into(), "Never".into());
    source.go.notify_one();
    running.node.update(spec).await.unwrap();
    assert_eq!(*source.policies.lock().unwrap(), [PullPolicy::Always, PullPolicy::Never]);
    assert_eq!(running.node.status(&name("hello")).await.unwrap().deployment.image, image);
    running.stop().await;

    let gone = Held::new(&artifacts);
    let running = machine.start_with(artifacts, gone.clone());
    assert_eq!(running.node.status(&name("hello")).await.unwrap().deployment.image, image);
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    assert!(gone.policies.lock().unwrap().is_empty(), "nobody was asked");
    running.stop().await;
}

#[tokio::test]
async fn a_rejected_update_leaves_a_promised_deployment_going_on() {
    let machine = Machine { deploy_wait: Duration::from_millis(1), ..Machine::new() };
    let artifacts = machine.artifacts();
    let source = Held::new(&artifacts);
    let running = machine.start_with(artifacts, source.clone());
    let promised = running.stored("hello", guests::HELLO_HTTP).await;
    assert_eq!(running.node.deploy(promised.clone()).await.unwrap(), Deployed::Pending);
    let refused = FunctionSpec { image: "registry.test/none:refused".into(), ..promised };
    let error = running.node.update(refused).await.unwrap_err();
    assert_eq!(error.code(), "no-such-image");
    assert_eq!(running.node.status(&name("hello")).await.unwrap().deployment.phase, Phase::Pending);
    source.go.notify_one();
    assert_eq!(settled(&running.node, "hello").await, Phase::Ready);
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
}

#[tokio::test]
async fn a_first_deploy_is_listed_while_it_is_under_way() {
    let machine = Machine::new();
    let artifacts = machine.artifacts();
    let source = Held::new(&artifacts);
    let running = machine.start_with(artifacts, source.clone());
    let spec = running.stored("hello", guests::HELLO_HTTP).await;
    let begun = jiff::Timestamp::now();
    let meanwhile = async {
        let [listed] = <[_; 1]>::try_from(running.node.list("").await.unwrap()).unwrap();
        assert_eq!(listed, running.node.status(&name("hello")).await.unwrap());
        assert_eq!((listed.deployment.phase, listed.available_replicas), (Phase::Pending, 0));
        assert!(listed.created_at >= begun, "{}", listed.created_at);
        source.go.notify_one();
        listed.created_at
    };
    let (deployed, created_at) = tokio::join!(running.node.deploy(spec), meanwhile);
    assert_eq!(deployed.unwrap(), Deployed::Ready);
    assert_eq!(running.node.status(&name("hello")).await.unwrap().created_at, created_at);
}

#[tokio::test]
async fn a_node_that_shuts_down_takes_no_deployment() {
    let machine = Machine::new();
    let artifacts = machine.artifacts();
    let running = machine.start_with(artifacts.clone(), Held::new(&artifacts));
    let spec = running.stored("hello", guests::HELLO_HTTP).await;
    let (under_way, ()) = tokio::join!(running.node.deploy(spec.clone()), running.node.shut_down());
    for refused in [under_way, running.node.deploy(spec.clone()).await, running.node.update(spec).await] {
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert_eq!(error.to_string(), "the node is shutting down");
    }
}

#[tokio::test]
async fn what_an_earlier_version_accepted_goes_on() {
    let machine = Machine::new();
    let running = machine.start();
    running.deploy("hello", guests::HELLO_HTTP).await;
    running.stop().await;
    // As if rules of today had come after it was deployed.
    let store = Store::open(machine.folder.path()).unwrap();
    let record = store.get("functions", "hello.openfaas-fn").unwrap().unwrap();
    store.close().await.unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let spec = &mut record["serving"]["spec"];
    spec["annotations"] = serde_json::json!({ "dev.fawn.egres": "none", "faas.net/async": "true" });
    spec["envVars"] = serde_json::json!({ "mode": "afterburn", "jwt_auth": "true" });
    machine.record("hello.openfaas-fn", &record.to_string()).await;

    let running = machine.start();
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    let status = running.node.status(&name("hello")).await.unwrap();
    assert_eq!(status.deployment.phase, Phase::Ready, "{}", status.deployment.reason);
    let image = status.spec.image.clone();
    let spec = FunctionSpec { service: "hello".into(), image, ..status.spec };
    assert!(running.node.update(spec).await.is_err(), "a deploy of the same is refused");
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
}

#[tokio::test]
async fn what_cannot_be_run_any_more_is_kept_and_says_so() {
    let machine = Machine::new();
    let pending = r#"{"service":"old","image":"a/b","annotations":{"dev.fawn.egress":"not a policy!"}}"#;
    let record = format!(
        r#"{{"created_at":"2026-01-01T00:00:00Z","replicas":1,"serving":null,"pending":{pending},"failure":null}}"#
    );
    machine.record("old.openfaas-fn", &record).await;
    let running = machine.start();
    let status = running.node.status(&name("old")).await.unwrap();
    assert_eq!((status.deployment.phase, status.available_replicas), (Phase::Failed, 0));
    assert!(status.deployment.reason.contains("dev.fawn.egress"), "{}", status.deployment.reason);
    let error = running.call("old").await.unwrap_err();
    assert!(error.to_string().contains("dev.fawn.egress"), "{error}");
}

#[tokio::test]
async fn what_a_deployment_needs_is_not_swept() {
    let mut machine = Machine { deploy_wait: Duration::from_millis(1), ..Machine::new() };
    let artifacts = machine.artifacts();
    let running = machine.start_with(artifacts.clone(), Held::new(&artifacts));
    let spec = running.stored("hello", guests::HELLO_HTTP).await;
    let needed = spec.image().unwrap().digest.unwrap();
    assert_eq!(running.node.deploy(spec).await.unwrap(), Deployed::Pending);
    running.stop().await;

    let age = |artifact: runtime_api::Artifact| {
        File::open(artifact.path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    };
    age(artifacts.get(&needed).unwrap());
    machine.garbage_grace = Duration::from_secs(1);
    let source = Held::new(&artifacts);
    let running = machine.start_with(artifacts.clone(), source.clone());
    // Once the second is gone, a whole sweep has passed.
    for _ in 0..2 {
        let unused = artifacts.insert(full(wat::parse_str(guests::HELLO).unwrap())).await.unwrap();
        age(unused.clone());
        while artifacts.get(&unused.digest).is_some() {
            tokio::task::yield_now().await;
        }
    }
    source.go.notify_one();
    assert_eq!(settled(&running.node, "hello").await, Phase::Ready);
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    running.stop().await;
}
