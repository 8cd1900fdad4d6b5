use oci_client::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, OciImageIndex,
};
use serde_json::{Value, json};

use super::*;
use crate::{image_config::has_image_config, index::choose};

const OCI: &str = IMAGE_CONFIG_MEDIA_TYPE;
const DOCKER: &str = IMAGE_DOCKER_CONFIG_MEDIA_TYPE;
const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const RAW: &str = "application/vnd.wasm.content.layer.v1+wasm";
const ACTOR: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
const RUNWASI: &str = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
const SPIN_DATA: &str = "application/vnd.wasm.content.layer.v1+data";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

fn manifest(config: &str, layers: &[&str]) -> OciImageManifest {
    let layers: Vec<_> = layers.iter().map(|media_type| (*media_type, json!({}))).collect();
    annotated(config, &layers, &json!({}))
}

/// With the annotations of each layer, and of the manifest. Layers have digests of their places.
fn annotated(config: &str, layers: &[(&str, Value)], annotations: &Value) -> OciImageManifest {
    let layers: Vec<Value> = (0..)
        .zip(layers)
        .map(|(at, (media_type, annotations))| {
            json!({"mediaType": media_type, "digest": format!("sha256:{at}"), "size": 1, "annotations": annotations})
        })
        .collect();
    let config = json!({"mediaType": config, "digest": "sha256:config", "size": 1});
    let manifest =
        json!({"schemaVersion": 2, "config": config, "layers": layers, "annotations": annotations});
    serde_json::from_value(manifest).unwrap()
}

fn titled(title: &str) -> Value {
    json!({"org.opencontainers.image.title": title})
}

fn config(json: Value) -> ImageConfig {
    serde_json::from_value(json).unwrap()
}

/// What was found, in a few words.
fn found(manifest: &OciImageManifest, json: Value) -> String {
    let config = has_image_config(manifest).then(|| config(json));
    match detect(manifest, config.as_ref()) {
        Ok(Layout::Module(layer, entrypoint)) => format!("module {} {:?}", layer.digest, entrypoint.args),
        Ok(Layout::File(entrypoint)) => format!("file {} {:?}", entrypoint.path, entrypoint.args),
        Ok(Layout::SomeFile(entrypoint)) => format!("some file, perhaps {:?}", entrypoint.path),
        Ok(Layout::Spin(application)) => format!("spin {}", application.digest),
        Err(error) => format!("{}: {error}", error.code()),
    }
}

