use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use runtime_api::{Deployment, FunctionName, FunctionSpec, ImageReference, Resources, parse_duration};
use runtime_oci::DEFAULT_MAX_MODULE_BYTES;
use serde_json::{Value, json};

use crate::{
    build::BuildSettings,
    client::ClientArguments,
    config::quantity,
    deploy_stack, module_file,
    progress::Spinner,
    roll_out::roll_out,
    stack::{Additions, StackArguments},
    usage::Mistakes,
};

/// Deploy a module, an image or the functions of a stack file to a gateway
///
/// A file is uploaded to the gateway and deployed from there, without any registry. A function of the same name is
/// replaced; calls in flight finish on the old code, and a rejected update leaves it serving.
///
/// Of a stack file, functions whose template has a build.sh are built here and uploaded, others are deployed by their
/// image. Without a file or a reference, the stack file of this folder is deployed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fawn deploy hello.wasm
  fawn deploy oci-archive:saved.tar --name hello        what `docker save` wrote
  fawn deploy ghcr.io/me/hello:1.2 --name hello --memory 64Mi --env GREETING=hi
  fawn deploy api.wasm --secret token --secret tls-key  after `faas-cli secret create token` and so on
  fawn deploy api.wasm --gateway https://faas.example.com --annotation dev.fawn.egress=api.example.com
  fawn deploy -f stack.yml                              build and deploy every function
  fawn deploy -f stack.yml --filter 'api-*' --env LOG=debug --json

Credentials are those of `faas-cli login`; for a gateway on this machine, those in its data directory.")]
pub(crate) struct DeployArguments {
    /// A module (.wasm), its text (.wat), an image layout (oci:FOLDER:TAG, oci-archive:TAR:TAG), or an image
    /// reference
    #[arg(
        value_name = "FILE|REFERENCE",
        conflicts_with_all = ["parallel", "build_timeout", "envsubst"]
    )]
    source: Option<String>,
    #[command(flatten)]
    pub(crate) stack: StackArguments,
    #[command(flatten)]
    pub(crate) build: BuildSettings,
    /// Of a stack file, deploy what was built last
    #[arg(long, conflicts_with = "source")]
    pub(crate) no_build: bool,
    /// The function's name [default: as the file or repository is named]
    #[arg(long, requires = "source")]
    name: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArguments,
    #[command(flatten)]
    pub(crate) added: AddedArguments,
    /// The most memory that one instance may use, such as 64Mi
    #[arg(long, value_name = "QUANTITY", requires = "source")]
    memory: Option<String>,
    /// The command line of a command module
    #[arg(long, value_name = "COMMAND", requires = "source")]
    fprocess: Option<String>,
    /// The largest module that is taken out of an image layout [default: 64Mi]
    #[arg(long, env = "FAWN_MAX_MODULE_SIZE", value_name = "QUANTITY")]
    max_module_size: Option<String>,
    /// How long to wait until the function is ready
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = time)]
    pub(crate) timeout: Duration,
    /// Print one JSON object instead of words; of a stack file, a list of them
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the command line adds to whatever is deployed.
#[derive(Debug, Args)]
pub(crate) struct AddedArguments {
    /// The function's namespace
    #[arg(long, short, default_value = "")]
    namespace: String,
    /// An environment variable of the function; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// A label, such as com.openfaas.scale.min=1; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// An annotation, such as dev.fawn.egress=none; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    annotation: Vec<(String, String)>,
    /// A secret of the function's namespace that it may read below /var/openfaas/secrets; may be repeated
    #[arg(long, value_name = "NAME")]
    secret: Vec<String>,
}

pub(crate) async fn run(arguments: DeployArguments) -> Result<()> {
    match &arguments.source {
        None if !arguments.stack.is_given() && arguments.stack.file().is_err() => {
            let mistake =
                "give a module, an image reference, or a stack file with -f: there is no stack.yaml here";
            Err(Mistakes::from(mistake.to_owned()).into())
        }
        None => deploy_stack::run(&arguments).await,
        Some(_) if arguments.stack.is_given() => {
            Err(Mistakes::from("give either one file or reference, or a stack file".to_owned()).into())
        }
        Some(source) => deploy_one(&arguments, source).await,
    }
}

async fn deploy_one(arguments: &DeployArguments, source: &str) -> Result<()> {
    let mut spec = arguments.spec(source)?;
    let function = spec.name().map_err(|error| Mistakes::from(error.to_string()))?;
    let gateway = arguments.client.gateway(None)?;
    let spinner = Spinner::start(format!("deploying {}", function.name()));
    if module_file::is_file(source) {
        let module = module_file::load(Path::new(source), arguments.max_module_bytes()?).await?;
        spinner.say(format!("uploading {} KiB", module.bytes.len().div_ceil(1024)));
        spec.image = gateway.store_artifact(module).await?.image;
    }
    let deployment = roll_out(&gateway, &spec, arguments.timeout, &|stage| spinner.say(stage)).await?;
    drop(spinner);
    report(arguments.json, &function, &spec, deployment, &gateway.function_url(&function))
}

impl AddedArguments {
    /// The same, by name.
    pub(crate) fn additions(&self) -> Additions {
        Additions {
            namespace: self.namespace.clone(),
            env: map(&self.env),
            labels: map(&self.label),
            annotations: map(&self.annotation),
            secrets: self.secret.clone(),
        }
    }
}

