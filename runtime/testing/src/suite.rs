//! What every provider does, whatever it is made of.
#![expect(clippy::unwrap_used, reason = "a contract is checked by panicking")]

use std::{collections::BTreeMap, sync::Arc};

use futures_util::StreamExt;
use http_body_util::BodyExt;
use runtime_api::{
    Body, CallId, DEFAULT_NAMESPACE, Error, FunctionName, FunctionSpec, Invocation, LogQuery, ModuleCommand,
    Namespace, Phase, Provider, Resources, Result, SecretName, SecretValue, full,
};

/// Runs the contract of [`Provider`] against fresh providers. `module` is WebAssembly that answers any request with 200.
pub async fn provider_suite<P: Provider + ?Sized>(make: impl AsyncFn() -> Arc<P>, module: &[u8]) {
    deploys_once(&Subject::new(make().await, module).await).await;
    updates_what_exists(&Subject::new(make().await, module).await).await;
    rejects_without_a_trace(&Subject::new(make().await, module).await).await;
    lists_in_order(&Subject::new(make().await, module).await).await;
    scales(&Subject::new(make().await, module).await).await;
    removes(&Subject::new(make().await, module).await).await;
    knows_itself(&Subject::new(make().await, module).await).await;
    keeps_only_modules(&Subject::new(make().await, module).await).await;
    keeps_namespaces_apart(&Subject::new(make().await, module).await).await;
    keeps_secrets(&Subject::new(make().await, module).await).await;
    tells_logs_of_what_exists(&Subject::new(make().await, module).await).await;
}

async fn deploys_once<P: Provider + ?Sized>(subject: &Subject<P>) {
    assert_not_found(subject.invoke("hello").await);
    let spec = FunctionSpec {
        labels: BTreeMap::from([("team".into(), "a".into())]),
        annotations: BTreeMap::from([("topic".into(), "t1".into())]),
        limits: Some(Resources { memory: "32Mi".into(), cpu: String::new() }),
        ..subject.spec("hello")
    };
    subject.provider.deploy(spec.clone()).await.unwrap();
    assert!(matches!(subject.provider.deploy(spec.clone()).await, Err(Error::AlreadyExists(_))));

    let status = subject.provider.status(&name("hello")).await.unwrap();
    assert_eq!((status.name.as_str(), status.spec.namespace.as_str()), ("hello", DEFAULT_NAMESPACE));
    assert_eq!((&status.spec.image, &status.spec.limits), (&spec.image, &spec.limits));
    assert_eq!(status.spec.annotations.get("topic"), spec.annotations.get("topic"));
    assert_eq!(status.spec.labels.get("team"), spec.labels.get("team"));
    assert_eq!((status.replicas, status.deployment.phase), (1, Phase::Ready));
    assert_eq!(subject.invoke("hello").await.unwrap(), 200);
}

async fn updates_what_exists<P: Provider + ?Sized>(subject: &Subject<P>) {
    let spec = FunctionSpec { env_vars: BTreeMap::from([("K".into(), "V".into())]), ..subject.spec("hello") };
    assert_not_found(subject.provider.update(spec.clone()).await);
    subject.deploy("hello").await;
    let created_at = subject.provider.status(&name("hello")).await.unwrap().created_at;
    subject.provider.update(spec.clone()).await.unwrap();

    let status = subject.provider.status(&name("hello")).await.unwrap();
    assert_eq!((&status.spec.env_vars, status.created_at), (&spec.env_vars, created_at));
    assert_eq!(subject.invoke("hello").await.unwrap(), 200);
}

async fn rejects_without_a_trace<P: Provider + ?Sized>(subject: &Subject<P>) {
    let good = subject.spec("hello");
    let bad_memory = Some(Resources { memory: "1Mb".into(), cpu: String::new() });
    let bad = [
        FunctionSpec { service: "Hello".into(), ..good.clone() },
        FunctionSpec { service: String::new(), ..good.clone() },
        FunctionSpec { namespace: "no-such".into(), ..good.clone() },
        FunctionSpec { image: String::new(), ..good.clone() },
        FunctionSpec { image: "Not an image".into(), ..good.clone() },
        FunctionSpec { limits: bad_memory, ..good },
    ];
    for spec in bad.clone() {
        assert_invalid(subject.provider.deploy(spec).await);
    }
    assert_eq!(subject.provider.list(DEFAULT_NAMESPACE).await.unwrap(), []);

    subject.deploy("hello").await;
    let before = subject.provider.status(&name("hello")).await.unwrap();
    for spec in bad {
        assert_invalid(subject.provider.update(spec).await);
    }
    assert_eq!(subject.provider.status(&name("hello")).await.unwrap().spec, before.spec);
    assert_eq!(subject.invoke("hello").await.unwrap(), 200);
}

