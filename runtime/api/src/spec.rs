use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{CpuQuantity, Error, FunctionName, ImageReference, MemoryQuantity, Result};

/// The annotation by which a function asks its callers for the credentials of the gateway.
pub const BASIC_AUTH: &str = "faas.net/basic-auth";

/// The annotation that names the secret whose value callers of a function present as bearer token (RFC 6750).
pub const BEARER_SECRET: &str = "dev.fawn.bearer-secret";

/// The annotation by which plain calls of a function are kept and run later (`OpenFaaS`).
pub const ASYNC: &str = "faas.net/async";

/// The annotation that says where answers of asynchronous calls are posted that do not say so themselves (`OpenFaaS`).
pub const CALLBACK: &str = "faas.net/callback";

/// The annotation that names the secret with which answers are signed that are posted.
pub const CALLBACK_SECRET: &str = "dev.fawn.callback-secret";

/// What a user wants: the body of a deploy or an update (`OpenFaaS` FunctionDeployment).
///
/// Absent, `null` and empty are the same, and empty fields are left out on output, as `OpenFaaS` does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionSpec {
    /// The function's name.
    pub service: String,
    /// Where its code is.
    pub image: String,
    /// Its namespace; empty means the default one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The command line of a command module, given to it as `fprocess` too.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub env_process: String,
    /// Environment variables.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub env_vars: BTreeMap<String, String>,
    /// Placement constraints.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub constraints: Vec<String>,
    /// Names of secrets.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub secrets: Vec<String>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
    /// What the function may use at the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Resources>,
    /// What the function asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Resources>,
    /// Whether the root file system is read-only. It always is for Wasm.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_as_default")]
    pub read_only_root_filesystem: bool,
}

/// Amounts of memory and processor time, as Kubernetes quantities (`OpenFaaS` FunctionResources).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Memory, such as `128Mi`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub memory: String,
    /// Processor time, such as `100m`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub cpu: String,
}

impl FunctionSpec {
    /// The checked name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the name or the namespace is not valid.
    pub fn name(&self) -> Result<FunctionName> {
        if self.service.is_empty() {
            return Err(Error::invalid("invalid-name", "service is required: it is the function's name"));
        }
        FunctionName::new(&self.service, &self.namespace)
    }

    /// The checked image reference.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is missing or not a reference.
    pub fn image(&self) -> Result<ImageReference> {
        if self.image.is_empty() {
            return Err(Error::invalid(
                "invalid-image",
                "image is required: it says where the function's code is",
            ));
        }
        ImageReference::parse(&self.image)
    }

    /// Whether whoever calls the function must present something: its annotations say so.
    pub fn asks_callers(&self) -> bool {
        self.annotations.contains_key(BEARER_SECRET)
            || self.annotations.get(BASIC_AUTH).is_some_and(|on| on == "true")
    }

    /// Whether plain calls of the function are kept and run later: its annotations say so.
    pub fn runs_later(&self) -> bool {
        self.annotations.get(ASYNC).is_some_and(|on| on == "true")
    }

    /// How many replicas the function begins with, and is woken to: at least one (`OpenFaaS`).
    pub fn min_replicas(&self) -> u64 {
        let label = self.labels.get("com.openfaas.scale.min");
        label.and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
    }

    /// The memory limit, if one is given.
    ///
    /// # Errors
    /// [`Error::Invalid`] when any quantity of the spec does not parse.
    pub fn memory_limit(&self) -> Result<Option<MemoryQuantity>> {
        let mut limit = None;
        for (part, resources) in [("requests", &self.requests), ("limits", &self.limits)] {
            let Some(resources) = resources else { continue };
            limit = match resources.memory.as_str() {
                "" => None,
                text => Some(MemoryQuantity::parse(&format!("{part}.memory"), text)?),
            };
            if !resources.cpu.is_empty() {
                CpuQuantity::parse(&format!("{part}.cpu"), &resources.cpu)?;
            }
        }
        Ok(limit.filter(|_| self.limits.is_some()))
    }
}

/// `null` where `OpenFaaS` clients send it for an empty map, list or string.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_faas_cli_sends_and_writes_it_back() {
        let json = r#"{"service":"env","image":"ghcr.io/openfaas/alpine:latest","envProcess":"env","envVars":{"K":"V"},"labels":{"a":"b"},"annotations":{"topic":"t1"},"limits":{"memory":"20Mi"}}"#;
        let spec: FunctionSpec = serde_json::from_str(json).unwrap();
        assert_eq!(spec.memory_limit().unwrap(), Some(MemoryQuantity(20 << 20)));
        assert_eq!(serde_json::to_string(&spec).unwrap(), json);
    }

    #[test]
    fn null_is_empty() {
        let json = r#"{"service":"a","image":"b","labels":null,"annotations":null,"envVars":null,"secrets":null,"limits":null}"#;
        let spec: FunctionSpec = serde_json::from_str(json).unwrap();
        assert!(spec.labels.is_empty() && spec.limits.is_none());
    }

    #[test]
    fn a_bad_quantity_is_named_wherever_it_stands() {
        for (json, field) in [
            (r#"{"requests":{"cpu":"x"}}"#, "requests.cpu"),
            (r#"{"limits":{"memory":"1Mb"}}"#, "limits.memory"),
        ] {
            let spec: FunctionSpec = serde_json::from_str(json).unwrap();
            assert!(spec.memory_limit().unwrap_err().to_string().contains(field));
        }
        let spec: FunctionSpec = serde_json::from_str(r#"{"requests":{"memory":"1Mi"}}"#).unwrap();
        assert_eq!(spec.memory_limit().unwrap(), None);
    }
}
