//! The functions of the folder `store`, as `store/build` packs them.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, Read},
    path::PathBuf,
};

use flate2::{Compression, Crc, write::ZlibEncoder};
use reqwest::Method;
use serde_json::Value;

use crate::edge::{Plan, Reply};

#[tokio::test]
#[ignore = "needs the packed store: run scripts/test"]
async fn the_store_serves_its_functions() {
    let folder = env::var_os("FAWN_STORE_PACK").expect("FAWN_STORE_PACK is not set: run scripts/test e2e");
    let folder = PathBuf::from(folder);
    let list: Value = serde_json::from_slice(&fs::read(folder.join("functions.json")).unwrap()).unwrap();
    let edge = Plan::new().in_one().argument("--store").argument(folder.to_str().unwrap()).start().await;
    let mut deployed = BTreeSet::new();
    for function in list["functions"].as_array().unwrap() {
        let name = function["name"].as_str().unwrap();
        for image in function["images"].as_object().unwrap().values() {
            let image = image.as_str().unwrap();
            assert!(image.starts_with("oci:images:"), "{name} comes over a network: {image}");
        }
        let said: Value =
            serde_json::from_str(&edge.fawn(&["store", "deploy", name, "--json"]).await.succeeds()).unwrap();
        assert_eq!(said["deployment"]["phase"], "ready", "{said}");
        let status = edge.status(name).await.json();
        assert_eq!(status["image"], said["image"], "what serves is the store's: {status}");
        deployed.insert(name);
    }

    let calls = calls();
    let called: BTreeSet<_> = calls.iter().map(|call| call.path.split(['/', '?']).next().unwrap()).collect();
    assert_eq!(called, deployed, "each function of the store is called here");
    for Call { method, path, header: (name, value), body, status, text } in calls {
        let request = edge.request(method, &format!("/function/{path}")).header(name, value).body(body);
        let answer = Reply::to(request).await;
        assert!(
            answer.status == status && answer.text().contains(text),
            "{path}: {status} {text:?}: {answer}"
        );
    }
    assert_eq!(edge.metric("fawn_pull_bytes_total").await, 0.0);
}

/// A call, and what its answer has to be.
struct Call {
    method: Method,
    /// The function's name, and what follows it.
    path: &'static str,
    header: (&'static str, String),
    body: Vec<u8>,
    status: u16,
    /// What the answer holds.
    text: &'static str,
}

impl Call {
    fn get(path: &'static str, text: &'static str) -> Self {
        Self { method: Method::GET, ..Self::post(path, "", text) }
    }

    fn post(path: &'static str, body: impl Into<Vec<u8>>, text: &'static str) -> Self {
        let header = ("accept", "*/*".to_owned());
        Self { method: Method::POST, path, header, body: body.into(), status: 200, text }
    }

    fn header(self, name: &'static str, value: impl Into<String>) -> Self {
        Self { header: (name, value.into()), ..self }
    }

    fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }
}

/// In this order. What is hostile is followed by a call of the same function that has to succeed.
fn calls() -> Vec<Call> {
    let brackets = "[".repeat(2000) + &"]".repeat(2000);
    let one_pixel = "IHDR\0\0\0\u{1}\0\0\0\u{1}";
    vec![
        Call::get("hello?name=Ada", "Hello, Ada!\n"),
        Call::get("hello?nmae=Ada", "`nmae`").status(400),
        Call::post("echo", "a,b", "a,b"),
        Call::get("echo/x?y=1", r#"{"method":"GET","path":"/x","query":"y=1","#),
        Call::post("env", "some text", "x-api-key: (7 bytes, not shown)\n").header("x-api-key", "hunter2"),
        // From FIPS 180-4's examples.
        Call::post("sha512sum", "abc", "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"),
        Call::post("qrcode", "x".repeat(2332), "longer than 2331 bytes").status(413),
        Call::post("qrcode", "https://example.com/", "PNG\r\n"),
        Call::get("qrcode?text=x&format=svg", "<svg "),
        Call::post("markdown", "> ".repeat(128 << 10), "<blockquote>"),
        Call::post("markdown", "# Hi\n\n<script>", "<h1>Hi</h1>\n&lt;script&gt;"),
        Call::post("image-resize?width=1", png(256 << 20), one_pixel),
        Call::post("image-resize?width=1", png(3000), one_pixel),
        Call::post("image-resize?width=1", "GIF89a", "neither PNG nor JPEG").status(415),
        // Deeper than its stack.
        Call::post("jq", "1", "the function trapped").header("x-jq-filter", brackets).status(500),
        Call::post("jq", r#"{"a": [1, 2]}"#, "3\n").header("x-jq-filter", ".a | add"),
        Call::post("wordcount", "two words\nand three more\n", r#"{"lines":2,"words":5,"bytes":25}"#),
    ]
}

/// A PNG of two pixels, with a colour profile of so many bytes, which are next to none in the file.
fn png(profile_bytes: u64) -> Vec<u8> {
    let packed = |bytes: &mut dyn Read| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        io::copy(bytes, &mut encoder).unwrap();
        encoder.finish().unwrap()
    };
    let profile = packed(&mut io::repeat(0).take(profile_bytes));
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, content) in [
        // Width, height, and RGB of 8 bits each.
        (b"IHDR", b"\0\0\0\x02\0\0\0\x01\x08\x02\0\0\0".to_vec()),
        (b"iCCP", [&b"a\0\0"[..], &profile].concat()),
        (b"IDAT", packed(&mut &[0u8; 7][..])),
        (b"IEND", Vec::new()),
    ] {
        let mut sum = Crc::new();
        sum.update(kind);
        sum.update(&content);
        png.extend_from_slice(&u32::try_from(content.len()).unwrap().to_be_bytes());
        png.extend_from_slice(kind);
        png.extend_from_slice(&content);
        png.extend_from_slice(&sum.sum().to_be_bytes());
    }
    png
}
