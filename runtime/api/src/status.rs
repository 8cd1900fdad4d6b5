use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::FunctionSpec;

/// What is so: one function as the provider sees it (`OpenFaaS` FunctionStatus).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "Wire")]
pub struct FunctionStatus {
    /// The function's name. Written in place of the spec's `service`.
    pub name: String,
    /// What was asked for, with its namespace filled in.
    #[serde(flatten, serialize_with = "without_service")]
    pub spec: FunctionSpec,
    /// Calls completed, where they are counted.
    #[serde(skip_serializing_if = "is_zero_float")]
    pub invocation_count: f64,
    /// Replicas asked for.
    #[serde(skip_serializing_if = "is_zero")]
    pub replicas: u64,
    /// Replicas ready for calls.
    #[serde(skip_serializing_if = "is_zero")]
    pub available_replicas: u64,
    /// When the function was first deployed.
    pub created_at: Timestamp,
    /// What its instances use now, where that is known and asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<FunctionUsage>,
    /// How its newest deployment fares (ours; clients of `OpenFaaS` ignore it).
    pub deployment: Deployment,
}

/// A status as providers send it: without what is zero, and, where another than ours sends it, without a deployment.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    name: String,
    #[serde(flatten)]
    spec: FunctionSpec,
    #[serde(default)]
    invocation_count: f64,
    #[serde(default)]
    replicas: u64,
    #[serde(default)]
    available_replicas: u64,
    #[serde(default)]
    created_at: Timestamp,
    #[serde(default)]
    usage: Option<FunctionUsage>,
    #[serde(default)]
    deployment: Option<Deployment>,
}

impl From<Wire> for FunctionStatus {
    fn from(wire: Wire) -> Self {
        Self {
            spec: FunctionSpec { service: wire.name.clone(), ..wire.spec },
            name: wire.name,
            invocation_count: wire.invocation_count,
            replicas: wire.replicas,
            available_replicas: wire.available_replicas,
            created_at: wire.created_at,
            usage: wire.usage,
            deployment: wire.deployment.unwrap_or_else(|| Deployment::new(Phase::Ready)),
        }
    }
}

/// What all instances of a function use together (`OpenFaaS` FunctionUsage). What is not known is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionUsage {
    /// Processor time, in thousandths of a core. Our node does not measure it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// Memory, in bytes.
    pub total_memory_bytes: f64,
}

/// How a function's newest deployment fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// How far it came.
    pub phase: Phase,
    /// What is being done, or why it failed.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub reason: String,
    /// The digest of the module that serves, `sha256:…`; empty while there is none.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub digest: String,
    /// The image that it came from, by the digest that its tag meant then, `ghcr.io/me/hello@sha256:…`.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub image: String,
    /// What that module is, such as `wasi:http/incoming-handler@0.2 component`.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub kind: String,
}

impl Deployment {
    /// One of which no more is known.
    pub fn new(phase: Phase) -> Self {
        Self {
            phase,
            reason: String::new(),
            digest: String::new(),
            image: String::new(),
            kind: String::new(),
        }
    }
}

/// How far a deployment came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Being pulled, compiled or tried; an older revision may serve meanwhile.
    Pending,
    /// Serving, or asleep at zero replicas.
    Ready,
    /// Rejected; an older revision may serve.
    Failed,
}

fn without_service<S: serde::Serializer>(spec: &FunctionSpec, serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::{Error, SerializeMap};
    let serde_json::Value::Object(fields) = serde_json::to_value(spec).map_err(S::Error::custom)? else {
        return Err(S::Error::custom("a spec is an object"));
    };
    let mut map = serializer.serialize_map(None)?;
    for (key, value) in fields.iter().filter(|(key, _)| *key != "service") {
        map.serialize_entry(key, value)?;
    }
    map.end()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if takes a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if takes a reference")]
fn is_zero_float(value: &f64) -> bool {
    *value == 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_name_for_service_and_leaves_out_zeros() {
        let status = FunctionStatus {
            name: "env".into(),
            spec: FunctionSpec { service: "env".into(), image: "a/b".into(), ..Default::default() },
            invocation_count: 0.0,
            replicas: 0,
            available_replicas: 0,
            created_at: Timestamp::UNIX_EPOCH,
            usage: None,
            deployment: Deployment::new(Phase::Ready),
        };
        let json = r#"{"name":"env","image":"a/b","createdAt":"1970-01-01T00:00:00Z","deployment":{"phase":"ready"}}"#;
        assert_eq!(serde_json::to_string(&status).unwrap(), json);
        assert_eq!(serde_json::from_str::<FunctionStatus>(json).unwrap(), status);
    }

    #[test]
    fn reads_what_other_providers_send() {
        let json = r#"{"name":"env","namespace":"dev","image":"a/b","labels":null,"replicas":2,"createdAt":"0001-01-01T00:00:00Z","usage":{"cpu":1.5,"totalMemoryBytes":1048576}}"#;
        let status: FunctionStatus = serde_json::from_str(json).unwrap();
        assert_eq!((status.spec.service.as_str(), status.replicas, status.available_replicas), ("env", 2, 0));
        assert_eq!(status.deployment.phase, Phase::Ready);
        let usage = FunctionUsage { cpu: Some(1.5), total_memory_bytes: 1_048_576.0 };
        assert_eq!(status.usage, Some(usage));
    }
}
