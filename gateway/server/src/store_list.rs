//! The form of a function store (`OpenFaaS` functions.json).

use std::collections::{BTreeMap, BTreeSet};

use runtime_api::{Error, FunctionName, ImageReference, Result};
use serde::{Deserialize, Deserializer, Serialize};

/// Which of a function's images is taken, if there is one for it. A module suits every machine, so that any will do, and this
/// one is what lists have that know of no others.
const PREFERRED_PLATFORM: &str = "x86_64";

/// Functions that can be deployed from a store. Unknown fields are ignored.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct StoreList {
    /// The list's version.
    #[serde(default, deserialize_with = "null_as_default")]
    pub version: String,
    /// What there is.
    pub functions: Vec<StoreFunction>,
}

/// A function of a store. Absent and `null` are empty.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StoreFunction {
    /// What people call it.
    #[serde(deserialize_with = "null_as_default")]
    pub title: String,
    /// What it is deployed as, and found by.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// Who made it.
    #[serde(deserialize_with = "null_as_default")]
    pub author: String,
    /// What it does.
    #[serde(deserialize_with = "null_as_default")]
    pub description: String,
    /// The address of a picture.
    #[serde(deserialize_with = "null_as_default")]
    pub icon: String,
    /// Its command line.
    #[serde(deserialize_with = "null_as_default")]
    pub fprocess: String,
    /// Where its source is.
    #[serde(rename = "repo_url", deserialize_with = "null_as_default")]
    pub repo_url: String,
    /// Whether its root file system is to be read-only.
    #[serde(deserialize_with = "null_as_default")]
    pub read_only_root_filesystem: bool,
    /// Environment variables.
    #[serde(deserialize_with = "null_as_default")]
    pub environment: BTreeMap<String, String>,
    /// Labels.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
    /// Images by platform, such as `x86_64` and `arm64`.
    #[serde(deserialize_with = "null_as_default")]
    pub images: BTreeMap<String, String>,
}

impl StoreList {
    /// The longest list that is taken, in bytes: a thousand functions with all that is said of them.
    pub const MAX_BYTES: usize = 1 << 20;

    /// Reads a list.
    ///
    /// # Errors
    /// `Invalid` when it is longer than [`Self::MAX_BYTES`] or has another form.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > Self::MAX_BYTES {
            let message = format!("the list has more than {} bytes, the limit", Self::MAX_BYTES);
            return Err(Error::invalid("too-large", message));
        }
        serde_json::from_slice(bytes).map_err(|error| {
            let message = format!("the list is not as expected, {{\"functions\": […]}}: {error}");
            Error::invalid("invalid-store", message)
        })
    }

    /// Checks that each function can be found and deployed, as whoever serves the list has to.
    ///
    /// # Errors
    /// `Invalid` that names the function and what is wrong with it.
    pub fn check(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for function in &self.functions {
            let name = &function.name;
            let wrong = |why: String| Error::invalid("invalid-store", format!("function {name:?}: {why}"));
            FunctionName::new(name, "").map_err(|error| wrong(error.to_string()))?;
            if !seen.insert(name) {
                return Err(wrong("it is there twice".into()));
            }
            if function.image().is_none() {
                return Err(wrong("it has no image: give one for x86_64, arm64 and armhf each".into()));
            }
            for image in function.images.values() {
                ImageReference::parse(image).map_err(|error| wrong(error.to_string()))?;
            }
        }
        Ok(())
    }
}

impl StoreFunction {
    /// The image to deploy: that for `x86_64`, else any, since a module suits every machine.
    pub fn image(&self) -> Option<&str> {
        let preferred = self.images.iter().find(|(key, _)| key.eq_ignore_ascii_case(PREFERRED_PLATFORM));
        preferred.or_else(|| self.images.iter().next()).map(|(_, image)| image.as_str())
    }
}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_of_openfaas_is_read() {
        let list = json!({
            "version": "0.2.0",
            "functions": [{
                "title": "Hello", "name": "hello", "author": "me", "description": "Says hello", "icon": "https://i",
                "fprocess": "hello --loud", "repo_url": "https://r", "readOnlyRootFilesystem": true,
                "environment": {"A": "b"}, "labels": null, "annotations": {"c": "d"}, "network": "func_functions",
                "images": {"x86_64": "ghcr.io/me/hello:1", "arm64": "ghcr.io/me/hello:1-arm64"},
            }],
        });
        let list = StoreList::parse(list.to_string().as_bytes()).unwrap();
        list.check().unwrap();
        let function = &list.functions[0];
        assert_eq!((&*function.repo_url, function.read_only_root_filesystem), ("https://r", true));
        assert_eq!((&*function.fprocess, &*function.environment["A"]), ("hello --loud", "b"));
        assert_eq!(function.image(), Some("ghcr.io/me/hello:1"));
        let written = serde_json::to_value(function).unwrap();
        assert_eq!(
            (&written["repo_url"], &written["readOnlyRootFilesystem"]),
            (&json!("https://r"), &json!(true))
        );
    }

    #[test]
    fn any_image_will_do_where_there_is_none_for_the_usual_platform() {
        let image = |images: &[(&str, &str)]| {
            let images = images.iter().map(|(key, image)| ((*key).to_owned(), (*image).to_owned())).collect();
            StoreFunction { images, ..StoreFunction::default() }.image().map(str::to_owned)
        };
        assert_eq!(image(&[("armhf", "a"), ("X86_64", "b")]).as_deref(), Some("b"));
        assert_eq!(image(&[("armhf", "a")]).as_deref(), Some("a"));
        assert_eq!(image(&[]), None);
    }

    #[test]
    fn what_is_no_list_is_refused_with_a_reason() {
        let long = format!("{{\"version\":\"{}\"}}", "x".repeat(StoreList::MAX_BYTES));
        for (bad, expected) in [
            ("", "not as expected"),
            ("[]", "not as expected"),
            ("{}", "missing field `functions`"),
            ("{\"functions\": {}}", "line 1"),
            ("{\"functions\": [{\"images\": [1]}]}", "not as expected"),
            (&*"[".repeat(100_000), "not as expected"),
            (&*long, "limit"),
        ] {
            let error = StoreList::parse(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{bad:.60}: {error}");
        }
        let function =
            |name: &str, image: &str| format!(r#"{{"name":"{name}","images":{{"x86_64":"{image}"}}}}"#);
        for (functions, expected) in [
            (vec![function("Upper", "a/b")], "\"Upper\""),
            (vec![function("a", "a/b"), function("a", "a/b")], "there twice"),
            (vec![function("a", "UPPER")], "not a reference"),
            (vec![r#"{"name":"a"}"#.into()], "no image"),
        ] {
            let text = format!(r#"{{"functions":[{}]}}"#, functions.join(","));
            let error = StoreList::parse(text.as_bytes()).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
