//! The gateway is as its own description says, whatever it is asked.

use std::{env, time::Duration};

use runtime_testing::guests::HELLO;
use serde_json::Value;

use crate::{
    clients::{client, client_file},
    edge::{Edge, Plan},
    guests::text,
    process::run_within,
};

/// How many cases are made by chance, of all operations together; `FAWN_OPENAPI_CASES` beats it. Those at the edges of
/// what the description allows come on top.
const CASES: u64 = 300;
/// No case takes longer, and most take a few milliseconds.
const LONGEST_CASE: Duration = Duration::from_secs(30);

const CHECKS: &str = "only_documented_failures,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";

fn cases() -> u64 {
    env::var("FAWN_OPENAPI_CASES")
        .map_or(CASES, |cases| cases.parse().expect("FAWN_OPENAPI_CASES is a number"))
}

async fn description(edge: &Edge) -> Value {
    let answer = edge.get("/openapi.json").await;
    answer.ok();
    answer.json()
}

/// A path's description has more than methods.
fn is_method(key: &str) -> bool {
    ["get", "put", "post", "delete", "patch", "head", "options"].contains(&key)
}

fn operations(description: &Value) -> u64 {
    let paths = description["paths"].as_object().unwrap().values();
    paths.flat_map(|path| path.as_object().unwrap().keys()).filter(|key| is_method(key)).count() as u64
}

#[tokio::test]
#[ignore = "needs Schemathesis: run scripts/test"]
async fn the_gateway_is_as_it_describes_itself() {
    let edge = Plan::new().argument("--max-exec-timeout").argument("5s").start().await;
    let image = edge.upload(text(HELLO)).await;
    let (cases, operations) = (cases(), operations(&description(&edge).await));
    let (mut schemathesis, _) = client(&edge, "python-schemathesis");
    schemathesis.args(["-m", "schemathesis.cli", "run", &format!("{}/openapi.json", edge.gateway)]);
    schemathesis.arg("--auth").arg(format!("admin:{}", edge.password()));
    schemathesis.args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--continue-on-failure"]);
    schemathesis.args(["--max-examples", &cases.div_ceil(operations).to_string()]);
    schemathesis.args(["--request-timeout", &LONGEST_CASE.as_secs().to_string()]);
    schemathesis.args(["--suppress-health-check", "all", "--generation-database", "none", "--no-color"]);
    schemathesis.env("FAWN_TEST_IMAGE", image).env("SCHEMATHESIS_HOOKS", client_file("openapi_hooks.py"));
    schemathesis.env("PYTHONDONTWRITEBYTECODE", "1");
    let patience = Duration::from_secs(120 + cases / 5);
    let said = run_within(patience, &mut schemathesis, b"").await;
    eprintln!("{}", said.succeeds());
    assert_eq!(edge.get("/healthz").await.status, 200);
    assert!(!edge.process.log().contains("panicked"), "{}", edge.process.log());
}