async fn lists_in_order<P: Provider + ?Sized>(subject: &Subject<P>) {
    assert_eq!(subject.provider.list(DEFAULT_NAMESPACE).await.unwrap(), []);
    for function in ["b", "c", "a", "a-b"] {
        subject.deploy(function).await;
    }
    let listed = subject.provider.list(DEFAULT_NAMESPACE).await.unwrap();
    let names: Vec<_> = listed.iter().map(|status| status.name.as_str()).collect();
    assert_eq!(names, ["a", "a-b", "b", "c"]);
    assert_invalid(subject.provider.list("no-such").await);
}

async fn scales<P: Provider + ?Sized>(subject: &Subject<P>) {
    assert_not_found(subject.provider.scale(&name("hello"), 1).await);
    subject.deploy("hello").await;
    for replicas in [3, 0, 1] {
        subject.provider.scale(&name("hello"), replicas).await.unwrap();
        assert_eq!(subject.provider.status(&name("hello")).await.unwrap().replicas, replicas);
    }
    assert_eq!(subject.invoke("hello").await.unwrap(), 200);
}

async fn removes<P: Provider + ?Sized>(subject: &Subject<P>) {
    assert_not_found(subject.provider.remove(&name("hello")).await);
    subject.deploy("hello").await;
    subject.provider.remove(&name("hello")).await.unwrap();
    assert_not_found(subject.provider.remove(&name("hello")).await);
    assert_not_found(subject.provider.status(&name("hello")).await);
    assert_not_found(subject.invoke("hello").await);
    subject.deploy("hello").await;
    assert_eq!(subject.invoke("hello").await.unwrap(), 200);
}

async fn knows_itself<P: Provider + ?Sized>(subject: &Subject<P>) {
    let info = subject.provider.info().await.unwrap();
    for part in [&info.provider, &info.orchestration, &info.version.sha, &info.version.release] {
        assert!(!part.is_empty(), "{info:?}");
    }
    assert!(subject.provider.namespaces().await.unwrap().iter().any(|one| one == DEFAULT_NAMESPACE));
    subject.provider.health().await.unwrap();
}

async fn keeps_only_modules<P: Provider + ?Sized>(subject: &Subject<P>) {
    let again = subject
        .provider
        .store_artifact(full(subject.module.clone()), ModuleCommand::default())
        .await
        .unwrap();
    assert_eq!(again.image, subject.image);
    let command = ModuleCommand { args: vec!["--fast".into()], env: vec![("A".into(), "b".into())] };
    let started = subject.provider.store_artifact(full(subject.module.clone()), command).await.unwrap();
    assert_eq!(started.digest, again.digest);
    assert_ne!(started.image, again.image);
    let command = ModuleCommand { args: vec!["\0".into()], env: Vec::new() };
    assert_invalid(subject.provider.store_artifact(full(subject.module.clone()), command).await);
    assert_invalid(subject.provider.store_artifact(full("no module"), ModuleCommand::default()).await);
}

async fn keeps_namespaces_apart<P: Provider + ?Sized>(subject: &Subject<P>) {
    let staff = |value: &str| Namespace {
        name: "staff".into(),
        labels: BTreeMap::from([("openfaas".into(), value.into())]),
        annotations: BTreeMap::from([("owner".into(), "a\nb".into())]),
    };
    let provider = &subject.provider;
    assert_not_found(provider.namespace("staff").await);
    assert_not_found(provider.update_namespace(staff("1")).await);
    assert_not_found(provider.remove_namespace("staff").await);
    provider.create_namespace(staff("1")).await.unwrap();
    assert!(matches!(provider.create_namespace(staff("1")).await, Err(Error::AlreadyExists(_))));
    provider.update_namespace(staff("2")).await.unwrap();
    assert_eq!(provider.namespace("staff").await.unwrap(), staff("2"));
    assert!(provider.namespaces().await.unwrap().is_sorted());
    assert_invalid(provider.create_namespace(Namespace { name: "Not one".into(), ..staff("1") }).await);

    subject.deploy("hello").await;
    provider.deploy(FunctionSpec { namespace: "staff".into(), ..subject.spec("hello") }).await.unwrap();
    assert_eq!(provider.list("staff").await.unwrap().len(), 1);
    provider.remove(&FunctionName::new("hello", "").unwrap()).await.unwrap();
    assert_eq!(provider.list("staff").await.unwrap().len(), 1);
    assert_invalid(provider.remove_namespace("staff").await);
    assert_invalid(provider.remove_namespace(DEFAULT_NAMESPACE).await);
    provider.remove(&FunctionName::new("hello", "staff").unwrap()).await.unwrap();
    provider.remove_namespace("staff").await.unwrap();
    assert_invalid(provider.list("staff").await);
    assert!(!provider.namespaces().await.unwrap().iter().any(|one| one == "staff"));
}