impl DeployArguments {
    fn spec(&self, source: &str) -> Result<FunctionSpec> {
        let is_file = module_file::is_file(source);
        let service = match &self.name {
            Some(name) => name.clone(),
            None if is_file => module_file::function_name(Path::new(source))?.name().to_owned(),
            None => repository_name(source)?,
        };
        let Additions { namespace, env, labels, annotations, secrets } = self.added.additions();
        let spec = FunctionSpec {
            service,
            image: source.to_owned(),
            namespace,
            env_process: self.fprocess.clone().unwrap_or_default(),
            env_vars: env,
            labels,
            annotations,
            secrets,
            limits: self
                .memory
                .as_ref()
                .map(|memory| Resources { memory: memory.clone(), ..Resources::default() }),
            ..FunctionSpec::default()
        };
        spec.memory_limit().map_err(|error| Mistakes::from(error.to_string()))?;
        Ok(spec)
    }

    fn max_module_bytes(&self) -> Result<u64, Mistakes> {
        let mut mistakes = Vec::new();
        let size = quantity("max-module-size", self.max_module_size.as_deref(), &mut mistakes);
        Mistakes::check(mistakes)?;
        Ok(size.unwrap_or(DEFAULT_MAX_MODULE_BYTES))
    }
}

fn map(pairs: &[(String, String)]) -> BTreeMap<String, String> {
    pairs.iter().cloned().collect()
}

fn repository_name(reference: &str) -> Result<String> {
    let image = ImageReference::parse(reference).map_err(|error| Mistakes::from(error.to_string()))?;
    let last = image.repository.rsplit('/').next().unwrap_or_default();
    let name = module_file::name_from(last);
    Ok(name
        .with_context(|| format!("no function can be named after {reference}: give --name"))?
        .name()
        .to_owned())
}

/// Says that a function serves, and how to call it.
pub(crate) fn report(
    as_json_object: bool,
    function: &FunctionName,
    spec: &FunctionSpec,
    deployment: Option<Deployment>,
    url: &str,
) -> Result<()> {
    let mut stdout = io::stdout();
    if as_json_object {
        return Ok(writeln!(stdout, "{}", as_json(function, spec, deployment.as_ref(), url))?);
    }
    let kind = deployment.map(|deployment| deployment.kind).filter(|kind| !kind.is_empty());
    writeln!(
        stdout,
        "{} is ready{}",
        function.name(),
        kind.map(|kind| format!(" ({kind})")).unwrap_or_default()
    )?;
    Ok(writeln!(stdout, "curl {url}")?)
}

/// What scripts are told of a function that was deployed.
pub(crate) fn as_json(
    function: &FunctionName,
    spec: &FunctionSpec,
    deployment: Option<&Deployment>,
    url: &str,
) -> Value {
    json!({
        "name": function.name(), "namespace": function.namespace(), "image": spec.image, "url": url,
        "deployment": deployment,
    })
}

/// Reads `NAME=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it like NAME=VALUE".into()),
    }
}

/// Reads a duration.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write it like 30s or 10m".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: DeployArguments,
    }

    fn spec(line: &[&str]) -> Result<FunctionSpec> {
        let arguments = Line::try_parse_from(["deploy"].iter().chain(line))?.arguments;
        arguments.spec(arguments.source.as_deref().unwrap())
    }

    #[test]
    fn flags_become_a_spec() {
        let line = [
            "ghcr.io/me/hello-world:1",
            "--env",
            "A=1=2",
            "-e",
            "B=",
            "--label",
            "l=1",
            "--annotation",
            "a=b",
            "--memory",
            "64Mi",
            "--secret",
            "token",
            "--secret=tls-key",
        ];
        let spec = spec(&line).unwrap();
        assert_eq!(spec.service, "hello-world");
        assert_eq!(spec.image, "ghcr.io/me/hello-world:1");
        assert_eq!(spec.env_vars["A"], "1=2");
        assert_eq!(spec.env_vars["B"], "");
        assert_eq!((&*spec.labels["l"], &*spec.annotations["a"]), ("1", "b"));
        assert_eq!(spec.secrets, ["token", "tls-key"]);
        assert_eq!(spec.limits.unwrap().memory, "64Mi");
    }

    #[test]
    fn a_stack_has_settings_of_its_own() {
        for line in [
            &["deploy", "-f", "stack.yml", "--name", "x"][..],
            &["deploy", "--memory", "1Mi"],
            &["deploy", "--filter", "a", "--regex", "b"],
            &["deploy", "a.wasm", "--no-build"],
            &["deploy", "a.wasm", "--parallel", "2"],
            &["deploy", "a.wasm", "--build-timeout", "1m"],
            &["deploy", "a.wasm", "--envsubst", "false"],
            &["deploy", "--parallel", "0"],
        ] {
            assert!(Line::try_parse_from(line).is_err(), "{line:?}");
        }
        let line =
            ["deploy", "-f", "stack.yml", "-n", "dev", "-e", "A=b", "--secret", "s", "--envsubst=false"];
        let additions = Line::try_parse_from(line).unwrap().arguments.added.additions();
        assert_eq!(
            (&*additions.namespace, &*additions.env["A"], &*additions.secrets),
            ("dev", "b", &["s".to_owned()][..])
        );
    }

    #[test]
    fn a_name_is_taken_from_what_there_is() {
        assert_eq!(spec(&["dir/My_Api.wasm"]).unwrap().service, "my-api");
        assert_eq!(spec(&["dir/x.wasm", "--name", "api"]).unwrap().service, "api");
    }

    #[test]
    fn mistakes_are_told_before_anything_is_sent() {
        for (line, expected) in [
            (&["a.wasm", "--env", "A"][..], "NAME=VALUE"),
            (&["a.wasm", "--memory", "12MB"], "limits.memory"),
            (&["UPPER/case"], "reference"),
            (&["a.wasm", "--timeout", "soon"], "10m"),
        ] {
            let error = spec(line).unwrap_err().to_string();
            assert!(error.contains(expected), "{line:?}: {error}");
        }
    }
}
