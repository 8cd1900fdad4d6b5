use serde_json::{Value, json};

use super::*;

const OCI: &str = IMAGE_CONFIG_MEDIA_TYPE;
const DOCKER: &str = IMAGE_DOCKER_CONFIG_MEDIA_TYPE;
const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn manifest(config: &str, layers: &[&str]) -> OciImageManifest {
    let descriptor = |media_type: &&str| json!({"mediaType": media_type, "digest": "sha256:00", "size": 1});
    let layers: Vec<Value> = layers.iter().map(descriptor).collect();
    serde_json::from_value(json!({"schemaVersion": 2, "config": descriptor(&config), "layers": layers}))
        .unwrap()
}

fn config(json: Value) -> ImageConfig {
    serde_json::from_value(json).unwrap()
}

fn entrypoint(json: Value) -> Entrypoint {
    match detect(&manifest(OCI, &[TAR]), Some(&config(json))).unwrap() {
        Layout::Image(entrypoint) => entrypoint,
        Layout::Module(_) => panic!("not an image"),
    }
}

fn refusal(manifest: &OciImageManifest, json: Value) -> String {
    let config = has_image_config(manifest).then(|| config(json));
    let error = detect(manifest, config.as_ref()).unwrap_err();
    format!("{}: {error}", error.code())
}

#[test]
fn one_wasm_layer_under_the_cncf_configuration_is_the_module() {
    let manifest = manifest(CNCF_CONFIG, &[CNCF_LAYER]);
    assert!(!has_image_config(&manifest));
    assert!(matches!(detect(&manifest, None), Ok(Layout::Module(layer)) if layer.media_type == CNCF_LAYER));
}

#[test]
fn every_other_layout_is_refused_by_its_name() {
    let raw = "application/vnd.wasm.content.layer.v1+wasm";
    let wasm = json!({"architecture": "wasm", "os": "wasip1"});
    for (manifest, config, expected) in [
        (manifest(CNCF_CONFIG, &[CNCF_LAYER, CNCF_LAYER]), json!({}), "anything but one layer"),
        (manifest(CNCF_CONFIG, &[raw]), json!({}), "anything but one layer"),
        (
            manifest(OCI, &[raw, "application/vnd.fermyon.spin.application.v1+config"]),
            json!({"architecture": "wasm", "os": "Wasip1"}),
            "Spin application",
        ),
        (
            manifest("application/vnd.fermyon.spin.application.v1+config", &[raw]),
            json!({}),
            "Spin application",
        ),
        (
            manifest(
                "application/vnd.wasmcloud.actor.archive.config",
                &["application/vnd.module.wasm.content.layer.v1+wasm"],
            ),
            json!({}),
            "wasmCloud actor",
        ),
        (
            manifest(
                "application/vnd.wasmcloud.provider.archive.config",
                &["application/vnd.wasmcloud.provider.archive.layer.v1+par"],
            ),
            json!({}),
            "wasmCloud capability provider",
        ),
        (manifest("application/vnd.wasm.config.v1+json", &[raw]), json!({}), "wasm-to-oci"),
        (
            manifest(
                "application/vnd.oci.image.config.v1+json",
                &[
                    "application/vnd.module.wasm.config.v1+json",
                    "application/vnd.module.wasm.content.layer.v1+wasm",
                ],
            ),
            json!({}),
            "proxy-wasm filter",
        ),
        (
            manifest(OCI, &["application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"]),
            wasm.clone(),
            "runwasi image",
        ),
        (manifest("application/vnd.oci.empty.v1+json", &[CNCF_LAYER]), json!({}), "plain file"),
        (
            manifest("application/vnd.cncf.helm.config.v1+json", &[TAR]),
            json!({}),
            "application/vnd.cncf.helm",
        ),
        (manifest(OCI, &[TAR]), wasm, "Wasm image whose entrypoint \"\" is not a .wasm file"),
        (
            manifest(DOCKER, &[TAR]),
            json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]}}),
            "container image (its entrypoint is \"/bin/sh\")",
        ),
        (
            manifest(OCI, &[TAR]),
            json!({"config": {"Entrypoint": ["/f.wasm#handle"]}}),
            "starts its module at \"handle\"",
        ),
    ] {
        let refusal = refusal(&manifest, config);
        assert!(refusal.starts_with("unsupported-artifact: "), "{refusal}");
        assert!(refusal.contains(expected), "{refusal} has no {expected}");
    }
}

#[test]
fn files_pushed_by_oras_and_istio_plugins_are_told_by_annotations() {
    let mut oras = manifest("application/vnd.oci.empty.v1+json", &["application/vnd.oci.image.layer.v1.tar"]);
    let title = ("org.opencontainers.image.title".to_owned(), "hello.wasm".to_owned());
    oras.layers[0].annotations = Some([title].into());
    assert!(refusal(&oras, json!({})).contains("plain file"));

    let mut plugin = manifest(OCI, &[TAR]);
    plugin.annotations = Some([("module.wasm.image/variant".to_owned(), "compat".to_owned())].into());
    assert!(refusal(&plugin, json!({"os": "linux"})).contains("plugin image for Istio"));
    // crun marks its images so too, and those have an entrypoint.
    assert!(detect(&plugin, Some(&config(json!({"config": {"Entrypoint": ["/a.wasm"]}})))).is_ok());
}

#[test]
fn machine_code_is_refused_by_name() {
    let refusal = refusal(&manifest(OCI, &[TAR]), json!({"config": {"Entrypoint": ["/f.cwasm"]}}));
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
        let refusal = refusal(&manifest(OCI, &[TAR]), json!({ "config": bad }));
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
