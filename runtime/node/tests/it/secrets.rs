//! Secrets and namespaces, from the deploy to the guest and back to the disk.

use std::{fs, path::Path};

use runtime_api::{Namespace, SecretName, SecretValue};

use super::*;

const VALUE: &str = "hunter2+and/more?of it";

fn secret(text: &str) -> SecretName {
    let (name, namespace) = text.split_once('/').unwrap_or((text, ""));
    SecretName::new(name, namespace).unwrap()
}

fn value(text: &str) -> SecretValue {
    SecretValue::new(text).unwrap()
}

fn namespace(name: &str) -> Namespace {
    Namespace { name: name.into(), ..Namespace::default() }
}

impl Running {
    async fn deploy_with(&self, function: &str, secret: &str) -> Result<Deployed> {
        let function = name(function);
        let spec = self.stored(function.name(), guests::SECRET).await;
        let namespace = function.namespace().to_owned();
        self.node.deploy(FunctionSpec { namespace, secrets: vec![secret.into()], ..spec }).await
    }
}

#[tokio::test]
async fn the_next_call_sees_what_a_secret_has_become() {
    let machine = Machine::new();
    let running = machine.start();
    let node = &running.node;
    let refused = running.deploy_with("reader", "token").await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.to_string().as_str()),
        ("no-such-secret", "unable to find secret: token; it is made with: faas-cli secret create token")
    );
    node.create_namespace(namespace("staff")).await.unwrap();
    let unknown = SecretName::new("token", "staff").unwrap();
    let refused = node.update_secret(&unknown, value("x")).await.unwrap_err().to_string();
    assert!(refused.ends_with("faas-cli secret create token --namespace staff"), "{refused}");
    node.create_secret(&secret("token"), value(VALUE)).await.unwrap();
    running.deploy_with("reader", "token").await.unwrap();
    running.deploy("stranger", guests::SECRET).await;
    assert_eq!(running.call("reader").await.unwrap(), VALUE);
    assert_eq!(running.call("stranger").await.unwrap(), "none\n");
    node.update_secret(&secret("token"), value("new")).await.unwrap();
    assert_eq!(running.call("reader").await.unwrap(), "new");
    running.stop().await;

    let running = machine.start();
    assert_eq!(running.call("reader").await.unwrap(), "new");
    running.node.remove_secret(&secret("token")).await.unwrap();
    assert_eq!(running.call("reader").await.unwrap(), "none\n");
    running.stop().await;

    let running = machine.start();
    assert_eq!(running.call("reader").await.unwrap(), "none\n");
    running.node.create_secret(&secret("token"), value("again")).await.unwrap();
    assert_eq!(running.call("reader").await.unwrap(), "again");
}

#[tokio::test]
async fn a_secret_is_of_one_namespace() {
    let machine = Machine::new();
    let running = machine.start();
    running.node.create_namespace(namespace("staff")).await.unwrap();
    running.node.create_secret(&secret("token/staff"), value("for staff")).await.unwrap();
    assert_eq!(running.deploy_with("reader", "token").await.unwrap_err().code(), "no-such-secret");
    running.node.create_secret(&secret("token"), value("for all")).await.unwrap();
    for function in ["reader", "reader.staff"] {
        running.deploy_with(function, "token").await.unwrap();
    }
    assert_eq!(running.call("reader").await.unwrap(), "for all");
    assert_eq!(running.call("reader.staff").await.unwrap(), "for staff");
    running.node.scale(&name("reader.staff"), 0).await.unwrap();
    assert_eq!(running.call("reader.staff").await.unwrap(), "for staff");
    let [listed] = <[_; 1]>::try_from(running.node.list("staff").await.unwrap()).unwrap();
    assert_eq!((listed.name.as_str(), listed.spec.namespace.as_str()), ("reader", "staff"));
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(fs::read(path).unwrap()) }
    }
    found
}

/// A value as it might be written down.
fn spellings(value: &str) -> Vec<Vec<u8>> {
    let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let reversed = value.chars().rev().collect::<String>();
    // The middle of a text in base64 depends on where it begins within three bytes.
    let base64 = (0..3).map(|shift| {
        let encoded = base64(&[&b"xxx"[..shift], value.as_bytes()].concat());
        encoded[4..encoded.len() - 4].to_owned()
    });
    let texts = [value.to_owned(), hex.to_uppercase(), hex, percent, reversed].into_iter().chain(base64);
    texts.map(String::into_bytes).collect()
}

