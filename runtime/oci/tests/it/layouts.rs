//! Every layout in which producers push WebAssembly, end to end.

use base64::{Engine, engine::general_purpose::STANDARD};
use runtime_api::ArtifactKind;
use serde_json::{Value, json};

use crate::{
    bench::Bench,
    fake::{FakeRegistry, digest},
    images::{CNCF_CONFIG, COMPONENT, IMAGE_CONFIG, MODULE, TAR, WASM, gzip, module_of, tar, zstd},
};

const RAW: &str = "application/vnd.wasm.content.layer.v1+wasm";
const ACTOR: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
const RUNWASI: &str = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
const SPIN: &str = "application/vnd.fermyon.spin.application.v1+config";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A layer's type, content and annotations.
type Layer<'a> = (&'a str, &'a [u8], Value);
/// Who pushes it, the configuration's type and content, the layers, and the manifest's annotations.
type Pushed<'a> = (&'a str, (&'a str, &'a [u8]), &'a [Layer<'a>], Value);

/// Pushes an image named `f` under a tag: its configuration, its layers with their annotations, and its own.
fn push(fake: &FakeRegistry, tag: &str, config: (&str, &[u8]), layers: &[Layer<'_>], annotations: &Value) {
    let config = fake.blob("f", config.0, config.1);
    let layer = |(media_type, bytes, annotations): &Layer<'_>| {
        let mut layer = fake.blob("f", media_type, bytes);
        layer["annotations"] = annotations.clone();
        layer
    };
    let layers: Vec<Value> = layers.iter().map(layer).collect();
    let manifest =
        json!({"schemaVersion": 2, "config": config, "layers": layers, "annotations": annotations});
    fake.tag("f", tag, manifest.to_string().as_bytes());
}

fn titled(title: &str) -> Value {
    json!({"org.opencontainers.image.title": title})
}

fn image_config(architecture: &str, os: &str, config: &Value) -> Vec<u8> {
    json!({"architecture": architecture, "os": os, "config": config}).to_string().into_bytes()
}

fn spin(components: &Value) -> Vec<u8> {
    let triggers =
        json!([{"id": "t", "trigger_type": "http", "trigger_config": {"component": "a", "route": "/..."}}]);
    json!({"spin_lock_version": 0, "metadata": {"name": "app"}, "triggers": triggers, "components": components})
        .to_string()
        .into_bytes()
}

fn component(id: &str, module: &[u8]) -> Value {
    let source = json!({"content_type": "application/wasm", "digest": digest(module)});
    json!({"id": id, "source": source, "env": {"GREETING": "hi"}})
}

