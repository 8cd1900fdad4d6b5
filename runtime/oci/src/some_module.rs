use std::{io::Read, sync::Arc};

use runtime_api::{Error, Result};
use tar::EntryType;

use crate::{
    ArtifactStore,
    image_layers::{LayerEntry, Relation, is_file, relation, twice, unreadable, walk},
    incoming::Incoming,
    layout::unsupported,
    limits::Limits,
};

/// Modules of one image that are kept until it is known which one is meant; an image of more has none to run.
const MAX_CANDIDATES: usize = 64;
/// The name by which Istio, Envoy and their like find the module of an image (Wasm OCI image spec, "compat" variant).
const PLUGIN: &[u8] = b"plugin.wasm";

/// The modules of an image whose configuration does not name one as such. Layers are read from the bottom up, each
/// hiding what it replaces and removes of lower ones (OCI image-spec, "Applying Changesets").
pub(crate) struct Candidates {
    /// What the image runs, which may be a module without the ending; empty where it runs nothing.
    entrypoint: String,
    layer: usize,
    found: Vec<Candidate>,
}

struct Candidate {
    path: Vec<u8>,
    layer: usize,
    module: Incoming,
}

impl Candidates {
    pub(crate) fn new(entrypoint: String) -> Self {
        Self { entrypoint, layer: 0, found: Vec::new() }
    }

    /// Reads the next layer upwards, and answers how many of `budget_bytes` are left for others.
    pub(crate) fn read_layer(
        &mut self,
        layer: impl Read + 'static,
        budget_bytes: u64,
        store: &ArtifactStore,
    ) -> Result<u64> {
        self.layer += 1;
        walk(layer, budget_bytes, |path, entry, limits| self.read_entry(path, entry, limits, store))
    }

    fn read_entry(
        &mut self,
        path: &[u8],
        entry: &mut LayerEntry<'_>,
        limits: &Arc<Limits>,
        store: &ArtifactStore,
    ) -> Result<()> {
        let (kind, layer) = (entry.header().entry_type(), self.layer);
        if self.found.iter().any(|candidate| candidate.layer == layer && candidate.path == path) {
            return Err(twice(path));
        }
        self.found.retain(|candidate| match relation(path, &candidate.path) {
            Relation::Same => false,
            Relation::Above => kind == EntryType::Directory,
            // A whiteout never hides what its own layer brings.
            Relation::Removes => candidate.layer == layer,
            Relation::None => true,
        });
        let is_entrypoint = path == self.entrypoint.as_bytes();
        if !is_file(kind) || !(is_entrypoint || is_module_name(path)) {
            return Ok(());
        }
        if self.found.len() == MAX_CANDIDATES {
            let what = format!("an image of more than {MAX_CANDIDATES} .wasm files");
            return Err(unsupported(&what, "name one of them in ENTRYPOINT"));
        }
        let module = match Incoming::receive_one_of_many(store, entry, limits, unreadable) {
            // What it runs is a program, beside which there may be a module.
            Err(error) if !is_module_name(path) && matches!(error.code(), "not-wasm" | "precompiled") => {
                return Ok(());
            }
            received => received.map_err(|error| about(path, error))?,
        };
        self.found.push(Candidate { path: path.to_vec(), layer, module });
        Ok(())
    }

    /// The module that is meant: what the image runs, else its `plugin.wasm`, else the only one. Also answers whether it
    /// is what the image runs, whose arguments are thus its own.
    pub(crate) fn choose(self) -> Result<(Incoming, bool)> {
        let Self { entrypoint, mut found, .. } = self;
        let of = |wanted: &dyn Fn(&[u8]) -> bool| {
            let mut matching = found.iter().enumerate().filter(|(_, candidate)| wanted(&candidate.path));
            matching.next().filter(|_| matching.next().is_none()).map(|(at, _)| at)
        };
        let chosen = of(&|path| path == entrypoint.as_bytes())
            .or_else(|| of(&|path| file_name(path) == PLUGIN))
            .or_else(|| of(&|_| true));
        let Some(at) = chosen else { return Err(undecided(&found)) };
        let Candidate { path, module, .. } = found.swap_remove(at);
        Ok((module, path == entrypoint.as_bytes()))
    }
}

/// Whether a file is called like a module, and is no whiteout of one.
fn is_module_name(path: &[u8]) -> bool {
    path.ends_with(b".wasm") && !file_name(path).starts_with(b".wh.")
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

fn about(path: &[u8], error: Error) -> Error {
    match error {
        Error::Invalid { code, message } => {
            Error::invalid(code, format!("the image's /{}: {message}", String::from_utf8_lossy(path)))
        }
        other => other,
    }
}

fn undecided(found: &[Candidate]) -> Error {
    const NAME_IT: &str = "name the one to run, as in ENTRYPOINT [\"/function.wasm\"]";
    if found.is_empty() {
        return unsupported("an image without a .wasm file", "copy it in, and name it in ENTRYPOINT");
    }
    let names: Vec<_> =
        found.iter().map(|candidate| format!("/{}", String::from_utf8_lossy(&candidate.path))).collect();
    unsupported(&format!("an image of {} .wasm files ({})", names.len(), names.join(", ")), NAME_IT)
}