fn base64(bytes: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

#[tokio::test]
async fn nothing_on_disk_tells_a_secret() {
    let machine = Machine::new();
    let is_told = |value: &str| {
        let files = files(machine.folder.path());
        assert!(files.len() > 3);
        let told = |spelling: &Vec<u8>| {
            files.iter().any(|file| file.windows(spelling.len()).any(|at| at == spelling))
        };
        spellings(value).iter().any(told)
    };
    let running = machine.start();
    running.node.create_secret(&secret("token"), value(VALUE)).await.unwrap();
    running.node.create_secret(&secret("gone"), value("removed-but-secret")).await.unwrap();
    running.deploy_with("reader", "token").await.unwrap();
    assert_eq!(running.call("reader").await.unwrap(), VALUE);
    running.node.update_secret(&secret("token"), value("the-newer-secret")).await.unwrap();
    running.node.remove_secret(&secret("gone")).await.unwrap();
    assert_eq!(running.call("reader").await.unwrap(), "the-newer-secret");
    let plain = running.stored("plain", guests::HELLO).await;
    let env_vars = [("SHOWN".to_owned(), "what-is-shown".to_owned())].into();
    running.node.deploy(FunctionSpec { env_vars, ..plain }).await.unwrap();
    for _ in 0..2 {
        for value in [VALUE, "removed-but-secret", "the-newer-secret"] {
            assert!(!is_told(value), "{value}");
        }
        assert!(is_told("what-is-shown"), "the search finds what is there");
        running.node.shut_down().await;
    }
}

#[tokio::test]
async fn another_key_costs_the_secrets_and_no_function() {
    let machine = Machine::new();
    let running = machine.start();
    running.node.create_secret(&secret("token"), value(VALUE)).await.unwrap();
    running.deploy_with("reader", "token").await.unwrap();
    running.stop().await;
    let key = machine.folder.path().join("secrets.key");
    let kept = fs::read(&key).unwrap();
    fs::write(&key, [1; 32]).unwrap();

    let running = machine.start();
    let node = &running.node;
    assert_eq!(node.secrets("openfaas-fn").await.unwrap(), [secret("token")]);
    assert_eq!(running.call("reader").await.unwrap(), "none\n");
    let refused = running.deploy_with("late", "token").await.unwrap_err().to_string();
    assert!(refused.contains("token") && refused.contains("update it"), "{refused}");
    assert!(matches!(node.create_secret(&secret("token"), value("x")).await, Err(Error::AlreadyExists(_))));
    node.create_secret(&secret("other"), value("under the new key")).await.unwrap();
    running.stop().await;

    fs::write(&key, kept).unwrap();
    let running = machine.start();
    assert_eq!(running.call("reader").await.unwrap(), VALUE);
    running.node.update_secret(&secret("other"), value("healed")).await.unwrap();
    running.stop().await;
    let running = machine.start();
    running.deploy_with("late", "other").await.unwrap();
    assert_eq!(running.node.secrets("openfaas-fn").await.unwrap(), [secret("other"), secret("token")]);
}

#[tokio::test]
async fn a_damaged_record_costs_one_secret_or_the_labels_of_one_namespace() {
    let machine = Machine::new();
    let running = machine.start();
    for name in ["good", "bad"] {
        running.node.create_secret(&secret(name), value(VALUE)).await.unwrap();
    }
    let labels = [("team".to_owned(), "a".to_owned())].into();
    let staff = Namespace { labels, ..namespace("staff") };
    running.node.create_namespace(staff.clone()).await.unwrap();
    running.node.create_namespace(namespace("broken")).await.unwrap();
    running.stop().await;
    let store = Store::open(machine.folder.path()).unwrap();
    store.put("secrets", "openfaas-fn/bad", vec![1; 99]).await.unwrap();
    store.put("secrets", "of nobody", vec![1; 99]).await.unwrap();
    store.put("namespaces", "broken", b"{".to_vec()).await.unwrap();
    store.close().await.unwrap();

    let running = machine.start();
    assert_eq!(running.node.secrets("").await.unwrap_err().code(), "no-such-namespace");
    assert_eq!(running.node.secrets("openfaas-fn").await.unwrap(), [secret("bad"), secret("good")]);
    running.deploy_with("reader", "good").await.unwrap();
    assert_eq!(running.deploy_with("late", "bad").await.unwrap_err().code(), "no-such-secret");
    running.node.remove_secret(&secret("bad")).await.unwrap();
    assert_eq!(running.node.namespaces().await.unwrap(), ["broken", "openfaas-fn", "staff"]);
    assert_eq!(running.node.namespace("staff").await.unwrap(), staff);
    assert_eq!(running.node.namespace("broken").await.unwrap(), namespace("broken"));
}

#[tokio::test]
async fn a_namespace_does_not_go_while_something_is_in_it() {
    let machine = Machine::new();
    let artifacts = machine.artifacts();
    let source = Held::new(&artifacts);
    let running = machine.start_with(artifacts, source.clone());
    let node = &running.node;
    assert_eq!(
        node.create_namespace(namespace("kube-system")).await.unwrap_err().code(),
        "reserved-namespace"
    );
    node.create_namespace(namespace("staff")).await.unwrap();
    node.create_secret(&secret("token/staff"), value(VALUE)).await.unwrap();
    let meanwhile = async {
        while node.list("staff").await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let refused = node.remove_namespace("staff").await.unwrap_err();
        assert_eq!(refused.code(), "namespace-in-use");
        assert!(refused.to_string().contains("reader"), "{refused}");
        source.go.notify_one();
    };
    let (deployed, ()) = tokio::join!(running.deploy_with("reader.staff", "token"), meanwhile);
    deployed.unwrap();
    assert_eq!(node.remove_namespace("staff").await.unwrap_err().code(), "namespace-in-use");
    node.remove(&name("reader.staff")).await.unwrap();
    node.remove_namespace("staff").await.unwrap();
    assert_eq!(node.remove_namespace("openfaas-fn").await.unwrap_err().code(), "default-namespace");
    running.stop().await;

    let running = machine.start();
    assert_eq!(running.node.namespaces().await.unwrap(), ["openfaas-fn"]);
    running.node.create_namespace(namespace("staff")).await.unwrap();
    assert_eq!(running.node.secrets("staff").await.unwrap(), []);
}

#[tokio::test]
async fn what_races_leaves_no_function_without_its_namespace() {
    let machine = Machine::new();
    let running = machine.start();
    let node = &running.node;
    let spec = FunctionSpec { namespace: "staff".into(), ..running.stored("f", guests::HELLO).await };
    let (mut refused, mut removed) = (0, 0);
    for round in 0..20 {
        if node.namespace("staff").await.is_err() {
            node.create_namespace(namespace("staff")).await.unwrap();
        }
        let (deploy, remove) = (node.deploy(spec.clone()), node.remove_namespace("staff"));
        let (deployed, gone) = if round % 2 == 0 {
            tokio::join!(deploy, remove)
        } else {
            let later = async {
                for _ in 0..round {
                    tokio::task::yield_now().await;
                }
                deploy.await
            };
            let (gone, deployed) = tokio::join!(remove, later);
            (deployed, gone)
        };
        assert_ne!(deployed.is_ok(), gone.is_ok(), "{deployed:?} {gone:?}");
        if deployed.is_ok() {
            refused += 1;
            node.remove(&name("f.staff")).await.unwrap();
        } else {
            removed += 1;
            assert!(matches!(node.status(&name("f.staff")).await, Err(Error::NotFound(_))));
        }
    }
    assert!(refused > 0 && removed > 0, "each comes first at times: {refused}, {removed}");
}

/// A client that goes away changes nothing of how far a change comes.
#[tokio::test]
async fn a_change_that_nobody_waits_for_is_whole() {
    let machine = Machine::new();
    let running = machine.start();
    let (token, hidden) = (secret("token"), value(VALUE));
    let mut change = Box::pin(running.node.create_secret(&token, hidden));
    assert!(futures_util::poll!(&mut change).is_pending());
    drop(change);
    running.node.shut_down().await;
    assert_eq!(running.node.secrets("openfaas-fn").await.unwrap(), [secret("token")]);
    drop(running);
    assert_eq!(machine.start().node.secrets("openfaas-fn").await.unwrap(), [secret("token")]);
}

#[tokio::test]
async fn what_a_node_keeps_is_bounded() {
    let machine = Machine::new();
    let running = machine.start();
    let large = SecretValue::new(vec![7; 1 << 20]).unwrap();
    for number in 0..64 {
        running.node.create_secret(&secret(&format!("s{number}")), large.clone()).await.unwrap();
    }
    let refused = running.node.create_secret(&secret("more"), value("x")).await.unwrap_err();
    assert_eq!(refused.code(), "storage-full");
    running.node.update_secret(&secret("s0"), large).await.unwrap();
    running.node.update_secret(&secret("s0"), value("small")).await.unwrap();
    running.node.create_secret(&secret("more"), value("x")).await.unwrap();
}
