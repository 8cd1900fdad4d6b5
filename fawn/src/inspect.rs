use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use runtime_api::{ArtifactKind, ImageReference, ModuleCommand};
use runtime_oci::{ArtifactSource, PullPolicy};
use runtime_wasm::Inspection;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    module_file::{self, Module},
    progress::Spinner,
    registry::{RegistryArguments, TemporaryRegistry},
    usage::Mistakes,
};

/// Say what a module is, what its image starts it with, and whether and how it would run here
///
/// Reads a file, or pulls an image; compiles nothing, runs nothing and deploys nothing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fawn inspect hello.wasm
  fawn inspect ghcr.io/me/hello:1.2 --json")]
pub(crate) struct InspectArguments {
    /// A module (.wasm), its text (.wat), an image layout (oci:FOLDER:TAG, oci-archive:TAR:TAG), or an image
    /// reference
    #[arg(value_name = "FILE|REFERENCE")]
    source: String,
    #[command(flatten)]
    registry: RegistryArguments,
    /// Print one JSON object instead of words
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: InspectArguments) -> Result<()> {
    let client = arguments.registry.connect()?;
    let Module { bytes, command } = if module_file::is_file(&arguments.source) {
        module_file::load(Path::new(&arguments.source), client.max_module_bytes()).await?
    } else {
        pull(&arguments.source, &client).await?
    };
    client.check_size(&bytes)?;
    let found =
        runtime_wasm::inspect(&bytes).with_context(|| format!("cannot inspect {}", arguments.source))?;
    let digest = runtime_api::Digest(Sha256::digest(&bytes).into());
    let text = if arguments.json {
        as_json(&found, &command, bytes.len(), digest).to_string()
    } else {
        in_words(&found, &command, bytes.len(), digest)
    };
    writeln!(io::stdout(), "{text}")?;
    // For scripts; the reason is in the text.
    found.world().map(drop).map_err(|_| anyhow!("{} does not run here", arguments.source))
}

async fn pull(reference: &str, client: &TemporaryRegistry) -> Result<Module> {
    let image = ImageReference::parse(reference).map_err(|error| Mistakes::from(error.to_string()))?;
    let spinner = Spinner::start(format!("pulling {image}"));
    let show = |progress: runtime_oci::Progress| {
        spinner.say(format!(
            "pulling {image}: {} of {} KiB",
            progress.bytes_done >> 10,
            progress.bytes_total >> 10
        ));
    };
    let artifact = client.registry.fetch(&image, PullPolicy::Always, &show).await?.artifact;
    let bytes = fs::read(&artifact.path).context("the pulled module cannot be read")?;
    Ok(Module { bytes, command: ModuleCommand { args: artifact.args, env: artifact.env } })
}

fn in_words(
    found: &Inspection,
    command: &ModuleCommand,
    size_bytes: usize,
    digest: runtime_api::Digest,
) -> String {
    let kind = match found.kind {
        ArtifactKind::Module => "core module",
        ArtifactKind::Component => "component",
    };
    let verdict = match found.world() {
        Ok(world) => format!("runs      as a {}", world.describe()),
        Err(error) => format!("does not run here: {error}"),
    };
    format!(
        "kind      {kind}\nsize      {size_bytes} bytes\ndigest    {digest}\n\
         args      {}\nenv       {}\nimports   {}\nexports   {}\n{verdict}",
        list(&command.args),
        list(&variables(command)),
        list(&found.imports),
        list(&found.exports)
    )
}

/// One a line. Whoever made the module chose them, and a terminal obeys control characters.
fn list(texts: &[String]) -> String {
    if texts.is_empty() {
        return "nothing".into();
    }
    let printable = |text: &String| -> String {
        let escaped =
            |char: char| if char.is_control() { char.escape_default().collect() } else { char.to_string() };
        text.chars().map(escaped).collect()
    };
    texts.iter().map(printable).collect::<Vec<_>>().join("\n          ")
}

/// As an image's configuration writes them (OCI image specification, `config.Env`).
fn variables(command: &ModuleCommand) -> Vec<String> {
    command.env.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn as_json(
    found: &Inspection,
    command: &ModuleCommand,
    size_bytes: usize,
    digest: runtime_api::Digest,
) -> Value {
    let world = found.world();
    json!({
        "kind": found.kind,
        "sizeBytes": size_bytes,
        "digest": digest,
        "args": command.args,
        "env": variables(command),
        "imports": found.imports,
        "exports": found.exports,
        "runs": world.is_ok(),
        "world": world.as_ref().ok().map(|world| world.describe()),
        "reason": world.as_ref().err().map(ToString::to_string),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspect(wat: &str) -> Inspection {
        runtime_wasm::inspect(&wat::parse_str(wat).unwrap()).unwrap()
    }

    #[test]
    fn says_how_a_module_runs_or_why_it_does_not() {
        let digest = runtime_api::Digest([0xab; 32]);
        let good = inspect(r#"(module (func (export "_start")))"#);
        let none = ModuleCommand::default();
        let words = in_words(&good, &none, 42, digest);
        assert!(words.contains("runs      as a WASI preview 1 command module"), "{words}");
        assert!(
            words.contains("42 bytes") && words.contains("sha256:abab") && words.contains("_start"),
            "{words}"
        );
        assert_eq!(as_json(&good, &none, 42, digest)["runs"], true);

        let bad = inspect(r#"(module (import "env" "abort" (func)) (func (export "_start")))"#);
        let words = in_words(&bad, &none, 42, digest);
        assert!(words.contains("does not run here") && words.contains("env/abort"), "{words}");
        assert!(as_json(&bad, &none, 42, digest)["reason"].as_str().unwrap().contains("env/abort"));
    }
    #[test]
    fn says_what_an_image_starts_it_with() {
        let command = ModuleCommand {
            args: vec!["--fast".into(), "two words".into(), "a\u{1b}[2Jb\nkind".into()],
            env: vec![("A".into(), "b=c".into())],
        };
        let (found, digest) = (inspect(r#"(module (func (export "_start")))"#), runtime_api::Digest([0; 32]));
        let words = in_words(&found, &command, 42, digest);
        let shown = "args      --fast\n          two words\n          a\\u{1b}[2Jb\\nkind\nenv       A=b=c\n";
        assert!(words.contains(shown), "{words}");
        let json = as_json(&found, &command, 42, digest);
        assert_eq!((&json["args"], &json["env"]), (&json!(command.args), &json!(["A=b=c"])));

        let words = in_words(&found, &ModuleCommand::default(), 42, digest);
        assert!(words.contains("args      nothing\nenv       nothing\n"), "{words}");
    }
}
