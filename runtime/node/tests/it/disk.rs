//! What a node finds on its disk that is damaged, missing or too much.

use super::*;

#[tokio::test]
async fn an_unreadable_record_costs_no_other_function() {
    let machine = Machine::new();
    let running = machine.start();
    running.deploy("hello", guests::HELLO_HTTP).await;
    running.stop().await;
    for bad in ["replaced", "removed"] {
        machine.record(&format!("{bad}.openfaas-fn"), "{").await;
    }
    let running = machine.start();
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    let status = running.node.status(&name("removed")).await.unwrap();
    assert_eq!((status.deployment.phase, status.available_replicas), (Phase::Failed, 0));
    assert!(status.deployment.reason.contains("record"), "{}", status.deployment.reason);
    assert!(running.call("removed").await.unwrap_err().to_string().contains("record"));
    assert!(running.node.scale(&name("removed"), 2).await.is_err());
    running.stop().await;

    // Nothing has touched the records.
    let running = machine.start();
    running.node.remove(&name("removed")).await.unwrap();
    running.node.update(running.stored("replaced", guests::HELLO_HTTP).await).await.unwrap();
    running.stop().await;
    let running = machine.start();
    assert!(matches!(running.node.status(&name("removed")).await, Err(Error::NotFound(_))));
    assert_eq!(running.call("replaced").await.unwrap(), "Hello from Fawn\n");
}

#[tokio::test]
async fn a_module_damaged_on_disk_is_refused_and_can_be_given_again() {
    let machine = Machine::new();
    let running = machine.start();
    let spec = running.stored("hello", guests::HELLO_HTTP).await;
    let modules = machine.folder.path().join("artifacts/modules");
    let path = std::fs::read_dir(&modules).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, wat::parse_str(guests::HELLO).unwrap()).unwrap();

    let error = running.node.deploy(spec.clone()).await.unwrap_err();
    assert_eq!(error.code(), runtime_wasm::DAMAGED, "{error}");
    running.deploy("hello", guests::HELLO_HTTP).await;
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
}

#[tokio::test]
async fn a_damaged_record_can_be_replaced() {
    let machine = Machine::new();
    let running = machine.start();
    running.deploy("hello", guests::HELLO_HTTP).await;
    running.stop().await;
    // Records sealed with another key are as good as damaged.
    std::fs::write(machine.folder.path().join("store.key"), [1; 32]).unwrap();
    let running = machine.start();
    let status = running.node.status(&name("hello")).await.unwrap();
    assert_eq!(status.deployment.phase, Phase::Failed);
    running.node.update(running.stored("hello", guests::HELLO_HTTP).await).await.unwrap();
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
}

/// A module like hello, so large, and unlike others by its mark.
fn padded(mark: u8, bytes: usize) -> Vec<u8> {
    let padding = [&b"\x07padding"[..], &vec![mark; bytes]].concat();
    let length = u32::try_from(padding.len()).unwrap();
    let leb = [length as u8 & 0x7f | 0x80, (length >> 7) as u8 & 0x7f | 0x80, (length >> 14) as u8];
    [&wat::parse_str(guests::HELLO_HTTP).unwrap()[..], &[0], &leb, &padding].concat()
}

#[tokio::test]
async fn what_no_function_needs_makes_room_the_longest_unused_first() {
    let machine =
        Machine { disk_budget_bytes: 1 << 20, garbage_grace: Duration::from_secs(60), ..Machine::new() };
    let artifacts = machine.artifacts();
    let running = machine.start_with(
        artifacts.clone(),
        Arc::new(Registry::new(RegistryConfig::default(), artifacts.clone()).unwrap()),
    );
    let mut stored = Vec::new();
    for mark in 0..3 {
        let module = artifacts.insert(full(padded(mark, 300 << 10))).await.unwrap();
        let age = Duration::from_secs(3600 * u64::from(3 - mark));
        File::open(&module.path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        stored.push(module);
    }
    let is_there = |nth: usize| artifacts.get(&stored[nth].digest).is_some();
    let spec = |nth: usize| FunctionSpec {
        service: format!("f{nth}"),
        image: runtime_api::ImageReference::local(stored[nth].digest).to_string(),
        ..Default::default()
    };
    // The oldest is deployed, so it is not the one to go.
    running.node.deploy(spec(0)).await.unwrap();
    let young = artifacts.insert(full(padded(9, 300 << 10))).await.unwrap();
    running.node.deploy(spec(2)).await.unwrap();
    assert_eq!([is_there(0), is_there(1), is_there(2)], [true, false, true]);
    assert!(artifacts.get(&young.digest).is_some(), "somebody may be about to deploy it");
    assert_eq!(running.call("f0").await.unwrap(), "Hello from Fawn\n");
}

#[tokio::test]
async fn a_deploy_beyond_the_disk_budget_is_refused_and_nothing_else() {
    let machine = Machine { disk_budget_bytes: 400 << 10, ..Machine::new() };
    let artifacts = machine.artifacts();
    let running = machine.start_with(
        artifacts.clone(),
        Arc::new(Registry::new(RegistryConfig::default(), artifacts.clone()).unwrap()),
    );
    let spec = async |mark: u8| {
        let module = artifacts.insert(full(padded(mark, 300 << 10))).await.unwrap();
        let image = runtime_api::ImageReference::local(module.digest).to_string();
        FunctionSpec { service: format!("f{mark}"), image, ..Default::default() }
    };
    running.node.deploy(spec(1).await).await.unwrap();
    let refused = running.node.deploy(spec(2).await).await.unwrap_err();
    assert_eq!(refused.code(), "storage-full");
    assert!(refused.to_string().contains("--disk-budget"), "{refused}");
    let refused =
        running.node.store_artifact(full(padded(3, 1)), ModuleCommand::default()).await.unwrap_err();
    assert_eq!(refused.code(), "storage-full");
    assert_eq!(running.call("f1").await.unwrap(), "Hello from Fawn\n");
    running.node.remove(&name("f1")).await.unwrap();
}

#[tokio::test]
async fn code_of_another_wasmtime_or_none_is_compiled_before_it_is_called() {
    let machine = Machine::new();
    let running = machine.start();
    running.deploy("hello", guests::HELLO_HTTP).await;
    running.stop().await;
    remove_files(&machine.folder.path().join("code"));
    let running = machine.start();
    assert_eq!(running.call("hello").await.unwrap(), "Hello from Fawn\n");
    assert_eq!(running.metric("fawn_compiles_total"), 1.0);
}

fn remove_files(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::remove_file(path).unwrap();
        }
    }
}
