//! The functions of a stack file, built and deployed.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use runtime_api::{Deployment, FunctionName, FunctionSpec, ModuleCommand};
use serde_json::{Value, json};

use crate::{
    build::{self, Built},
    client::Gateway,
    deploy::{DeployArguments, as_json},
    module_file::Module,
    progress::Spinner,
    roll_out::roll_out,
    stack::{Additions, Function, Stack},
    templates::{self, Template},
    terminal::{Lines, until_interrupted},
    usage::Mistakes,
};

/// A function that serves.
pub(crate) struct Deployed {
    pub(crate) name: FunctionName,
    pub(crate) spec: FunctionSpec,
    pub(crate) deployment: Option<Deployment>,
    pub(crate) url: String,
}

/// Builds and deploys; fails if any function could not be, after all have been tried.
pub(crate) async fn run(arguments: &DeployArguments) -> Result<()> {
    let stack = arguments.stack.load()?;
    let lines = Lines::of(stack.functions.keys());
    let mut outcome = Outcome::default();
    let ended = until_interrupted(deploy_all(arguments, &stack, &lines, &mut outcome)).await?;
    let Outcome { list, failed, under_way } = outcome;
    if arguments.json {
        writeln!(io::stdout(), "{}", json!(list))?;
    }
    match (ended, under_way) {
        (None, Some(name)) => {
            bail!("interrupted while {name} was being deployed, which may go on: nothing more is deployed")
        }
        (None, None) => bail!("interrupted: nothing more is deployed"),
        (Some(()), _) => ensure!(failed == 0, "{failed} of {} functions are not deployed", list.len()),
    }
    Ok(())
}

/// How far a deployment of several functions has come.
#[derive(Default)]
struct Outcome {
    /// What scripts are told of each function that was tried.
    list: Vec<Value>,
    failed: usize,
    under_way: Option<String>,
}

async fn deploy_all(
    arguments: &DeployArguments,
    stack: &Stack,
    lines: &Lines,
    outcome: &mut Outcome,
) -> Result<()> {
    let project = build::project()?;
    let gateway = arguments.client.gateway(stack.gateway.as_deref())?;
    let additions = arguments.added.additions();
    for (name, built) in builds(arguments, &project, stack, lines).await {
        let function = stack.functions.get(&name).context("what was built is of the stack")?;
        let result = match built {
            Ok(built) => {
                outcome.under_way = Some(name.clone());
                let spinner = Spinner::start(format!("deploying {name}"));
                let tell = |stage| spinner.say(stage);
                let deploying = Deploying { project: &project, gateway: &gateway, additions: &additions };
                let deployed =
                    deploying.deploy(&name, function, built.as_ref(), arguments.timeout, &tell).await;
                deployed.inspect_err(|error| lines.say(&name, &format!("{name} is not deployed: {error:#}")))
            }
            // It was told already.
            Err(error) => Err(error),
        };
        outcome.under_way = None;
        match result {
            Ok(Deployed { name, spec, deployment, url }) => {
                if !arguments.json {
                    writeln!(io::stdout(), "{} is ready: {url}", name.name())?;
                }
                outcome.list.push(as_json(&name, &spec, deployment.as_ref(), &url));
            }
            Err(error) => {
                outcome.failed += 1;
                outcome.list.push(json!({"name": name, "error": format!("{error:#}")}));
            }
        }
    }
    Ok(())
}

/// What is to be uploaded of each function; none of those that are deployed by their image.
async fn builds(
    arguments: &DeployArguments,
    project: &Path,
    stack: &Stack,
    lines: &Lines,
) -> Vec<(String, Result<Option<Built>>)> {
    if !arguments.no_build {
        return build::build_all(project, stack, &arguments.build, lines).await;
    }
    let last = |(name, function): (&String, &Function)| {
        let builds = match function.template() {
            Some(language) => Template::find(project, language).map(|template| template.builds_modules()),
            None => Ok(false),
        };
        let last = builds.and_then(|builds| builds.then(|| build::last_built(project, name)).transpose());
        (
            name.clone(),
            last.inspect_err(|error| lines.say(name, &format!("{name} is not deployed: {error:#}"))),
        )
    };
    stack.functions.iter().map(last).collect()
}

/// What deployments of one stack have in common.
pub(crate) struct Deploying<'a> {
    pub(crate) project: &'a Path,
    pub(crate) gateway: &'a Gateway,
    pub(crate) additions: &'a Additions,
}

impl Deploying<'_> {
    /// Uploads what was built, deploys it or else the function's image, and waits until it serves.
    pub(crate) async fn deploy(
        &self,
        name: &str,
        function: &Function,
        built: Option<&Built>,
        longest: Duration,
        tell: &dyn Fn(String),
    ) -> Result<Deployed> {
        // Mistakes are found before anything is uploaded.
        let image = function.image.clone().unwrap_or_default();
        if built.is_none() && image.is_empty() {
            let mistake = format!("functions.{name} has no image, and no `lang` that is built here");
            return Err(Mistakes::from(mistake).into());
        }
        let process = match function.process_template() {
            Some(language) => templates::process(self.project, language)?,
            None => None,
        };
        let mut spec = function.spec(name, image, process.as_deref(), self.additions)?;
        let full_name = spec.name()?;
        if let Some(built) = built {
            tell(format!("uploading {} KiB of {name}", built.bytes.div_ceil(1024)));
            let module = Module { bytes: built.read()?, command: ModuleCommand::default() };
            spec.image = self.gateway.store_artifact(module).await?.image;
        }
        let deployment = roll_out(self.gateway, &spec, longest, tell).await?;
        Ok(Deployed { url: self.gateway.function_url(&full_name), name: full_name, spec, deployment })
    }
}
