//! A secret is nowhere but in the answers of functions that print it.

use std::{fmt::Write, fs, path::Path};

use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, Engine};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    clients::word,
    edge::{Deployment, Edge, Reply},
    guests::built,
};

/// A value, in all the ways in which it could lie about.
struct Canary {
    value: String,
    /// In lower case where the case means nothing.
    needles: Vec<(&'static str, Vec<u8>, Case)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Case {
    Matters,
    DoesNot,
}

impl Canary {
    /// With characters that JSON, paths and forms write in other ways.
    fn hatch() -> Self {
        let value = format!("{}/+ %\"é{}", word(), word());
        let bytes = value.as_bytes();
        let every_byte = |before: &str| {
            bytes.iter().fold(String::new(), |mut text, byte| {
                write!(text, "{before}{byte:02x}").unwrap();
                text
            })
        };
        // What is not in need of it stays as it is: the first word of the value is its own percent-encoding.
        let percent = value.replace('%', "%25").replace('/', "%2f").replace('+', "%2b");
        let percent = percent.replace(' ', "%20").replace('"', "%22").replace('é', "%c3%a9");
        let mut needles = vec![
            ("raw", bytes.to_vec(), Case::Matters),
            // As words, by which JSON and logs with their escapes are found.
            ("its beginning", bytes[..20].to_vec(), Case::Matters),
            ("its end", bytes[bytes.len() - 20..].to_vec(), Case::Matters),
            ("reversed", bytes.iter().rev().copied().collect(), Case::Matters),
            ("hex", every_byte("").into(), Case::DoesNot),
            ("percent", percent.to_lowercase().into(), Case::DoesNot),
            ("percent throughout", every_byte("%").into(), Case::DoesNot),
        ];
        for before in 0..3 {
            needles.push(("base64", base64_within(bytes, before), Case::Matters));
        }
        Self { value, needles }
    }

    /// By which of the encodings it is to be found.
    fn found_in(&self, hay: &[u8]) -> Option<&'static str> {
        let lower = hay.to_ascii_lowercase();
        let found = |needle: &[u8], case| {
            let hay = if case == Case::DoesNot { &lower[..] } else { hay };
            hay.windows(needle.len()).any(|window| window == needle)
        };
        self.needles.iter().find_map(|(name, needle, case)| found(needle, *case).then_some(*name))
    }

    #[track_caller]
    fn is_not_in(&self, what: &str, hay: &[u8]) {
        let found = self.found_in(hay);
        assert_eq!(found, None, "{what} has the secret {}: {}", self.value, String::from_utf8_lossy(hay));
    }

    /// Every file below a folder.
    fn is_not_below(&self, folder: &Path) -> usize {
        let mut files = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            self.is_not_in("a file's name", path.to_string_lossy().as_bytes());
            if kind.is_dir() {
                files += self.is_not_below(&path);
            } else if kind.is_file() {
                let found = self.found_in(&fs::read(&path).unwrap());
                assert_eq!(found, None, "{} has the secret {}", path.display(), self.value);
                files += 1;
            }
        }
        files
    }
}

/// The characters of base64 that depend on the value alone, when this many bytes modulo three stand before it.
fn base64_within(value: &[u8], before: usize) -> Vec<u8> {
    let mut all = vec![0; before];
    all.extend_from_slice(value);
    // The first characters are of other bytes too, and the last would be of those that follow.
    let first = (before * 8).div_ceil(6);
    let encoded = BASE64_STANDARD_NO_PAD.encode(&all[..all.len() / 3 * 3]);
    encoded.as_bytes()[first..].to_vec()
}

#[test]
fn a_canary_is_found_however_it_lies_about() {
    let canary = Canary::hatch();
    let value = &canary.value;
    let hex: String = value.bytes().map(|byte| format!("{byte:02X}")).collect();
    let form =
        reqwest::Url::parse_with_params("http://h/", [("q", value)]).unwrap().query().unwrap().to_owned();
    let percent = form.replace('+', "%20");
    let backwards: Vec<u8> = value.bytes().rev().collect();
    let shifted = |before: &str| BASE64_STANDARD.encode(format!("{before}{value} and more")).into_bytes();
    for (way, hay) in [
        ("raw", value.clone().into_bytes()),
        ("hex", hex.into_bytes()),
        ("percent", percent.into_bytes()),
        ("reversed", backwards),
        ("base64", shifted("")),
        ("base64", shifted("a")),
        ("base64", shifted("ab")),
        ("base64", shifted("abc")),
        ("its beginning", json!({ "value": value }).to_string().into_bytes()),
        ("its end", format!("{:?}", &value[20..]).into_bytes()),
    ] {
        let hay = [b"before", &hay[..], b"after"].concat();
        let found = canary.found_in(&hay);
        assert!(found.is_some(), "{way}: {}", String::from_utf8_lossy(&hay));
    }
    assert_eq!(canary.found_in(Canary::hatch().value.as_bytes()), None);
}