fn entrypoint(json: Value) -> Entrypoint {
    match detect(&manifest(OCI, &[TAR]), Some(&config(json))).unwrap() {
        Layout::File(entrypoint) => entrypoint,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_module_is_found_in_every_layout_as_its_producer_writes_it() {
    let compat = json!({"module.wasm.image/variant": "compat"});
    let smart = json!({"module.wasm.image/variant": "compat-smart", "run.oci.handler": "wasm"});
    let unpack = json!({"org.opencontainers.image.title": "app", "io.deis.oras.content.unpack": "true"});
    let wasm = |entrypoint: Value| json!({"architecture": "wasm", "os": "wasip1", "config": {"Entrypoint": entrypoint}});
    let linux = json!({"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"]}});
    let nothing = json!({});
    let plain = "application/vnd.oci.image.layer.v1.tar";
    let docker = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    for (producer, manifest, config, expected) in [
        ("wkg", manifest(CNCF_CONFIG, &[CNCF_LAYER]), nothing.clone(), "module sha256:0 []"),
        (
            "spin registry push",
            manifest(OCI, &[RAW, SPIN_DATA, SPIN_DATA, SPIN_APPLICATION]),
            json!({"architecture": "wasm", "os": "Wasip1"}),
            "spin sha256:3",
        ),
        ("old spin", manifest(SPIN_APPLICATION, &[RAW, SPIN_DATA]), nothing.clone(), "spin sha256:config"),
        (
            "old wash push",
            manifest("application/vnd.wasmcloud.actor.archive.config", &[ACTOR]),
            nothing.clone(),
            "module sha256:0 []",
        ),
        (
            "wasm-to-oci, kwctl",
            manifest(WASM_CONFIG_MEDIA_TYPE, &[RAW]),
            nothing.clone(),
            "module sha256:0 []",
        ),
        (
            "solo.io",
            manifest(WASM_CONFIG_MEDIA_TYPE, &["application/vnd.module.wasm.config.v1+json", ACTOR]),
            nothing.clone(),
            "module sha256:1 []",
        ),
        (
            "Istio compat",
            annotated(OCI, &[(TAR, json!({}))], &compat),
            linux.clone(),
            "some file, perhaps \"\"",
        ),
        ("Istio, docker build", manifest(DOCKER, &[docker]), linux.clone(), "some file, perhaps \"\""),
        (
            "crun compat-smart",
            annotated(OCI, &[(TAR, json!({}))], &smart),
            json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/hello.wasm", "a"]}}),
            "file hello.wasm [\"a\"]",
        ),
        (
            "buildx --platform wasi/wasm",
            manifest(OCI, &[TAR]),
            json!({"architecture": "wasm", "os": "wasi", "config": {"Entrypoint": ["/f.wasm"]}}),
            "file f.wasm []",
        ),
        (
            "linux/wasm without an entrypoint",
            manifest(OCI, &[TAR]),
            json!({"architecture": "wasm", "os": "linux"}),
            "some file, perhaps \"\"",
        ),
        (
            "wasi/wasm32 with another entrypoint",
            manifest(DOCKER, &[docker]),
            json!({"architecture": "wasm32", "os": "wasi", "config": {"Entrypoint": ["/app/main"]}}),
            "some file, perhaps \"app/main\"",
        ),
        ("oci-tar-builder", manifest(OCI, &[RUNWASI]), wasm(json!(null)), "module sha256:0 []"),
        (
            "oci-tar-builder with a command",
            manifest(OCI, &[RUNWASI]),
            wasm(json!(["f.wasm", "--fast"])),
            "module sha256:0 [\"--fast\"]",
        ),
        (
            "oras push",
            annotated(EMPTY, &[(plain, titled("f.wasm"))], &json!({})),
            nothing.clone(),
            "module sha256:0 []",
        ),
        (
            "oras push of a wrapped module beside its notes",
            annotated(
                EMPTY,
                &[("text/plain", titled("NOTES")), (plain, titled("out/f.wasm.gz"))],
                &json!({}),
            ),
            nothing.clone(),
            "module sha256:1 []",
        ),
        (
            "oras push --config with the type of an image",
            annotated(OCI, &[(plain, titled("f.wasm"))], &json!({})),
            json!({}),
            "module sha256:0 []",
        ),
        (
            "old oras push of a file without an ending",
            annotated("application/vnd.unknown.config.v1+json", &[(plain, titled("main"))], &json!({})),
            nothing.clone(),
            "module sha256:0 []",
        ),
        (
            "oras push of a folder",
            annotated(EMPTY, &[(TAR, unpack)], &json!({})),
            nothing.clone(),
            "some file, perhaps \"\"",
        ),
        (
            "two modules, of which the entrypoint is one",
            annotated(OCI, &[(CNCF_LAYER, titled("a.wasm")), (CNCF_LAYER, titled("b.wasm"))], &json!({})),
            wasm(json!(["/b.wasm"])),
            "module sha256:1 []",
        ),
        (
            "a raw layer of a type that says nothing",
            manifest(OCI, &["application/octet-stream"]),
            wasm(json!(null)),
            "module sha256:0 []",
        ),
    ] {
        assert_eq!(found(&manifest, config), expected, "{producer}");
    }
}

#[test]
fn what_holds_no_function_is_refused_by_its_name() {
    for (manifest, config, expected) in [
        (manifest(CNCF_CONFIG, &[CNCF_LAYER, CNCF_LAYER]), json!({}), "anything but one layer"),
        (manifest(CNCF_CONFIG, &[]), json!({}), "anything but one layer"),
        (
            manifest(
                "application/vnd.wasmcloud.provider.archive.config",
                &["application/vnd.wasmcloud.provider.archive.layer.v1+par"],
            ),
            json!({}),
            "wasmCloud capability provider",
        ),
        (manifest(OCI, &["application/vnd.in-toto+json"]), json!({"os": "unknown"}), "record of how"),
        (manifest(OCI, &["application/vnd.dev.cosign.simplesigning.v1+json"]), json!({}), "a signature"),
        (
            annotated(EMPTY, &[(CNCF_LAYER, titled("a.wasm")), (CNCF_LAYER, titled("b.wasm"))], &json!({})),
            json!({}),
            "2 modules (a.wasm, b.wasm)",
        ),
        (
            manifest("application/vnd.cncf.helm.config.v1+json", &[TAR]),
            json!({}),
            "application/vnd.cncf.helm",
        ),
        (manifest(OCI, &["text/plain", TAR]), json!({}), "layer of type \"text/plain\""),
        (
            manifest(DOCKER, &[TAR]),
            json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]}}),
            "container image (its entrypoint is \"bin/sh\")",
        ),
        (
            manifest(OCI, &[TAR]),
            json!({"config": {"Entrypoint": ["/f.wasm#handle"]}}),
            "starts its module at \"handle\"",
        ),
    ] {
        let refusal = found(&manifest, config);
        assert!(refusal.starts_with("unsupported-artifact: "), "{refusal}");
        assert!(refusal.contains(expected), "{refusal} has no {expected}");
    }
}

#[test]
fn machine_code_is_refused_by_name() {
    let refusal = found(&manifest(OCI, &[TAR]), json!({"config": {"Entrypoint": ["/f.cwasm"]}}));
    assert!(refusal.starts_with("precompiled: "), "{refusal}");
}

