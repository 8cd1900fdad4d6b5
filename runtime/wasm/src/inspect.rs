use runtime_api::{ArtifactKind, Error, Result};
use serde::{Deserialize, Serialize};
use wasmparser::{ComponentTypeRef, Parser, Payload};

/// Interfaces that a component may import, at any 0.2 version.
const OFFERED: [&str; 7] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:http/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

/// The one module that a core module may import from (WASI preview 1).
const PREVIEW1: &str = "wasi_snapshot_preview1";

/// Most names that a message lists.
const MOST_NAMED: usize = 8;

/// How a module wants to be called; what it exports decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// A component that exports `wasi:http/incoming-handler@0.2`.
    Http,
    /// A component that exports `wasi:cli/run@0.2`.
    Command,
    /// A core module that exports `_start` and imports WASI preview 1.
    CoreCommand,
}

impl World {
    /// What it is, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Http => "wasi:http/incoming-handler@0.2 component",
            Self::Command => "wasi:cli/run@0.2 component",
            Self::CoreCommand => "WASI preview 1 command module",
        }
    }
}

/// What a module says of itself, read without compiling it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Core module or component.
    pub kind: ArtifactKind,
    /// What it imports: interfaces of a component, `module/name` of a core module.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
}

/// Reads a module's imports and exports.
///
/// # Errors
/// [`Error::Invalid`] that says what the bytes are instead, or where they are damaged.
pub fn inspect(bytes: &[u8]) -> Result<Inspection> {
    let kind = ArtifactKind::sniff(bytes).ok_or_else(|| not_wasm(bytes))?;
    let mut found = Inspection { kind, imports: Vec::new(), exports: Vec::new() };
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(damaged)?;
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            other => collect(&mut found, other).map_err(damaged)?,
        }
    }
    Ok(found)
}

fn collect(found: &mut Inspection, payload: Payload<'_>) -> Result<(), wasmparser::BinaryReaderError> {
    match payload {
        Payload::ImportSection(section) => {
            for import in section.into_imports() {
                let import = import?;
                found.imports.push(format!("{}/{}", import.module, import.name));
            }
        }
        Payload::ExportSection(section) => {
            for export in section {
                found.exports.push(export?.name.to_owned());
            }
        }
        Payload::ComponentImportSection(section) => {
            for import in section {
                let import = import?;
                // A type is resolved through the interfaces that use it.
                if !matches!(import.ty, ComponentTypeRef::Type(_)) {
                    found.imports.push(import.name.name.to_owned());
                }
            }
        }
        Payload::ComponentExportSection(section) => {
            for export in section {
                found.exports.push(export?.name.name.to_owned());
            }
        }
        _ => {}
    }
    Ok(())
}

impl Inspection {
    /// How this node would call it.
    ///
    /// # Errors
    /// [`Error::Invalid`] that says why it cannot, and what to do.
    pub fn world(&self) -> Result<World> {
        let world = match self.kind {
            ArtifactKind::Module => self.core_world()?,
            ArtifactKind::Component => self.component_world()?,
        };
        let unknown: Vec<&str> =
            self.imports.iter().map(String::as_str).filter(|name| !self.offers(name)).collect();
        if unknown.is_empty() {
            return Ok(world);
        }
        let offered = match self.kind {
            ArtifactKind::Module => PREVIEW1.to_owned(),
            ArtifactKind::Component => format!("{}* at version 0.2", OFFERED.join("*, ")),
        };
        Err(Error::invalid(
            "unknown-import",
            format!("it imports what this node does not offer: {}; offered is {offered}", some(&unknown)),
        ))
    }

    fn core_world(&self) -> Result<World> {
        if self.exports.iter().any(|name| name == "_start") {
            return Ok(World::CoreCommand);
        }
        let what = if self.exports.iter().any(|name| name.starts_with("proxy_abi_version")) {
            "it is a proxy-wasm filter, not a function"
        } else if self.exports.iter().any(|name| name == "_initialize") {
            "it is a reactor (a library): it exports _initialize but no _start"
        } else {
            "it is a core module without a _start export"
        };
        Err(Error::invalid(
            "no-entry-point",
            format!("{what}; build it as a command, as GOOS=wasip1 or --target wasm32-wasip1 do"),
        ))
    }

