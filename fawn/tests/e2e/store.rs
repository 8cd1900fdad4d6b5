//! Functions of a store that lies packed on this machine.

use std::{fs, path::Path};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    edge::{Edge, Plan, Reply, binary, clean, ready},
    process::{Process, Said, run},
};

/// A store, packed with the binary under test.
struct Pack(TempDir);

impl Pack {
    /// Of this repository's guests, each with what the list says of it besides.
    async fn of(guests: &[(&str, Value)]) -> Self {
        let pack = Self(tempfile::tempdir().unwrap());
        // All at once, as a build of several does.
        let pushes = guests.iter().map(|(name, _)| pack.push(name));
        for pushed in join_all(pushes).await {
            pushed.succeeds();
        }
        let functions: Vec<_> = guests.iter().map(|(name, more)| described(name, more)).collect();
        pack.write(&json!({"version": "1", "functions": functions}).to_string());
        pack
    }

    async fn push(&self, guest: &str) -> Said {
        let module = format!("{}/../runtime/testing/guests/{guest}.wat", env!("CARGO_MANIFEST_DIR"));
        let image = format!("oci:{}/images:{guest}", self.path().display());
        self.fawn(&["push", &module, &image]).await
    }

    async fn fawn(&self, arguments: &[&str]) -> Said {
        let mut command = tokio::process::Command::new(binary());
        clean(&mut command, self.path());
        run(command.args(arguments), b"").await
    }