#[tokio::test]
async fn what_every_producer_pushes_is_taken() {
    let bench = Bench::start().await;
    let fake = &bench.fake;
    let none = json!({});
    let hidden =
        gzip(&tar(&[("bin/tool", b"\x7fELF"), ("app/plugin.wasm", MODULE), ("app/x.cwasm", b"\x7fELF")]));
    let linux = image_config("amd64", "linux", &json!({}));
    let smart = image_config("amd64", "linux", &json!({"Entrypoint": ["/app/plugin.wasm"]}));
    let runwasi = image_config("wasm", "wasip1", &json!({}));
    let other = image_config("wasm", "Wasip1", &json!({"Cmd": ["/bin/tool", "of", "another"]}));
    let bare = gzip(&tar(&[("main", MODULE)]));
    let bare_config = image_config("wasm", "wasi", &json!({"Entrypoint": ["/main"]}));
    let app = spin(&json!([component("a", MODULE)]));
    let images: &[Pushed<'_>] = &[
        ("wkg", (CNCF_CONFIG, b"{}"), &[(WASM, MODULE, none.clone())], none.clone()),
        (
            "spin",
            (
                IMAGE_CONFIG,
                &image_config("wasm", "Wasip1", &json!({"Labels": {"com.fermyon.spin.lockedAppDigest": ""}})),
            ),
            &[(RAW, MODULE, none.clone()), (SPIN, &app, none.clone())],
            none.clone(),
        ),
        ("old-spin", (SPIN, &app), &[(RAW, MODULE, none.clone())], none.clone()),
        (
            "wasmcloud",
            ("application/vnd.wasmcloud.actor.archive.config", b"{}"),
            &[(ACTOR, MODULE, titled("hello.wasm"))],
            none.clone(),
        ),
        (
            "wasm-to-oci",
            ("application/vnd.wasm.config.v1+json", b"{}"),
            &[(RAW, MODULE, none.clone())],
            none.clone(),
        ),
        (
            "solo",
            ("application/vnd.wasm.config.v1+json", b"{}"),
            &[
                ("application/vnd.module.wasm.config.v1+json", br#"{"type":"envoy_proxy"}"#, none.clone()),
                (ACTOR, MODULE, none.clone()),
            ],
            none.clone(),
        ),
        (
            "compat",
            (IMAGE_CONFIG, &linux),
            &[(TAR, &hidden, none.clone())],
            json!({"module.wasm.image/variant": "compat"}),
        ),
        ("docker-compat", (DOCKER_CONFIG, &linux), &[(DOCKER_LAYER, &hidden, none.clone())], none.clone()),
        (
            "compat-smart",
            (IMAGE_CONFIG, &smart),
            &[(TAR, &hidden, none.clone())],
            json!({"module.wasm.image/variant": "compat-smart"}),
        ),
        ("runwasi", (IMAGE_CONFIG, &runwasi), &[(RUNWASI, MODULE, none.clone())], none.clone()),
        ("sole", (IMAGE_CONFIG, &other), &[(TAR, &hidden, none.clone())], none.clone()),
        ("no-ending", (IMAGE_CONFIG, &bare_config), &[(TAR, &bare, none.clone())], none.clone()),
        (
            "oras",
            (EMPTY, b"{}"),
            &[("application/vnd.oci.image.layer.v1.tar", MODULE, titled("out/f.wasm"))],
            none.clone(),
        ),
        (
            "oras-folder",
            (EMPTY, b"{}"),
            &[(TAR, &hidden, json!({"io.deis.oras.content.unpack": "true"}))],
            none.clone(),
        ),
    ];
    for (producer, config, layers, annotations) in images {
        push(fake, producer, *config, layers, annotations);
        let artifact =
            bench.fetch(&format!("f:{producer}")).await.unwrap_or_else(|error| panic!("{producer}: {error}"));
        assert_eq!(artifact.digest.to_string(), digest(MODULE), "{producer}");
        assert_eq!(artifact.args, Vec::<String>::new(), "{producer}");
        assert_eq!(
            bench.fetch(&format!("f:{producer}")).await.unwrap(),
            artifact,
            "{producer} as remembered"
        );
    }
}

#[tokio::test]
async fn wrapped_modules_are_unwrapped_and_named_by_their_own_digest() {
    let bench = Bench::start().await;
    let module = module_of(100_000);
    for (tag, packed) in [("gzip", gzip(&module)), ("zstd", zstd(&module))] {
        bench.fake.artifact("f", tag, &packed);
        bench.fake.docker_image("g", tag, &["/f.wasm"], &[tar(&[("f.wasm", &packed)])]);
        for image in ["f", "g"] {
            let artifact = bench.fetch(&format!("{image}:{tag}")).await.unwrap();
            assert_eq!(artifact.digest.to_string(), digest(&module), "{image} {tag}");
            assert_eq!(artifact.size_bytes, 100_000);
        }
    }
}

#[tokio::test]
async fn a_spin_application_brings_its_module_and_environment() {
    let bench = Bench::start().await;
    let config = image_config("wasm", "Wasip1", &json!({}));
    let with = |tag: &str, components: &Value| {
        let app = spin(components);
        let layers = [(RAW, COMPONENT, json!({})), (SPIN, app.as_slice(), json!({}))];
        push(&bench.fake, tag, (IMAGE_CONFIG, &config), &layers, &json!({}));
    };
    with("one", &json!([component("a", COMPONENT)]));
    let artifact = bench.fetch("f:one").await.unwrap();
    assert_eq!(artifact.kind, ArtifactKind::Component);
    assert_eq!(artifact.env, [("GREETING".into(), "hi".into())]);

    let inline = |digest: Value| {
        let source =
            json!({"content_type": "application/wasm", "inline": STANDARD.encode(MODULE), "digest": digest});
        json!([{"id": "a", "source": source}])
    };
    with("inline", &inline(json!(digest(MODULE))));
    assert_eq!(bench.fetch("f:inline").await.unwrap().digest.to_string(), digest(MODULE));
}

#[tokio::test]
async fn a_spin_application_that_is_no_function_is_refused_by_what_it_has() {
    let bench = Bench::start().await;
    let lying =
        json!({"content_type": "application/wasm", "inline": STANDARD.encode(MODULE), "digest": digest(b"")});
    let mut files = component("a", MODULE);
    files["files"] = json!([{"source": "file:///x", "path": "/"}]);
    let mut bad_env = component("a", MODULE);
    bad_env["env"] = json!({"A=B": "c"});
    for (components, expected) in [
        (json!([component("api", MODULE), component("web", MODULE)]), "2 components (api, web)"),
        (json!([]), "0 components"),
        (json!([files]), "component a has files mounted"),
        (json!([bad_env]), "environment of component a"),
        (json!([component("a", b"elsewhere")]), "which no layer is"),
        (json!([{"id": "a", "source": {"content_type": "application/wasm"}}]), "component a has no content"),
        (json!([{"id": "a", "source": {"inline": "***"}}]), "no base64"),
        (json!([{"id": "a", "source": lying}]), "wrong-digest: "),
        (json!("none"), "Spin application cannot be read"),
    ] {
        let app = spin(&components);
        let layers = [(RAW, MODULE, json!({})), (SPIN, app.as_slice(), json!({}))];
        push(&bench.fake, "v1", (IMAGE_CONFIG, b"{}"), &layers, &json!({}));
        let refusal = bench.refusal("f:v1").await;
        assert!(refusal.contains(expected), "{refusal} has no {expected}");
    }
    assert!(!bench.fake.paths().iter().any(|path| path.ends_with(&digest(MODULE))), "no module moved");
}

#[tokio::test]
async fn an_image_keeps_its_arguments_where_they_are_the_modules() {
    let bench = Bench::start().await;
    let command = json!({"Entrypoint": ["/f.wasm", "--fast"], "Env": ["A=b"]});
    let config = image_config("wasm", "wasip1", &command);
    push(&bench.fake, "raw", (IMAGE_CONFIG, &config), &[(RUNWASI, MODULE, json!({}))], &json!({}));
    let config = image_config("wasm", "wasip1", &json!({"Entrypoint": ["/f", "--fast"], "Env": ["A=b"]}));
    let layer = tar(&[("f", MODULE)]);
    push(&bench.fake, "no-ending", (IMAGE_CONFIG, &config), &[(TAR, &layer, json!({}))], &json!({}));
    for tag in ["raw", "no-ending"] {
        let artifact = bench.fetch(&format!("f:{tag}")).await.unwrap();
        assert_eq!(
            (artifact.args, artifact.env),
            (vec!["--fast".into()], vec![("A".into(), "b".into())]),
            "{tag}"
        );
    }
}

#[tokio::test]
async fn of_the_files_in_an_image_those_that_are_still_there_count() {
    let bench = Bench::start().await;
    let config = image_config("wasm", "wasip1", &json!({}));
    let base = tar(&[("a.wasm", MODULE), ("app/b.wasm", COMPONENT)]);
    let pushed = |tag: &str, above: &[(&str, &[u8])]| {
        let above = tar(above);
        let layers = [(TAR, base.as_slice(), json!({})), (TAR, above.as_slice(), json!({}))];
        push(&bench.fake, tag, (IMAGE_CONFIG, &config), &layers, &json!({}));
    };
    for (tag, above) in [
        ("removed", &[(".wh.a.wasm", b"".as_slice())][..]),
        ("replaced", &[("a.wasm", COMPONENT), ("app", b"a file")]),
        ("emptied", &[("c/.wh..wh..opq", b""), ("app/.wh..wh..opq", b""), ("a.wasm", COMPONENT)]),
        ("plugin", &[("etc/plugin.wasm", COMPONENT)]),
    ] {
        pushed(tag, above);
        assert_eq!(bench.fetch(&format!("f:{tag}")).await.unwrap().kind, ArtifactKind::Component, "{tag}");
    }
}

#[tokio::test]
async fn an_image_of_none_or_several_modules_is_refused_with_their_names() {
    let bench = Bench::start().await;
    let config = image_config("wasm", "wasip1", &json!({}));
    let names: Vec<String> = (0..65).map(|number| format!("{number}.wasm")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), MODULE)).collect();
    for (files, expected) in [
        (&[("a.wasm", MODULE), ("app/b.wasm", COMPONENT)][..], "2 .wasm files (/a.wasm, /app/b.wasm)"),
        (&[("etc/motd", b"hi")], "without a .wasm file"),
        (&[("a.wasm", b"#!/bin/sh")], "/a.wasm: the file is not WebAssembly"),
        (&many, "more than 64 .wasm files"),
    ] {
        push(&bench.fake, "v1", (IMAGE_CONFIG, &config), &[(TAR, &tar(files), json!({}))], &json!({}));
        let refusal = bench.refusal("f:v1").await;
        assert!(refusal.contains(expected), "{refusal} has no {expected}");
    }
}