    fn component_world(&self) -> Result<World> {
        let exports = |prefix: &str| self.exports.iter().any(|name| name.starts_with(prefix));
        if exports("wasi:http/incoming-handler@0.2.") {
            return Ok(World::Http);
        }
        if exports("wasi:cli/run@0.2.") {
            return Ok(World::Command);
        }
        let exported: Vec<&str> = self.exports.iter().map(String::as_str).collect();
        let newer = if exports("wasi:http/handler@0.3") || exports("wasi:cli/run@0.3") {
            " (WASI 0.3 is not supported by this version)"
        } else {
            ""
        };
        Err(Error::invalid(
            "no-entry-point",
            format!(
                "the component exports {}{newer}; a function exports wasi:http/incoming-handler@0.2 or wasi:cli/run@0.2",
                if exported.is_empty() { "nothing".to_owned() } else { some(&exported) }
            ),
        ))
    }

    fn offers(&self, import: &str) -> bool {
        match self.kind {
            ArtifactKind::Module => import.split_once('/').is_some_and(|(module, _)| module == PREVIEW1),
            ArtifactKind::Component => {
                let version_fits =
                    import.split_once('@').is_some_and(|(_, version)| version.starts_with("0.2."));
                version_fits && OFFERED.iter().any(|prefix| import.starts_with(prefix))
            }
        }
    }
}

fn some(names: &[&str]) -> String {
    let listed = names.get(..MOST_NAMED.min(names.len())).unwrap_or_default().join(", ");
    match names.len().saturating_sub(MOST_NAMED) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

pub(crate) fn damaged(error: wasmparser::BinaryReaderError) -> Error {
    Error::invalid(
        "malformed-module",
        format!(
            "the module is damaged or truncated: {} at byte {}; build or push it again",
            error.message(),
            error.offset()
        ),
    )
}

fn not_wasm(bytes: &[u8]) -> Error {
    let what = match bytes {
        [] => "the file is empty",
        [0x7f, b'E', b'L', b'F', ..] if contains(bytes, b".wasmtime.engine") => {
            "it is a precompiled file (.cwasm), which may hold any machine code and is never loaded; give the .wasm it was made from"
        }
        [0x7f, b'E', b'L', b'F', ..] => "it is a native program (ELF), not WebAssembly",
        [0x1f, 0x8b, ..] => "it is compressed with gzip; give the module itself",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is compressed with zstd; give the module itself",
        [0, b'a', b's', b'm', ..] => {
            "it is WebAssembly of an unknown version or cut off within its first eight bytes"
        }
        _ => "it does not begin with the WebAssembly magic number \\0asm",
    };
    Error::invalid("not-wasm", format!("not a WebAssembly module: {what}"))
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(wat: &str) -> Result<World> {
        inspect(&wat::parse_str(wat).unwrap())?.world()
    }

    #[test]
    fn exports_decide() {
        assert_eq!(world(r#"(module (func (export "_start")))"#).unwrap(), World::CoreCommand);
        assert_eq!(
            world(r#"(component (component $c) (instance $i (instantiate $c)) (export "wasi:http/incoming-handler@0.2.7" (instance $i)))"#).unwrap(),
            World::Http
        );
        assert_eq!(
            world(r#"(component (component $c) (instance $i (instantiate $c)) (export "wasi:cli/run@0.2.0" (instance $i)))"#).unwrap(),
            World::Command
        );
    }

    #[test]
    fn a_module_that_cannot_run_is_told_why() {
        for (wat, code, text) in [
            ("(module)", "no-entry-point", "without a _start"),
            (r#"(module (func (export "_initialize")))"#, "no-entry-point", "reactor"),
            (r#"(module (func (export "proxy_abi_version_0_2_1")))"#, "no-entry-point", "proxy-wasm"),
            (
                r#"(module (import "env" "abort" (func)) (func (export "_start")))"#,
                "unknown-import",
                "env/abort",
            ),
            ("(component)", "no-entry-point", "exports nothing"),
            (
                r#"(component (import "acme:kv/store@1.0.0" (instance)) (component $c) (instance $i (instantiate $c)) (export "wasi:cli/run@0.2.0" (instance $i)))"#,
                "unknown-import",
                "acme:kv/store@1.0.0",
            ),
        ] {
            let error = world(wat).unwrap_err();
            assert_eq!(error.code(), code, "{wat}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn bytes_that_are_not_a_module_are_named() {
        let whole =
            wat::parse_str(r#"(module (memory 1) (func (export "_start")) (data (i32.const 0) "abc"))"#)
                .unwrap();
        for (bytes, text) in [
            (&b""[..], "empty"),
            (b"hello world", "magic number"),
            (b"\x7fELF...........wasmtime.engine", "precompiled"),
            (b"\x7fELF", "native program"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"\0asm\x02\0\0\0", "unknown version"),
            (&whole[..whole.len() - 3], "truncated"),
        ] {
            let error = inspect(bytes).and_then(|found| found.world().map(|_| found)).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