async fn keeps_secrets<P: Provider + ?Sized>(subject: &Subject<P>) {
    let provider = &subject.provider;
    let secret = |name: &str, namespace: &str| SecretName::new(name, namespace).unwrap();
    let value = |bytes: &[u8]| SecretValue::new(bytes).unwrap();
    let namespace = Namespace { name: "staff".into(), ..Namespace::default() };
    provider.create_namespace(namespace.clone()).await.unwrap();

    assert_not_found(provider.update_secret(&secret("b", ""), value(b"x")).await);
    assert_not_found(provider.remove_secret(&secret("b", "")).await);
    for name in ["b", "a.pem"] {
        provider.create_secret(&secret(name, ""), value(b"\0x\n")).await.unwrap();
    }
    assert!(matches!(
        provider.create_secret(&secret("b", ""), value(b"")).await,
        Err(Error::AlreadyExists(_))
    ));
    provider.update_secret(&secret("b", ""), value(b"")).await.unwrap();
    provider.create_secret(&secret("b", "staff"), value(b"y")).await.unwrap();
    assert_eq!(provider.secrets(DEFAULT_NAMESPACE).await.unwrap(), [secret("a.pem", ""), secret("b", "")]);
    assert_eq!(provider.secrets("staff").await.unwrap(), [secret("b", "staff")]);
    for nowhere in [secret("b", "no-such")] {
        assert_invalid(provider.create_secret(&nowhere, value(b"x")).await);
        assert_invalid(provider.secrets(nowhere.namespace()).await);
    }

    let wants = |secret: &str| FunctionSpec { secrets: vec![secret.into()], ..subject.spec("hello") };
    for missing in ["no-such", "../b", ""] {
        assert_invalid(provider.deploy(wants(missing)).await);
    }
    provider.deploy(wants("a.pem")).await.unwrap();
    assert_eq!(provider.status(&name("hello")).await.unwrap().spec.secrets, ["a.pem"]);
    provider.remove_secret(&secret("a.pem", "")).await.unwrap();
    assert_eq!(subject.invoke("hello").await.unwrap(), 200);
    provider.remove_namespace("staff").await.unwrap();
    provider.create_namespace(namespace).await.unwrap();
    assert_eq!(provider.secrets("staff").await.unwrap(), []);
}

async fn tells_logs_of_what_exists<P: Provider + ?Sized>(subject: &Subject<P>) {
    let query = LogQuery {
        function: name("hello"),
        instance: String::new(),
        tail: Some(10),
        since: None,
        follow: false,
    };
    assert_not_found(subject.provider.logs(query.clone()).await.map(drop));
    subject.deploy("hello").await;
    let mut lines = subject.provider.logs(query).await.unwrap();
    while let Some(line) = lines.next().await {
        assert_eq!(line.unwrap().name, "hello");
    }
}

/// A provider, and a module that it has in store.
struct Subject<P: ?Sized> {
    provider: Arc<P>,
    module: Vec<u8>,
    image: String,
}

impl<P: Provider + ?Sized> Subject<P> {
    async fn new(provider: Arc<P>, module: &[u8]) -> Self {
        let image =
            provider.store_artifact(full(module.to_vec()), ModuleCommand::default()).await.unwrap().image;
        Self { provider, module: module.to_vec(), image }
    }

    fn spec(&self, function: &str) -> FunctionSpec {
        FunctionSpec { service: function.into(), image: self.image.clone(), ..FunctionSpec::default() }
    }

    async fn deploy(&self, function: &str) {
        self.provider.deploy(self.spec(function)).await.unwrap();
    }

    async fn invoke(&self, function: &str) -> Result<u16> {
        let request = http::Request::get("/").body(Body::default()).unwrap();
        let invocation = Invocation { function: name(function), call_id: CallId::new("suite"), request };
        let response = self.provider.invoke(invocation).await?;
        let status = response.status().as_u16();
        response.into_body().collect().await.unwrap();
        Ok(status)
    }
}

fn name(function: &str) -> FunctionName {
    FunctionName::parse(function).unwrap()
}

fn assert_not_found<T>(result: Result<T>) {
    assert!(matches!(result.err().unwrap(), Error::NotFound(_)));
}

fn assert_invalid<T>(result: Result<T>) {
    assert!(matches!(result.err().unwrap(), Error::Invalid { .. }));
}