#[test]
fn an_entrypoint_that_is_a_module_makes_a_function_on_any_platform() {
    for platform in [("amd64", "linux"), ("wasm", "wasip1"), ("wasm32", "wasi"), ("", "")] {
        let (architecture, os) = platform;
        let found = entrypoint(json!({
            "architecture": architecture,
            "os": os,
            "config": {
                "Entrypoint": ["/hello.wasm", "--fast"],
                "Cmd": ["a", "b"],
                "Env": ["PATH=/bin", "EQUATION=a=b", "EMPTY="],
                "Labels": null,
            },
        }));
        assert_eq!(found.path, "hello.wasm");
        assert_eq!(found.args, ["--fast", "a", "b"]);
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        assert_eq!(found.env, [("PATH", "/bin"), ("EQUATION", "a=b"), ("EMPTY", "")].map(pair));
    }
}

#[test]
fn paths_are_resolved_inside_the_image() {
    for (working_dir, command, path) in [
        ("", "/a.wasm", "a.wasm"),
        ("", "a.wasm", "a.wasm"),
        ("/app", "a.wasm", "app/a.wasm"),
        ("/app", "./bin//a.wasm", "app/bin/a.wasm"),
        ("/app", "../a.wasm", "a.wasm"),
        ("/app", "../../../etc/a.wasm", "etc/a.wasm"),
        ("/app", "/a.wasm#_start", "a.wasm"),
    ] {
        let found =
            entrypoint(json!({"config": {"Entrypoint": null, "Cmd": [command], "WorkingDir": working_dir}}));
        assert_eq!(found.path, path, "{working_dir} {command}");
    }
}

#[test]
fn arguments_and_environment_must_be_such() {
    for bad in [
        json!({"Entrypoint": ["/a.wasm"], "Env": ["NONE"]}),
        json!({"Entrypoint": ["/a.wasm"], "Env": ["=x"]}),
        json!({"Entrypoint": ["/a.wasm"], "Env": ["A=\0"]}),
        json!({"Entrypoint": ["/a.wasm", "\0"]}),
    ] {
        let refusal = found(&manifest(OCI, &[TAR]), json!({ "config": bad }));
        assert!(refusal.starts_with("invalid-image-config: "), "{refusal}");
    }
}

fn index(entries: &[(&str, &str, &str)]) -> OciImageIndex {
    let entry = |(digest, os, architecture): &(&str, &str, &str)| {
        let platform = json!({"os": os, "architecture": architecture});
        json!({"mediaType": OCI_IMAGE_MEDIA_TYPE, "digest": digest, "size": 1, "platform": platform})
    };
    let manifests: Vec<Value> = entries.iter().map(entry).collect();
    serde_json::from_value(json!({"schemaVersion": 2, "manifests": manifests})).unwrap()
}

#[test]
fn an_index_prefers_wasm_then_this_machine_then_the_first() {
    let host = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    for (entries, chosen) in [
        (
            vec![
                ("a", "linux", host),
                ("b", "wasi", "wasm"),
                ("c", "wasip2", "wasm"),
                ("d", "wasip1", "wasm"),
            ],
            "c",
        ),
        (vec![("a", "linux", host), ("b", "linux", "wasm")], "b"),
        (vec![("a", "linux", host), ("b", "wasi", "wasm32")], "b"),
        (vec![("a", "linux", host), ("b", "Wasip1", "Wasm")], "b"),
        (vec![("a", "linux", "s390x"), ("b", "linux", host)], "b"),
        (vec![("a", "linux", "s390x"), ("b", "linux", "ppc64le")], "a"),
        (vec![("a", "unknown", "unknown"), ("b", "linux", "s390x")], "b"),
    ] {
        assert_eq!(choose(&index(&entries)).unwrap().digest, chosen, "{entries:?}");
    }
}

#[test]
fn an_index_of_nothing_or_of_indexes_is_refused() {
    assert!(choose(&index(&[])).is_err());
    assert!(choose(&index(&[("a", "unknown", "unknown")])).is_err());
    let mut nested = index(&[("a", "linux", "amd64")]);
    nested.manifests[0].media_type = "application/vnd.oci.image.index.v1+json".into();
    assert!(choose(&nested).is_err());
}

#[test]
fn damaged_manifests_end_in_an_answer() {
    use crate::manifest::Document;

    let image = serde_json::to_vec(&manifest(OCI, &[TAR, CNCF_LAYER])).unwrap();
    let index = serde_json::to_vec(&index(&[("a", "linux", "amd64"), ("b", "wasi", "wasm")])).unwrap();
    let mut random = 1_u64;
    for round in 0..20_000 {
        let mut bytes = if round % 2 == 0 { image.clone() } else { index.clone() };
        for _ in 0..=round % 3 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (random >> 33) as usize % bytes.len();
            bytes[at] = b"\"{}[],:0-9e\\nul\0"[(random >> 20) as usize % 16];
        }
        // Whatever it is, it does not panic.
        match Document::parse(&bytes) {
            Ok(Document::Image(manifest)) => drop(detect(&manifest, None)),
            Ok(Document::Index(index)) => drop(choose(&index)),
            Err(_) => {}
        }
    }
}
