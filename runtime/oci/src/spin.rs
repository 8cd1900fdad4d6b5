use std::collections::BTreeMap;

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use runtime_api::{Error, Result};
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    layout::unsupported,
    manifest::{digest_of, expect},
};

/// What is needed of a locked Spin application (Spin, "Locked Application").
#[derive(Debug, Deserialize)]
pub(crate) struct Application {
    #[serde(default)]
    components: Vec<Component>,
}

#[derive(Debug, Deserialize)]
struct Component {
    id: String,
    source: Source,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    files: Vec<IgnoredAny>,
}

/// Where a component's module is: in a layer of that digest or, where it is very small, here.
#[derive(Debug, Deserialize)]
struct Source {
    digest: Option<String>,
    inline: Option<String>,
}

/// The module of an application's one component, and its environment.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) module: SpinModule<'a>,
    pub(crate) env: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) enum SpinModule<'a> {
    Layer(&'a OciDescriptor),
    Inline(Vec<u8>),
}

impl Application {
    /// Finds the module of the application. A function is one component.
    pub(crate) fn module(self, manifest: &OciImageManifest) -> Result<Found<'_>> {
        let ids: Vec<_> = self.components.iter().map(|component| component.id.clone()).collect();
        let Ok([component]) = <[Component; 1]>::try_from(self.components) else {
            let what = format!("a Spin application of {} components ({})", ids.len(), ids.join(", "));
            let advice = "a function is one: push each component's .wasm file with `fawn push`, and deploy it under \
                          a name of its own";
            return Err(unsupported(&what, advice));
        };
        if !component.files.is_empty() {
            let what = format!("a Spin application whose component {} has files mounted", component.id);
            return Err(unsupported(&what, "functions have no files: build what it reads into the module"));
        }
        if component.env.iter().any(|(name, value)| is_unusable(name, value)) {
            let message = format!("the environment of component {} has no valid name or value", component.id);
            return Err(Error::invalid("invalid-image-config", message));
        }
        let module = component.source.find(&component.id, manifest)?;
        Ok(Found { module, env: component.env.into_iter().collect() })
    }
}

fn is_unusable(name: &str, value: &str) -> bool {
    name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
}

impl Source {
    fn find<'a>(&self, id: &str, manifest: &'a OciImageManifest) -> Result<SpinModule<'a>> {
        let wrong = |what: &str| {
            Error::invalid("invalid-manifest", format!("the Spin application's component {id} {what}"))
        };
        if let Some(inline) = &self.inline {
            let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
            let decoded = GeneralPurpose::new(&STANDARD, config).decode(inline);
            let module =
                decoded.map_err(|error| wrong(&format!("has content that is no base64: {error}")))?;
            if let Some(digest) = &self.digest {
                expect(digest.parse()?, digest_of(&module))?;
            }
            return Ok(SpinModule::Inline(module));
        }
        let digest =
            self.digest.as_ref().ok_or_else(|| wrong("has no content: push it with `spin registry push`"))?;
        let layer = manifest.layers.iter().find(|layer| layer.digest == *digest);
        layer.map(SpinModule::Layer).ok_or_else(|| wrong(&format!("is {digest}, which no layer is")))
    }
}