/// What is sent with the secret in it, and must be refused without telling it.
fn refusals(edge: &Edge, canary: &Canary) -> Vec<RequestBuilder> {
    let value = &canary.value;
    let secrets = |method: Method| edge.admin(method, "/system/secrets");
    let functions = |method: Method| edge.admin(method, "/system/functions");
    let whole = json!({ "name": "canary", "value": value });
    let cut = whole.to_string().trim_end_matches('}').to_owned();
    let with = |name: Value, namespace: &str, value: Value| json!({ "name": name, "namespace": namespace, "value": value });
    let rest = value.repeat((2 << 20) / value.len());
    vec![
        secrets(Method::POST).json(&whole),
        secrets(Method::POST).body(cut),
        secrets(Method::POST).body(format!("{whole}{value}")),
        secrets(Method::POST).body(value.clone()),
        secrets(Method::POST).json(&with(json!("other"), "", json!({ "of": value }))),
        secrets(Method::POST).json(&with(json!("other"), "", json!([value]))),
        secrets(Method::POST).json(&with(json!("other"), "nowhere", json!(value))),
        secrets(Method::POST).json(&with(json!("../other"), "", json!(value))),
        secrets(Method::POST).json(&with(json!({}), "", json!(value))),
        secrets(Method::POST).json(&with(json!("other"), "", json!(rest))),
        secrets(Method::POST).json(&json!({ "name": "other", "rawValue": value })),
        secrets(Method::PUT).json(&with(json!("nobody"), "", json!(value))),
        secrets(Method::DELETE).json(&with(json!("nobody"), "", json!(value))),
        secrets(Method::PATCH).json(&whole),
        functions(Method::POST)
            .json(&json!({ "service": "other", "image": "x", "secrets": [7], "value": value })),
        edge.request(Method::POST, "/system/secrets").json(&whole),
        edge.request(Method::POST, "/system/secrets").basic_auth("admin", Some(value)).json(&whole),
    ]
}

/// What administrators, scrapers and callers can read.
const TOLD: [&str; 7] = [
    "/system/secrets",
    "/system/functions",
    "/system/function/reader",
    "/system/function/failing",
    "/system/info",
    "/system/namespaces",
    "/system/logs?name=reader",
];

async fn is_nowhere(edge: &Edge, canary: &Canary) {
    assert!(canary.is_not_below(&edge.data_dir()) > 3, "there is something to look through");
    canary.is_not_in("the log", edge.process.log().as_bytes());
    canary.is_not_in("standard output", edge.process.stdout().as_bytes());
    let metrics = crate::edge::client().build().unwrap().get(format!("{}/metrics", edge.metrics));
    canary.is_not_in("/metrics", Reply::to(metrics).await.text().as_bytes());
    for path in TOLD {
        let answer = Reply::to(edge.admin(Method::GET, path)).await;
        assert_eq!(answer.status, 200, "{path}: {answer}");
        canary.is_not_in(path, answer.to_string().as_bytes());
    }
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_secret_is_told_by_functions_alone() {
    let canary = Canary::hatch();
    let plan = crate::edge::Plan::new().argument("--log").argument("trace");
    let mut edge = plan.start().await;
    let image = edge.upload(built("go.wasm")).await;
    let change = async |edge: &Edge, method: Method, value: Value| {
        let mut secret = json!({ "name": "canary" });
        secret.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        Reply::to(edge.admin(method, "/system/secrets").json(&secret)).await
    };
    let made = change(&edge, Method::POST, json!({ "value": "first" })).await;
    assert_eq!(made.status, 202, "{made}");
    for value in
        [json!({ "rawValue": BASE64_STANDARD.encode(&canary.value) }), json!({ "value": canary.value })]
    {
        let changed = change(&edge, Method::PUT, value).await;
        assert_eq!(changed.status, 202, "{changed}");
        canary.is_not_in("the answer to a change", changed.to_string().as_bytes());
    }
    let named = json!(["canary"]);
    let reader = Deployment::of("reader", &image).process("cat /var/openfaas/secrets/canary");
    edge.serve(reader.field("secrets", named.clone())).await;
    // It reads its secret, and fails at the next file.
    let failing = Deployment::of("failing", &image).process("cat /var/openfaas/secrets/canary /nowhere");
    edge.serve(failing.field("secrets", named)).await;

    let refused = refusals(&edge, &canary);
    for request in refused {
        let request = request.build().unwrap();
        let what = format!("{} {}", request.method(), request.url());
        let answer =
            Reply::to(RequestBuilder::from_parts(crate::edge::client().build().unwrap(), request)).await;
        assert!((400..500).contains(&answer.status), "{what}: {answer}");
        canary.is_not_in(&format!("the answer to {what}"), answer.to_string().as_bytes());
    }
    for _ in 0..2 {
        assert_eq!(edge.call("reader", "").await.ok(), canary.value, "the function prints it on purpose");
        let failed = edge.call("failing", "").await;
        assert_eq!(failed.status, 500, "{failed}");
        is_nowhere(&edge, &canary).await;
        edge.kill().await;
        assert!(canary.is_not_below(&edge.data_dir()) > 3);
        edge = edge.again().argument("--log").argument("trace").start().await;
    }
    let gone =
        Reply::to(edge.admin(Method::DELETE, "/system/secrets").json(&json!({ "name": "canary" }))).await;
    assert_eq!(gone.status, 202, "{gone}");
    let without = edge.call("reader", "").await;
    assert_eq!(without.status, 500, "{without}");
    canary.is_not_in("the answer without the secret", without.to_string().as_bytes());
    is_nowhere(&edge, &canary).await;
}
