use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Result, name::check_label};

/// A space of names for functions, secrets and logs (`OpenFaaS` FunctionNamespace).
///
/// Absent, `null` and empty are the same, and empty fields are left out on output, as `OpenFaaS` does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::spec::null_as_default")]
    pub annotations: BTreeMap<String, String>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::spec::null_as_default")]
    pub labels: BTreeMap<String, String>,
}

impl Namespace {
    /// Whether the name can be one.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when it is not a DNS label (RFC 1035 §2.3.4).
    pub fn check(&self) -> Result<()> {
        check_label("namespace", &self.name)
    }
}