    fn write(&self, list: &str) {
        fs::write(self.path().join("functions.json"), list).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn text(&self) -> &str {
        self.path().to_str().unwrap()
    }
}

fn described(name: &str, more: &Value) -> Value {
    let image = format!("oci:images:{name}");
    let mut function = json!({
        "title": name, "name": name, "author": "us", "description": format!("The guest {name}"), "icon": "",
        "fprocess": "", "repo_url": "", "environment": {}, "labels": {}, "annotations": {},
        "images": {"x86_64": image, "arm64": image, "armhf": image},
    });
    function.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    function
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn functions_of_a_store_are_listed_deployed_and_called() {
    let with_environment =
        json!({"environment": {"GREETING": "hi", "WHO": "you"}, "labels": {"from": "store"}});
    let pack = Pack::of(&[("echo", json!({})), ("env", with_environment), ("hello", json!({}))]).await;
    let mut edge = Plan::new().in_one().argument("--store").argument(pack.text()).start().await;
    let list = edge.get("/store/functions.json").await;
    assert_eq!(list.headers["content-type"], "application/json");
    assert_eq!(list.ok(), fs::read_to_string(pack.path().join("functions.json")).unwrap());
    assert_eq!(Reply::to(edge.request(Method::HEAD, "/store/functions.json")).await.ok(), "");

    let listed = edge.fawn(&["store", "list"]).await.succeeds();
    assert!(listed.starts_with("FUNCTION") && listed.contains("The guest echo"), "{listed}");
    let json: Value =
        serde_json::from_str(&edge.fawn(&["store", "list", "--json"]).await.succeeds()).unwrap();
    let names: Vec<_> = json.as_array().unwrap().iter().map(|function| &function["name"]).collect();
    assert_eq!(names, ["echo", "env", "hello"]);
    let told = edge.fawn(&["store", "describe", "env"]).await.succeeds();
    assert!(told.contains("oci:images:env") && told.contains("GREETING=hi"), "{told}");

    let line = ["store", "deploy", "env", "--name", "mine", "--env", "WHO=me", "--label", "team=x", "--json"];
    let deployed: Value = serde_json::from_str(&edge.fawn(&line).await.succeeds()).unwrap();
    let url = format!("{}/function/mine", edge.gateway);
    assert_eq!((&deployed["name"], &deployed["url"]), (&json!("mine"), &json!(url)));
    let printed = edge.call("mine", "").await.ok();
    for line in ["GREETING=hi", "WHO=me"] {
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }
    let labels = &edge.status("mine").await.json()["labels"];
    assert_eq!((&labels["from"], &labels["team"]), (&json!("store"), &json!("x")));
    edge.fawn(&["store", "deploy", "echo"]).await.succeeds();
    assert_eq!(edge.call("echo", "some text").await.ok(), "some text");
    let unknown = edge.fawn(&["store", "deploy", "ecco"]).await;
    assert!(unknown.code == Some(2) && unknown.stderr.contains("echo may be meant"), "{}", unknown.stderr);

    // The list is what is in the folder now, and so are the images.
    pack.push("cat").await.succeeds();
    pack.write(&json!({"functions": [described("cat", &json!({}))]}).to_string());
    assert!(edge.fawn(&["store", "deploy", "echo"]).await.fails().contains("no function \"echo\""));
    edge.fawn(&["store", "deploy", "cat"]).await.succeeds();

    assert!(edge.terminate().await.success());
    drop(pack);
    let edge = edge.again().in_one().start().await;
    assert_eq!(edge.call("echo", "again").await.ok(), "again");
    assert!(edge.call("mine", "").await.ok().contains("WHO=me"));
    assert_eq!(edge.get("/store/functions.json").await.status, 404);
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_module_that_was_pushed_into_a_folder_is_inspected_and_deployed_from_there() {
    let pack = Pack::of(&[("hello", json!({}))]).await;
    let image = format!("oci:{}/images:hello", pack.text());
    let found: Value =
        serde_json::from_str(&pack.fawn(&["inspect", &image, "--json"]).await.succeeds()).unwrap();
    let pushed = format!("{}/../runtime/testing/guests/hello.wat", env!("CARGO_MANIFEST_DIR"));
    let module: Value =
        serde_json::from_str(&pack.fawn(&["inspect", &pushed, "--json"]).await.succeeds()).unwrap();
    assert_eq!(found["digest"], module["digest"]);
    let said: Value =
        serde_json::from_str(&pack.fawn(&["push", &pushed, &image, "--json"]).await.succeeds()).unwrap();
    assert_eq!((&said["image"], &said["pinned"]), (&json!(image), &Value::Null));
    let edge = Edge::start().await;
    edge.fawn(&["deploy", &image, "--name", "from-folder"]).await.succeeds();
    assert_eq!(edge.call("from-folder", "").await.ok(), "Hello from Fawn\n");

    let archive = pack.fawn(&["push", &pushed, "oci-archive:hello.tar:v1"]).await;
    assert!(archive.code == Some(2) && archive.stderr.contains("oci:FOLDER:TAG"), "{}", archive.stderr);
    let elsewhere = format!("oci:{}:hello", pack.text());
    assert!(pack.fawn(&["push", &pushed, &elsewhere]).await.fails().contains("has other things in it"));
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn gateway_and_node_each_have_their_part_of_a_store() {
    let pack = Pack::of(&[("echo", json!({}))]).await;
    let edge = Plan::new().apart().argument("--store").argument(pack.text()).start().await;
    let none = edge.fawn(&["store", "list"]).await.fails();
    assert!(none.contains("404 Not Found") && none.contains("--store FOLDER"), "{none}");

    let provider = edge.node.as_ref().unwrap().provider.clone();
    let arguments = ["--provider", &provider, "--store", pack.text()];
    let mut offering = Process::spawn(&mut edge.again().gateway(&arguments));
    let (gateway, _) = offering.until(ready).await;
    let mut command = edge.command(&["store", "deploy", "echo"]);
    command.env("OPENFAAS_STORE", format!("{gateway}/store/functions.json"));
    run(&mut command, b"").await.succeeds();
    assert_eq!(edge.call("echo", "some text").await.ok(), "some text");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn what_is_no_store_keeps_a_server_from_starting() {
    let refused =
        async |folder: &str| Plan::new().in_one().argument("--store").argument(folder).refused().await;
    let missing = refused("/nowhere").await;
    assert!(missing.contains("/nowhere/functions.json: there is no such file"), "{missing}");
    assert!(missing.contains("/nowhere/images is no OCI image layout"), "{missing}");
    let pack = Pack::of(&[("echo", json!({}))]).await;
    for (list, expected) in [
        ("half of {", "functions.json: the list is not as expected"),
        (r#"{"functions": [{"name": "echo"}]}"#, "function \"echo\": it has no image"),
        (r#"{"functions": [{"name": "Echo", "images": {"x86_64": "a/b"}}]}"#, "function \"Echo\""),
    ] {
        pack.write(list);
        let said = refused(pack.text()).await;
        assert!(said.contains(expected), "{said}");
    }
}
